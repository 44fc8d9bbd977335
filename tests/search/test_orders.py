"""Which order a step follows, on nets that are formulas: H by what is gone of each layer.

By damage the first layer goes first; with fewer own squares the second; evenly one of each.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.search.control import Control, Strategy
from onnxprune.search.controllers import accuracy_aware
from onnxprune.search.orders import best_step, corrected, resized
from onnxprune.search.task import State
from tests.support.simulated import EVENLY, GROUPS, NOTHING, Simulated, accuracy, gone

LAYERS = GROUPS.group[:60]
PLACES = np.where(np.arange(len(GROUPS)) < 60, np.arange(len(GROUPS)), np.inf)
SECOND_FIRST = np.full(len(GROUPS), np.inf)
SECOND_FIRST[:60] = (np.arange(60) - 20) % 60


class Ways(Simulated):
    """Its order depends on how often own squares count."""

    def order(
        self, state: State, share: float, layer_share: float, own_squares: float
    ) -> FloatArray:
        self.seen.ranked.append(gone(state))
        ranking = PLACES if own_squares == Control.own_squares else SECOND_FIRST
        return np.where(state.dead, np.inf, ranking)


def nets(worth: Callable[[list[int]], float], **asked: Any) -> Ways:
    def find(dead: BoolArray, _: bool) -> float:
        return worth([int(dead[:60][layer == LAYERS].sum()) for layer in range(3)])

    asked.setdefault("tuning", Control(layer_share=100.0))
    return Ways(find, restore=lambda dead, _: np.where(dead, np.inf, EVENLY), **asked)


def step(found: Ways, *, corrected: bool = False, size: float = 0.1) -> list[int]:
    if corrected:
        strategy = replace(found.task.strategy, corrects="unseen")
        found.task = replace(found.task, strategy=strategy)
    state = State(NOTHING, size, accuracy(1.0), corrected=corrected)
    dead = best_step(found, state, size).dead
    return [int(dead[:60][layer == LAYERS].sum()) for layer in range(3)]


def test_an_order_that_does_no_harm_is_enough() -> None:
    found = nets(lambda gone: 0.97 if gone[0] else 1.0)
    assert step(found) == [6, 0, 0]
    assert len(found.seen.measured) == 1


@pytest.mark.parametrize("corrected", [False, True])
def test_where_it_costs_the_order_that_keeps_most_is_taken(corrected: bool) -> None:
    found = nets(lambda gone: 1 - 0.01 * gone[0])
    assert step(found, corrected=corrected) == ([2, 2, 2] if corrected else [0, 6, 0])
    assert len(found.seen.measured) == 2
    worse = nets(lambda gone: 1 - 0.01 * gone[0] - 0.1 * gone[1])
    assert step(worse, corrected=corrected) == [6, 0, 0]
    alike = nets(lambda gone: 0.9 if any(gone) else 1.0)
    assert step(alike, corrected=corrected) == [6, 0, 0], "of equals, the usual one"


@pytest.mark.parametrize(
    "asked",
    [
        {"tuning": Control(layer_share=100.0, orders="one")},
        {"strategy": Strategy(ranks_once=True)},
    ],
    ids=str,
)
def test_there_may_be_one_order(asked: dict[str, Any]) -> None:
    found = nets(lambda gone: 1 - 0.01 * gone[0], **asked)
    assert step(found) == [6, 0, 0]
    assert step(found, corrected=True) == [6, 0, 0]
    assert len(found.seen.measured) == 2


def test_there_is_one_order_while_weights_wait_for_a_correction() -> None:
    found = nets(lambda gone: 1 - 0.01 * gone[0], strategy=Strategy(corrects="unseen"))
    assert step(found) == [6, 0, 0]
    assert len(found.seen.measured) == 1


def descent(worth: Callable[[list[int]], float], steps: int, **asked: Any) -> tuple[Ways, State]:
    """Small steps of a net with corrected weights, and how often each was measured."""
    found = nets(worth, **asked)
    found.task = replace(found.task, strategy=replace(found.task.strategy, corrects="unseen"))
    state = State(NOTHING, 0.06, accuracy(1.0), corrected=True)
    for _ in range(steps):
        state = best_step(found, state, 0.06)
    return found, state


def tries(found: Ways) -> list[int]:
    """How many nets were tried at each step, by what the next one goes on from."""
    sizes = [count for count, _ in found.seen.measured]
    return [sizes.count(count) for count in sorted(set(sizes))]


def test_an_order_that_was_the_worse_one_rests_longer_each_time() -> None:
    """Evenly is better: relevance is not even measured while the order by damage rests."""
    found, state = descent(lambda gone: 0.5 ** (sum(gone) + gone[0]), 8)
    assert tries(found) == [2, 1, 2, 1, 1, 2, 1, 1]
    assert found.seen.ranked == [0, 6, 14]
    assert (state.took, state.better, state.won, state.rests) == (1, 1, 3, 2)
    assert (state.since, state.followed) == ((), 0.0), "no step follows relevance of before"
    assert descent(lambda gone: 0.5 ** (sum(gone) + gone[0]), 1)[1].since
    found, state = descent(lambda gone: 0.5 ** (sum(gone) + gone[2]), 4)
    assert tries(found) == [2, 1, 2, 1]
    assert found.seen.ranked == [0, 3, 6, 9]
    assert (state.took, state.better, state.won, state.rests) == (0, 0, 2, 1)
    found, state = descent(lambda gone: 0.5 ** sum(gone), 4, tuning=Control(longest_rest=0))
    assert tries(found) == [2, 2, 2, 2]


def test_an_order_that_is_better_again_counts_anew() -> None:
    found, state = descent(lambda gone: 0.5 ** (sum(gone) + gone[0]), 1)
    state = replace(state, better=0, won=5, rests=0)
    after = best_step(found, state, 0.06)
    assert (after.better, after.won, after.rests) == (1, 1, 1)
    again = corrected(replace(state, better=1, rests=2))
    assert (again.better, again.won, again.rests) == (0, 0, 0)


def test_nets_as_they_are_are_cheap_enough_to_try_both_orders() -> None:
    found = nets(lambda gone: 0.5 ** (sum(gone) + gone[0]))
    state = State(NOTHING, 0.06, accuracy(1.0))
    for _ in range(3):
        state = best_step(found, state, 0.06)
    assert tries(found) == [2, 2, 2]
    assert (state.better, state.rests) == (0, 0)


def test_a_criterion_has_one_order() -> None:
    found = nets(lambda gone: 1 - 0.01 * sum(gone), by_damage=False)
    assert step(found) == [2, 2, 2]
    assert len(found.seen.measured) == 1


def test_the_same_net_is_measured_once() -> None:
    found = Simulated(lambda dead, _: 0.5 if dead.any() else 1.0)
    best_step(found, State(NOTHING, 0.1, accuracy(1.0)), 0.1)
    assert len(found.seen.measured) == 1


def test_nothing_goes_where_nothing_may() -> None:
    full = np.zeros(len(GROUPS), np.bool_)
    for layer in range(3):
        full[np.flatnonzero(LAYERS == layer)[1:]] = True
    state = State(full, 0.1, accuracy(1.0))
    assert best_step(nets(lambda _: 1.0), state, 0.1) is state


def test_what_was_tried_and_given_up_is_told() -> None:
    found = nets(lambda gone: 1 - 0.01 * gone[0])
    state = accuracy_aware(found, found.start())
    assert gone(state) == 6
    assert [gone(one) for one in found.taken_back(state)] == [6]


def walked(steps: list[float], **asked: Any) -> tuple[Simulated, State]:
    """A search that does no harm takes steps of these sizes."""
    found = Simulated(lambda *_: 1.0, tuning=Control(layer_share=100.0, **asked))
    state = found.start()
    for size in steps:
        state = best_step(found, replace(state, size=size), size)
    return found, state


@pytest.mark.parametrize(
    ("steps", "ranked"),
    [
        ([0.1, 0.1], [0, 6]),
        ([0.05, 0.05, 0.05], [0, 5]),
        ([0.05, 0.1], [0, 3]),
        ([0.05, 0.025, 0.025, 0.025], [0, 5]),
        ([0.05, 0.075, 0.05], [0, 3, 7]),
    ],
    ids=str,
)
def test_steps_that_together_are_a_whole_one_follow_one_order(
    steps: list[float], ranked: list[int]
) -> None:
    found, _ = walked(steps)
    assert found.seen.ranked == ranked


def test_two_halves_of_an_order_are_its_whole() -> None:
    assert (walked([0.05, 0.05])[1].dead[:60] == walked([0.1])[1].dead[:60]).sum() >= 59


def test_every_step_can_be_ranked_anew() -> None:
    found, _ = walked([0.05, 0.05], reranks="always")
    assert found.seen.ranked == [0, 3]


def test_an_order_that_is_followed_is_one_of_the_state() -> None:
    """A resumed search goes on with the order of a net that it has not seen."""
    found, state = walked([0.05])
    fresh = Simulated(lambda *_: 1.0, tuning=found.task.tuning)
    state = replace(state, size=0.05)
    assert state.since and state.followed == 0.05
    assert best_step(fresh, state, 0.05) == best_step(found, state, 0.05)
    assert fresh.seen.ranked == found.seen.ranked == [0]


def test_a_correction_makes_another_net_with_another_order() -> None:
    found, state = walked([0.05])
    best_step(found, replace(corrected(state), size=0.05), 0.05)
    assert found.seen.ranked == [0, 3]


def test_a_step_that_is_retried_at_half_its_size_keeps_its_order() -> None:
    """What was measured for the large try serves for the small one."""
    found, state = walked([0.05])
    best_step(found, replace(state, size=0.1), 0.1)
    retried = resized(found, replace(state, size=0.1), 0.05)
    assert not retried.since
    best_step(found, retried, 0.05)
    assert found.seen.ranked == [0, 3]
    assert resized(found, replace(state, size=0.05), 0.025).since == state.since
