"""Of many samples of classes that have few, some only judge: no order, no fit on the way sees them.

So conventional relevance can be an order beside damage, which flatters what it was measured on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import FloatArray
from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.evaluation import Evaluator
from onnxprune.graph import Graph
from onnxprune.relevance import Damage
from onnxprune.search import Nets, Settings, floors, unseen
from onnxprune.search.assemble import make_task
from onnxprune.search.control import Strategy
from onnxprune.search.controllers import accuracy_aware
from onnxprune.search.evaluators import ENOUGH, Parts
from onnxprune.search.orders import best_step
from onnxprune.search.ranking import make_damage
from onnxprune.search.task import State
from onnxprune.surgery import remove_channels
from tests.search.test_orders import Ways, nets, step
from tests.support.models import images
from tests.support.simulated import GROUPS, NOTHING, UNSEEN, Simulated, accuracy, gone
from tests.support.small_net import Small

THIRD_FIRST = np.full(len(GROUPS), np.inf)
THIRD_FIRST[:60] = (np.arange(60) - 40) % 60 + 1.0
MANY: dict[str, Any] = {"relevance": lambda *_: THIRD_FIRST, "unseen": True}
RATE: dict[str, Any] = {"compensate": "least-squares", "threads": 1, "rate": 0.5}


def samples(small: Small, count: int, changed: bool = False) -> Data:
    """Noise; if so, what judges shows other things than usual."""
    x = images(small.proto, count)
    data = Data(x, np.arange(count) % 3, ("a", "b", "c"))
    if not changed:
        return data
    other = x.copy()
    other[judges(data)] = 3 * x[judges(data)][:, :, ::-1]
    return replace(data, x=other)


@pytest.fixture(autouse=True)
def _classes_have_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the small net, too, which are three."""
    monkeypatch.setattr(unseen, "FEW", 1000)


def judges(data: Data) -> Any:
    parts = Parts.of(Evaluator(data, threads=1))
    assert parts is not None
    return parts.first


def made(small: Small, data: Data, **asked: Any) -> Nets:
    return Nets(make_task(Graph(small.proto), data, Settings.of(**{**RATE, **asked})))


# Who sees what


@pytest.mark.parametrize("count", [4 * ENOUGH - 1, 4 * ENOUGH, 9 * ENOUGH])
def test_of_many_samples_no_order_sees_those_that_judge(small: Small, count: int) -> None:
    """Whatever they show, the orders are the same; of fewer samples all are seen."""
    found = [made(small, samples(small, count, changed)).task for changed in (False, True)]
    many = count >= 4 * ENOUGH
    assert [task.unseen for task in found] == [task.relevance is not None for task in found]
    assert found[0].unseen == many
    effects = [task.damage(task.graph, task.groups).effects for task in found if task.damage]
    assert np.array_equal(effects[0], effects[1]) == many
    ranked = [task.relevance(task.graph, task.groups) for task in found if task.relevance]
    assert len(ranked) == (2 if many else 0)
    assert all(np.array_equal(ranked[0], one) for one in ranked)


def test_where_classes_have_many_samples_all_are_seen(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = samples(small, 4 * ENOUGH)
    monkeypatch.setattr(unseen, "FEW", len(data) / 3 + 1)
    assert made(small, data).task.unseen
    monkeypatch.setattr(unseen, "FEW", len(data) / 3)
    assert not made(small, data).task.unseen


@pytest.mark.parametrize("rough", [False, True])
def test_fits_on_the_way_do_not_see_what_judges(small: Small, rough: bool) -> None:
    """What is handed out is fitted on all."""
    whole, other = (made(small, samples(small, 6 * ENOUGH, changed)) for changed in (False, True))
    dead = np.isin(np.arange(len(whole.task.groups)), [0, 3, 9])
    pruned = remove_channels(whole.task.graph, whole.task.groups, dead)

    def fitted(nets: Nets) -> Any:
        if rough:
            assert nets.task.sketch is not None
            return nets.task.sketch(pruned, dead)
        assert nets.task.compensate is not None
        return nets.task.compensate(pruned, dead)

    assert (fitted(whole) == fitted(other)) == rough


def test_a_correction_is_judged_by_samples_that_nothing_has_seen(small: Small) -> None:
    data = samples(small, 6 * ENOUGH)
    nets = made(small, data)
    dead = np.isin(np.arange(len(nets.task.groups)), [0, 3, 9])
    pruned = remove_channels(nets.task.graph, nets.task.groups, dead)
    assert nets.task.judged is not None
    now, found = nets.task.judged(pruned, dead)
    others = data.rows(np.setdiff1d(np.arange(len(data)), judges(data)))
    apart = make_task(Graph(small.proto), others, Settings.of(**RATE, mirrored="never"))
    assert apart.compensate is not None
    judge = Evaluator(data, threads=1)
    expected = judge.some(apart.compensate(pruned, dead), judges(data))
    np.testing.assert_allclose(found.soft_per_class, expected.soft_per_class, rtol=1e-3)
    plain = judge.some(pruned, judges(data))
    np.testing.assert_allclose(now.soft_per_class, plain.soft_per_class)
    assert not np.allclose(now.soft_per_class, found.soft_per_class, rtol=1e-3)


# Conventional relevance as an order


@pytest.mark.parametrize("corrects", ["never", "unseen", "corrected"])
def test_conventional_relevance_is_tried_where_a_step_costs(corrects: str) -> None:
    """Of weights that wait for a correction, too, where samples judge that have seen nothing."""
    strategy = Strategy(corrects="never" if corrects == "never" else "unseen")
    found = nets(lambda gone: 1 - 0.01 * gone[0] - 0.02 * gone[1], strategy=strategy, **MANY)
    assert step(found, corrected=corrects == "corrected") == [0, 0, 6]
    tried = len(found.seen.measured)
    assert tried == (2 if corrects == "unseen" else 3)
    harmless = nets(lambda gone: 0.97 if gone[0] else 1.0, strategy=strategy, **MANY)
    assert step(harmless) == [6, 0, 0]
    one = nets(lambda gone: 1 - 0.01 * gone[0], strategy=strategy)
    assert step(one, corrected=corrects == "corrected")[2] < 6


def test_relevance_counts_for_what_is_saved() -> None:
    """A channel goes that has least of it for each multiply-add."""
    found = Ways(lambda *_: 0.5, aims=("macs",), unseen=True, strategy=UNSEEN)
    saved = found.objective.saved(NOTHING)[:60]
    dear = saved == saved.max()
    assert 0 < dear.sum() < 60
    scores: FloatArray = np.full(len(GROUPS), np.inf)
    scores[:60] = np.where(dear, 1.0, 1.1) * saved
    assert scores[:60][dear].min() > scores[:60][~dear].max()
    found.task = replace(found.task, relevance=lambda *_: scores)
    state = replace(found.start(), rests=1, better=1)
    gone_now = np.flatnonzero(best_step(found, state, 0.05).dead)
    assert gone_now.size and dear[gone_now].all()


def test_where_relevance_is_better_damage_is_not_even_measured() -> None:
    found = nets(lambda gone: 0.5 ** (sum(gone) + gone[0] + gone[1]), strategy=UNSEEN, **MANY)
    state = State(NOTHING, 0.06, accuracy(1.0))
    for _ in range(6):
        state = best_step(found, state, 0.06)
    assert (state.took, state.better, state.won) == (1, 1, 3)
    assert found.seen.ranked == [0, 6, 14]


@pytest.mark.parametrize(("took", "layer"), [(0, 0), (1, 2)])
def test_searches_apart_follow_the_order_of_the_search(took: int, layer: int) -> None:
    """Their samples have chosen what goes, so they cannot choose among orders."""
    found = nets(lambda gone: 1 - 0.01 * sum(gone), strategy=UNSEEN, relevance=MANY["relevance"])
    state = replace(found.start(), apart=())
    left = 0.9 * found.objective.left(NOTHING)
    down = floors._down(found, state, to=replace(state, took=took), left=left)
    assert np.flatnonzero(down.dead[:60]).tolist() == list(range(20 * layer, 20 * layer + 6))


# When weights are corrected


@pytest.mark.parametrize(
    ("now", "then", "corrected"),
    [
        ((0.80, 0.80), (0.79, 0.70), True),
        ((0.80, 0.80), (0.60, 0.79), True),
        ((0.80, 0.80), (0.70, 0.70), False),
    ],
)
def test_a_correction_is_taken_where_it_does_no_harm(
    now: tuple[float, float], then: tuple[float, float], corrected: bool
) -> None:
    """By the probability of the true class or by how often it is first: a fit is less sure."""
    found = Simulated(
        lambda dead, _: 0.9 if dead.any() else 1.0,
        held_out=lambda _: 0.0,
        judged=(0.0, 0.0),
        strategy=UNSEEN,
        glance=lambda net: accuracy(0.9 if isinstance(net, State) and net.dead.any() else 1.0),
        unseen=True,
    )
    pair = accuracy(*now), accuracy(*then)
    found.task = replace(found.task, judged=lambda *_: pair)
    assert accuracy_aware(found, found.start()).corrected == corrected
    found.task = replace(found.task, unseen=False)
    assert not accuracy_aware(found, found.start()).corrected


def test_what_a_net_loses_on_those_that_judge_decides() -> None:
    """All samples together look fine."""
    found = Simulated(
        lambda *_: 1.0,
        held_out=lambda _: 0.0,
        judged=(0.9, 0.95),
        strategy=UNSEEN,
        glance=lambda net: accuracy(0.9 if isinstance(net, State) and net.dead.any() else 1.0),
        rest=lambda *_: accuracy(1.0),
        unseen=True,
    )
    state = accuracy_aware(found, found.start())
    assert state.corrected and gone(state) == 6
    found.task = replace(found.task, unseen=False)
    assert not accuracy_aware(found, found.start()).corrected


@pytest.mark.parametrize("asked", [{"strategy": Strategy(corrects="seen")}, {"held_out": None}])
def test_where_no_sample_can_be_left_out_those_that_judge_decide_as_well(
    asked: dict[str, Any],
) -> None:
    """Although all samples together look better with the correction."""

    def glance(net: Any) -> Any:
        gone_there = isinstance(net, State) and net.dead.any()
        return accuracy((0.8 if net.corrected else 0.9) if gone_there else 1.0)

    found = Simulated(
        lambda dead, corrected: 1.0 if corrected or not dead.any() else 0.9,
        **{"strategy": UNSEEN, "unseen": True, "glance": glance, **asked},
    )
    assert not accuracy_aware(found, found.start()).corrected
    found.task = replace(found.task, unseen=False, glance=None)
    assert accuracy_aware(found, found.start()).corrected


@pytest.mark.parametrize(("right", "left"), [(0.7, True), (0.2, False)])
def test_corrected_weights_are_left_where_plain_ones_are_right_more_often_too(
    right: float, left: bool
) -> None:
    found = Simulated(
        lambda dead, is_corrected: (
            1.0 if not dead.any() else (0.3, 0.3) if is_corrected else (0.9, right)
        ),
        held_out=lambda _: 0.0,
        strategy=UNSEEN,
        unseen=True,
    )
    state = accuracy_aware(found, replace(found.start(), corrected=True))
    assert state.corrected != left


def test_of_classes_that_have_few_samples_damage_follows_one_direction(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.relevance.divergence.CLASSES_EACH", 1)
    graph, data = Graph(small.proto), samples(small, 12)
    for few, directions in ((1, 2), (1000, 1)):
        monkeypatch.setattr(unseen, "FEW", few)
        measure = make_damage(graph, data, Settings(threads=1))
        assert measure is not None
        found = measure(graph, find_groups(graph))
        assert isinstance(found, Damage)
        assert found.effects.shape[1] == directions * len(data)
