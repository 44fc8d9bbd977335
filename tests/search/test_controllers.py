"""The decisions of the controllers, one by one, on nets that are formulas.

H is the soft harmonic mean. Of 60 filters a step of the accuracy-aware control takes 6, half a step
3.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.arrays import BoolArray
from onnxprune.errors import UnknownName
from onnxprune.search.control import Control, Strategy
from onnxprune.search.controllers import CONTROLLERS, accuracy_aware, find_controller, search
from onnxprune.search.settings import Settings
from onnxprune.search.target import Floor, Target
from onnxprune.search.task import State
from tests.support.simulated import (
    EVENLY,
    GROUPS,
    NOTHING,
    UNSEEN,
    Simulated,
    accuracy,
    end,
    gone,
    steep,
)


def walk(
    curve: Callable[[int], float] | dict[int, float],
    steps: int = 1,
    start: State | None = None,
    **asked: Any,
) -> tuple[Simulated, State]:
    """So many steps of the accuracy-aware control; H by how many filters are gone, 1 if unsaid."""
    find = curve if callable(curve) else lambda count: curve.get(count, 1.0)
    nets = Simulated(lambda dead, _: find(int(dead.sum())), **asked)
    state = start or nets.start()
    for _ in range(steps):
        state = accuracy_aware(nets, state)
    return nets, state


def test_a_harmless_step_takes_a_tenth_of_what_is_left() -> None:
    nets, state = walk({}, steps=4)
    assert gone(state) == 6 + 5 + 4 + 4  # of 60, 54, 49 and 45
    assert state.size == 0.1
    assert len(nets.seen.measured) == 4


def test_a_step_that_costs_much_is_tried_at_half_and_the_cheaper_for_each_filter_is_kept() -> None:
    nets, state = walk({6: 0.5, 3: 0.99})
    assert nets.seen.measured == [(6, False), (3, False)]
    assert (gone(state), state.size) == (3, 0.05)
    nets, state = walk({6: 0.85, 3: 0.80})
    assert nets.seen.measured == [(6, False), (3, False)]
    assert (gone(state), state.size) == (6, 0.05)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 0.89), st.floats(0.05, 1.0))
def test_the_cheaper_of_two_tries_is_kept(first: float, second: float) -> None:
    _, state = walk({6: first, 3: second})
    cheaper = np.log(second) / 3 > np.log(first) / 6
    assert gone(state) == (3 if cheaper else 6)


@pytest.mark.parametrize(("kept", "tries"), [(0.91, 1), (0.89, 2)])
def test_a_step_is_tried_again_below_nine_tenths(kept: float, tries: int) -> None:
    nets, _ = walk({6: kept})
    assert len(nets.seen.measured) == tries


def test_the_smallest_step_is_not_tried_again() -> None:
    start = State(NOTHING, 0.05, accuracy(1.0))
    nets, state = walk({3: 0.2}, start=start)
    assert len(nets.seen.measured) == 1
    assert (gone(state), state.size) == (3, 0.05)
    _, state = walk({4: 0.2}, start=replace(start, size=0.08))
    assert (gone(state), state.size) == (3, 0.05), "half of it would be less than the smallest"


@pytest.mark.parametrize(
    ("kept", "size", "after"), [(0.97, 0.05, 0.075), (0.97, 0.09, 0.1), (0.95, 0.05, 0.05)]
)
def test_steps_grow_again_by_half_where_they_do_no_harm(
    kept: float, size: float, after: float
) -> None:
    start = State(NOTHING, size, accuracy(1.0))
    _, state = walk(lambda count: kept if count else 1.0, start=start)
    assert state.size == pytest.approx(after)


def test_a_net_that_guesses_has_nothing_to_step_back_for() -> None:
    nets, state = walk({6: 0.1}, start=State(NOTHING, 0.1, accuracy(0.49)))
    assert (gone(state), len(nets.seen.measured)) == (6, 1)
    nets, _ = walk({6: 0.1}, start=State(NOTHING, 0.1, accuracy(0.51)))
    assert len(nets.seen.measured) == 2


def test_a_corrected_net_is_not_stepped_back() -> None:
    nets, state = walk({6: 0.1}, start=State(NOTHING, 0.1, accuracy(1.0), corrected=True))
    assert (gone(state), state.size) == (6, 0.1)
    assert nets.seen.measured == [(6, True)]


def test_a_dead_net_can_still_be_stepped_through() -> None:
    """H of 0 has no logarithm."""
    _, state = walk(lambda count: 0.0 if count else 1.0, steps=3)
    assert gone(state) == 6 + 2 + 2  # 5 % of 54 and of 52


def test_the_cheap_layer_is_capped_at_four_times_the_average_share() -> None:
    last_first = np.where(np.isfinite(EVENLY), -np.arange(len(GROUPS)), np.inf)
    _, state = walk({}, scores=last_first)
    assert np.bincount(GROUPS.group[state.dead], minlength=3).tolist() == [0, 0, 6]
    start = replace(state, size=0.05)
    _, state = walk({}, scores=last_first, start=start)  # 2 of 54, a fifth of the 14 that are left
    assert np.bincount(GROUPS.group[state.dead], minlength=3).tolist() == [0, 0, 8]
    _, state = walk({}, scores=last_first, tuning=Control(layer_share=1.0))
    assert np.bincount(GROUPS.group[state.dead], minlength=3).tolist() == [2, 2, 2]


# What each looks at

WALKS = {
    "one-shot": ([0], [3, 6, 9, 12]),
    "iterative": ([0, 3, 6, 9], [3, 6, 9, 12]),
    "accuracy-aware": ([0, 6, 11], [6, 11, 12]),
    "dpx": ([0, 3, 6, 9], [3, 6, 9, 12]),
}
"""Which nets are ranked and measured on the way to a fifth, with steps of a twentieth of all and a
tenth of what is left: by how many filters are gone."""


def test_every_controller_has_a_walk() -> None:
    assert WALKS.keys() == CONTROLLERS.keys()


@pytest.mark.parametrize("control", WALKS)
def test_a_controller_ranks_and_measures(control: str) -> None:
    ranked, measured = WALKS[control]
    nets = Simulated(steep(60), target=Target(rate=0.2))
    end(nets, control)
    assert nets.seen.ranked == ranked
    assert nets.seen.measured == [(count, False) for count in measured]


def test_one_step_is_enough_where_nothing_is_measured() -> None:
    nets = Simulated(None, target=Target(rate=0.7), strategy=Strategy(1.0, measures=False))
    states = list(search(nets, CONTROLLERS["one-shot"]))
    assert [gone(state) for state in states] == [0, 42, 42]
    assert states[-1].accuracy is None
    assert nets.evaluations == 0


@pytest.mark.parametrize("by_damage", [True, False])
@pytest.mark.parametrize(("once", "ranked"), [(True, [0]), (False, [0, 6, 11])])
def test_a_net_may_be_ranked_once(by_damage: bool, once: bool, ranked: list[int]) -> None:
    nets, _ = walk({}, 3, by_damage=by_damage, strategy=Strategy(ranks_once=once))
    assert nets.seen.ranked == ranked


def test_both_tries_of_a_step_share_one_ranking() -> None:
    nets, _ = walk({6: 0.5})
    assert nets.seen.ranked == [0]
    assert len(nets.seen.measured) == 2


@pytest.mark.parametrize(("once", "most"), [(True, 60), (False, 6)])
def test_the_order_is_that_of_a_whole_step(once: bool, most: int) -> None:
    """Whatever is taken of it; or of all steps, with as much of a layer as may go."""
    halved = State(NOTHING, 0.05, accuracy(1.0))
    nets, _ = walk({}, start=halved, strategy=Strategy(ranks_once=once))
    assert nets.seen.asked == [(most, 10.0)]
    last = np.where(np.isfinite(EVENLY), -np.arange(len(GROUPS)), np.inf)
    order = np.argsort(Simulated(scores=last).order(State(NOTHING), 0.2, 0.4, 1.0)).tolist()
    assert order[:12] == [*range(59, 51, -1), *range(39, 35, -1)]


def test_own_squares_count_as_often_as_is_asked() -> None:
    nets, _ = walk({}, tuning=Control(own_squares=3.0))
    assert nets.seen.asked == [(6, 3.0)]


def test_evaluations_are_counted() -> None:
    nets = Simulated(
        lambda dead, corrected: 1.0 if corrected or not dead.any() else 0.94,
        held_out=lambda _: 0.95,
        strategy=UNSEEN,
    )
    end(nets)
    assert nets.evaluations == 1 + len(nets.seen.measured) + len(nets.seen.held_out)
    assert nets.seen.held_out


@pytest.mark.parametrize(
    "change",
    [
        {"stride": 0.1, "control": "iterative"},
        {"step": 0.2},
        {"smallest": 0.02},
        {"finest": 0.03},
        {"harmless": 0.999},
        {"harmful": 0.0},
        {"lost": 0.8},
        {"layer_share": 1.0},
    ],
    ids=str,
)
def test_every_constant_changes_something(change: dict[str, Any]) -> None:
    """A curve with a brink at 9 filters, a ranking that likes one layer, and a floor."""

    def worth(dead: BoolArray, corrected: bool) -> tuple[float, float]:
        count = int(dead.sum())
        soft = 0.99**count * (0.8 if count > 9 else 1.0)
        return (soft + 1.0) / 2 if corrected else soft, 1.0 if count <= 40 else 0.5

    def states(control: str = "accuracy-aware", **changed: float) -> list[State]:
        tuning = replace(Control(), **changed)
        nets = Simulated(
            worth,
            scores=np.arange(len(GROUPS), dtype=float),
            held_out=lambda dead: 0.0 if dead.sum() < 15 else 1.0,
            floor=Floor(max_drop=0.1),
            tuning=tuning,
            strategy=Strategy(stride=tuning.stride, corrects="unseen"),
        )
        return list(search(nets, CONTROLLERS[control]))

    control = change.get("control", "accuracy-aware")
    assert states(**change) != states(control)


# The registry


def test_a_controller_is_found_by_its_name() -> None:
    assert find_controller("accuracy-aware") is accuracy_aware
    with pytest.raises(UnknownName, match=r"control 'slow': unknown.* one-shot, iterative"):
        find_controller("slow")


def test_a_function_of_ones_own_is_a_controller() -> None:
    assert find_controller(accuracy_aware) is accuracy_aware
    named = f"{accuracy_aware.__module__}:accuracy_aware"
    assert inspect.unwrap(find_controller(named)) is accuracy_aware
    assert Settings.of(control=accuracy_aware).control == named
