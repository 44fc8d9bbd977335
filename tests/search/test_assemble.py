"""What the settings make of a search: its strategy, and the constants that reach every part."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.compensate import ROUGH
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import choose_strategy, find_aims, make_task, open_model
from onnxprune.search.control import Control, Strategy
from onnxprune.search.evaluators import ENOUGH
from onnxprune.search.nets import Nets
from onnxprune.search.orders import soft
from onnxprune.search.settings import Settings
from onnxprune.search.task import State
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, run
from tests.support.runs import samples
from tests.support.small_net import Small

LEAST_SQUARES = {"compensate": "least-squares"}
TAYLOR = {"criterion": "taylor"}


@pytest.mark.parametrize(
    ("asked", "aims"),
    [
        ({}, ("estimated-latency",)),
        ({"max_drop": 0.02, "aim": "latency"}, ("latency",)),
        ({"max_drop": 0.02, "latency_on": "openvino"}, ("latency",)),
        ({"max_drop": 0.02, "macs": 0.5}, ("macs",)),
        ({"latency_ms": 3, "size": 0.5}, ("size", "latency")),
        ({"latency_ms": 3, "aim": "estimated-latency"}, ("estimated-latency",)),
        ({"layer_rate": (("conv", 0.5),)}, ("rate",)),
        ({"layer_rate": (("conv", 0.5),), "max_drop": 0.02}, ("estimated-latency",)),
    ],
)
def test_what_is_saved_is_asked_for_or_the_target_or_time(
    asked: dict[str, Any], aims: tuple[str, ...]
) -> None:
    assert find_aims(Settings.of(**asked)) == aims


@pytest.mark.parametrize(
    ("asked", "strategy"),
    [
        ({"compensate": "none"}, Strategy()),
        (LEAST_SQUARES, Strategy(corrects="unseen")),
        ({"compensate": "bias"}, Strategy(corrects="unseen")),
        ({**LEAST_SQUARES, "correct": "seen"}, Strategy(corrects="seen")),
        ({**LEAST_SQUARES, "correct": "start"}, Strategy(corrects="start")),
        ({**LEAST_SQUARES, **TAYLOR}, Strategy(corrects="start", ranks_once=True)),
        ({**LEAST_SQUARES, **TAYLOR, "reranks": "always"}, Strategy(corrects="start")),
        ({"compensate": "bias", **TAYLOR}, Strategy(corrects="start")),
        ({**LEAST_SQUARES, "criterion": "magnitude"}, Strategy(corrects="start")),
        ({"compensate": "none", "reranks": "never"}, Strategy(ranks_once=True)),
        ({"compensate": "none", "control": "iterative", "stride": 0.2}, Strategy(0.2)),
        ({"compensate": "none", "control": "one-shot"}, Strategy(1.0, measures=False)),
        ({"compensate": "none", "control": "one-shot", "max_drop": 0.1}, Strategy()),
        (
            {**LEAST_SQUARES, "control": "one-shot", "criterion": "lrp:zplus"},
            Strategy(1.0, measures=False, ranks_once=True, corrects="start"),
        ),
    ],
    ids=str,
)
def test_a_strategy_is_chosen(asked: dict[str, Any], strategy: Strategy) -> None:
    assert choose_strategy(Settings.of(**asked)) == strategy


def test_constants_read_back_and_are_options() -> None:
    asked = Settings.of(harmful=0, own_squares=3, reranks="never", rate=0.5)
    assert asked.tuning == Control(harmful=0, own_squares=3, reranks="never")
    assert Settings.from_json(asked.to_json()) == asked
    assert asked.changed(harmful=0.9, rate=0.6).target.rate == 0.6
    assert asked.changed(harmful=0.9).tuning.own_squares == 3
    for wrong in ({"reranks": "sometimes"}, {"correct": "never"}):
        with pytest.raises(onnxprune.OnnxPruneError, match=r"unknown.*expected one of"):
            Settings.of(**wrong)


def opened(small: Small, **asked: Any) -> Nets:
    settings = Settings.of(threads=1, device="cpu", rate=0.5, **asked)
    return Nets(make_task(*open_model(small.proto, samples(small), settings), settings))


def test_the_constants_of_least_squares_reach_it(small: Small) -> None:
    dead = np.zeros(17, np.bool_)
    dead[[0, 3, 9]] = True

    def corrected(**tuning: Any) -> bytes:
        nets = opened(small, compensate="least-squares", **tuning)
        state = State(dead[: len(nets.task.groups)], corrected=True)
        return nets.build(state).SerializeToString()

    changes: list[dict[str, Any]] = [{}, {"ridge": 100}, {"ridge_share": 3}, {"mirrored": "never"}]
    changes += [{"variance": 0}, {"variance": 0.5}]
    assert len({corrected(**change) for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("compensate", "held_out"), [("least-squares", True), ("bias", False), ("none", False)]
)
def test_what_is_held_out_is_corrected_by_the_other_samples(
    small: Small, compensate: str, held_out: bool
) -> None:
    """A mean does not overfit, so no sample is left out of it."""
    nets = opened(small, compensate=compensate)
    dead = np.isin(np.arange(len(nets.task.groups)), [0, 3, 9])
    found = nets.hold_out(State(dead, corrected=True))
    assert (found is not None) == held_out
    assert nets.evaluations == held_out
    if found is None:
        return
    correct, folds = nets.task.compensate, np.arange(len(small.x)) % 3
    pruned = remove_channels(nets.task.graph, nets.task.groups, dead)
    evaluator = nets.task.evaluate.__wrapped__  # type: ignore[attr-defined,union-attr]
    parts = [correct(pruned, dead, without=fold) for fold in range(3)]
    assert found == evaluator.apart(parts, folds)
    assert found != nets.measure(State(dead, corrected=True)).accuracy


@pytest.mark.parametrize(
    ("asked", "measured"),
    [
        ({"compensate": "none"}, False),
        ({"compensate": "none", "max_drop": 0.1}, True),
        ({"compensate": "none", "criterion": "magnitude"}, True),
        ({"compensate": "bias"}, True),
    ],
)
def test_what_is_kept_is_measured_on_all_samples_where_something_hangs_on_it(
    small: Small, asked: dict[str, Any], measured: bool
) -> None:
    x = images(small.proto, 2 * ENOUGH)
    data = Data(x, run(small.proto, x)[0].argmax(1), ("a", "b", "c"))
    settings = Settings.of(threads=1, device="cpu", rate=0.5, **asked)
    task = make_task(Graph(small.proto), data, settings)
    assert task.glance is not None and (task.rest is not None) == measured


def test_of_many_samples_those_of_a_fit_decide_about_it(small: Small) -> None:
    """The order of weights untouched is chosen on them as well. A floor holds on others."""
    x = images(small.proto, 2 * ROUGH)
    data = Data(x, run(small.proto, x)[0].argmax(1), ("a", "b", "c"))
    settings = Settings.of(threads=1, device="cpu", rate=0.5, compensate="least-squares")

    def made(data: Data, **asked: Any) -> Nets:
        return Nets(make_task(Graph(small.proto), data, settings.changed(**asked)))

    nets = made(data)
    state = State(np.isin(np.arange(len(nets.task.groups)), [0, 3, 9]))
    fitted = nets.measure(replace(state, corrected=True)).accuracy
    assert nets.foresee(state) == soft(nets, fitted)
    few = data.rows(np.arange(2 * ROUGH - 1))
    for other in (made(data, max_drop=0.1), made(few)):
        assert other.foresee(state) == soft(other, other.hold_out(state, roughly=True))
    assert made(data, correct="start").task.strategy == Strategy(corrects="start")
