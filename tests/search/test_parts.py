"""Tries are judged on a part of the samples, what is kept on all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.arrays import BoolArray
from onnxprune.data import Data
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.search.control import Control
from onnxprune.search.controllers import accuracy_aware
from onnxprune.search.evaluators import ENOUGH, Parts
from onnxprune.search.settings import Settings
from onnxprune.search.task import State
from tests.search.test_orders import LAYERS, Ways
from tests.support.models import images, model, run
from tests.support.runs import journal
from tests.support.simulated import accuracy
from tests.support.small_net import Small

NET = model(
    """
    net (float[N,2,2,2] x) => (float[N,3] y) <float[3,2,1,1] w> {
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      y = Flatten(p)
    }
    """
)


def evaluator(samples: int, **asked: Any) -> Evaluator:
    y = np.random.default_rng(0).integers(0, 3, samples)
    return Evaluator(Data(images(NET, samples), y, tuple("abc")), device="cpu", **asked)


def test_few_samples_have_no_parts() -> None:
    assert Parts.of(evaluator(2 * ENOUGH - 1)) is None
    assert Parts.of(evaluator(2 * ENOUGH)) is not None


def test_a_metric_that_looks_at_all_outputs_at_once_has_no_parts() -> None:
    def share(outputs: Any, targets: Any) -> float:
        return float((np.argmax(next(iter(outputs.values())), 1) == targets).mean())

    assert Parts.of(evaluator(200, metric=share)) is None


@pytest.mark.parametrize("samples", [100, 257])
def test_parts_add_up_to_the_whole(samples: int) -> None:
    judge = evaluator(samples)
    parts = Parts.of(judge)
    assert parts is not None
    whole, first = parts(NET), parts.part(NET)
    assert whole == parts.rest(NET, first)
    assert first.total.sum() == len(parts.first) >= ENOUGH
    assert whole.correct.tolist() == judge(NET).correct.tolist()
    assert whole.total.tolist() == judge(NET).total.tolist()
    np.testing.assert_allclose(whole.probability, judge(NET).probability)


class Parted(Ways):
    """A filter of the first order costs `part` on the part, one of the second 0.02."""

    def __init__(self, part: float, **asked: Any) -> None:
        self.parts, self.rests = list[int](), list[int]()

        def lost(dead: BoolArray) -> list[int]:
            return [int(dead[:60][layer == LAYERS].sum()) for layer in range(3)]

        def glance(net: State) -> Accuracy:
            self.parts.append(int(net.dead.sum()))
            first, second, _ = lost(net.dead)
            return accuracy(1 - part * first - 0.02 * second)

        def rest(net: State, seen: Accuracy) -> Accuracy:
            self.rests.append(int(net.dead.sum()))
            return seen + accuracy(0.25)

        asked.setdefault("tuning", Control(layer_share=100.0))
        super().__init__(lambda *_: 1.0, glance=glance, rest=rest, **asked)


def test_tries_are_judged_on_the_part_and_what_is_kept_is_measured_on_all() -> None:
    found = Parted(0.04)
    state = accuracy_aware(found, replace(found.start(), size=0.05))
    assert state.dead[:60][LAYERS == 1].sum() == 3
    assert (found.parts, found.rests) == ([0, 3, 3], [3])
    assert state.accuracy == accuracy(1 - 0.02 * 3) + accuracy(0.25)
    assert not found.seen.measured


def test_a_net_that_is_only_sketched_stays_at_what_it_was_tried_with() -> None:
    found = Parted(0.04, sketch=lambda net, _: net)
    state = replace(found.start(), size=0.05)
    assert accuracy_aware(found, replace(state, corrected=True)).accuracy == accuracy(1 - 0.02 * 3)
    assert found.rests == []
    accuracy_aware(found, state)
    assert found.rests == [3]


def test_nothing_hangs_on_more_than_the_part_until_the_end() -> None:
    found = Parted(0.04)
    found.task = replace(found.task, rest=None)
    state = accuracy_aware(found, replace(found.start(), size=0.05))
    assert state.accuracy == found.finish(state).accuracy == accuracy(1 - 0.02 * 3)
    assert found.rests == []
    assert found.finish(replace(state, stopped="target")).accuracy == accuracy(1.0)


def test_an_order_that_does_no_harm_to_the_part_is_enough() -> None:
    found = Parted(0.0)
    accuracy_aware(found, found.start())
    assert (found.parts, found.rests) == ([0, 6], [6])


def test_half_a_step_is_decided_on_the_part() -> None:
    """Both orders are tried at both sizes, and one net is measured on all samples."""
    found = Parted(0.05)
    state = accuracy_aware(found, found.start())
    assert (found.parts, found.rests) == ([0, 6, 6, 3, 3], [int(state.dead.sum())])
    assert found.evaluations == 5
    assert len(found.taken_back(state)) == 3


def test_what_is_seen_of_a_net_depends_on_its_state_alone() -> None:
    """So a resumed search, which has seen nothing yet, goes on as one that was not stopped."""
    found = Parted(0.04)
    state = accuracy_aware(found, replace(found.start(), size=0.05))
    fresh = Parted(0.04)
    assert accuracy_aware(fresh, state) == accuracy_aware(found, state)


@pytest.mark.parametrize("compensate", ["none", "least-squares"])
def test_a_killed_run_of_many_samples_ends_as_if_nothing_had_happened(
    small: Small, compensate: str, tmp_path: Path
) -> None:
    """What is said of the model is true of it, to the last bit, however it was looked at before."""
    x = images(small.proto, 2 * ENOUGH + 7)
    data = Data(x, run(small.proto, x)[0].argmax(1), ("a", "b", "c"))
    asked = {"compensate": compensate, "correct": "start", "rate": 0.5}
    settings = Settings.of(**asked, threads=1, trust_baseline=True)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    result = onnxprune.prune(small.proto, data, settings=settings, run_dir=whole)
    lines = (whole / "journal.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) > 4
    killed.mkdir()
    (killed / "config.json").write_bytes((whole / "config.json").read_bytes())
    (killed / "journal.jsonl").write_bytes(b"".join(lines[:3]))
    again = onnxprune.prune(small.proto, data, settings=settings, run_dir=killed, resume=True)
    assert again.model == result.model
    assert journal(killed) == journal(whole)
    measured = Parts.of(Evaluator(data, device="cpu", threads=1))
    assert measured is not None
    assert result.report["after"]["accuracy"] == measured(result.model).to_json()
