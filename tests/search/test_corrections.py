"""When weights are corrected: taken, refused, tried again, and before a floor gives up a step."""

from dataclasses import replace
from typing import Any

import pytest

from onnxprune.search.control import Strategy
from onnxprune.search.controllers import AGAIN, accuracy_aware
from onnxprune.search.task import State
from tests.support.simulated import (
    UNSEEN,
    Simulated,
    accuracy,
    gone,
)


def lift(
    untouched: dict[int, float], corrected: float, held_out: float, **asked: Any
) -> tuple[Simulated, State]:
    """Nets that a correction lifts to a level, and to another on samples it has not seen."""
    nets = Simulated(
        lambda dead, is_corrected: (
            corrected if is_corrected else untouched.get(int(dead.sum()), 1.0)
        ),
        held_out=lambda _: held_out,
        **{"strategy": UNSEEN, **asked},
    )
    return nets, nets.start()


def test_weights_stay_while_the_order_does_no_harm() -> None:
    nets, state = lift({6: 0.96}, 1.0, 1.0)
    state = accuracy_aware(nets, state)
    assert not state.corrected
    assert nets.seen.held_out == []


def test_a_correction_is_taken_when_it_helps_unseen_samples() -> None:
    nets, start = lift({6: 0.94}, 0.99, 0.95)
    state = accuracy_aware(nets, replace(start, size=0.1))
    assert state.corrected
    assert state.accuracy == accuracy(0.99)
    assert nets.seen.held_out == [6]
    assert nets.seen.measured == [(6, False), (6, True)]


def test_steps_are_large_again_after_a_correction() -> None:
    nets, start = lift({3: 0.9}, 0.99, 0.95)
    state = accuracy_aware(nets, replace(start, size=0.05))
    assert (gone(state), state.size, state.corrected) == (3, 0.1, True)


def test_a_correction_that_hurts_unseen_samples_is_refused() -> None:
    """Although those that it was fitted on look better."""
    nets, start = lift({6: 0.94}, 1.0, 0.93)
    state = accuracy_aware(nets, start)
    assert not state.corrected
    assert state.accuracy == accuracy(0.94)
    assert state.limit == pytest.approx(AGAIN * 0.94)


def test_a_refused_correction_is_tried_again_below_the_limit() -> None:
    """The limit is what it would have reached, and at least a fifth below."""
    nets, state = lift({6: 0.94, 11: 0.86, 15: 0.78, 19: 0.74}, 1.0, 0.85)
    limits = []
    for _ in range(4):
        state = accuracy_aware(nets, state)
        limits.append(state.limit)
    assert nets.seen.held_out == [6, 19]
    assert state.corrected
    assert limits[:3] == pytest.approx([AGAIN * 0.94] * 3)


def test_a_refused_correction_would_have_to_reach_more_than_is_left() -> None:
    """What it would have reached is below four fifths of what was there."""
    levels = {6: 0.94, **dict.fromkeys(range(7, 13), 0.72), **dict.fromkeys(range(13, 20), 0.69)}
    nets, state = lift(levels, 1.0, 0.7)
    while not state.corrected:
        before, state = state, accuracy_aware(nets, state)
    assert nets.seen.held_out == [6, gone(state)]
    assert before.accuracy == accuracy(0.72) and gone(before) > 6


@pytest.mark.parametrize(("then", "corrected"), [(0.75, False), (0.9, True)])
def test_where_some_samples_judge_a_correction_reaches_what_it_does_there(
    then: float, corrected: bool
) -> None:
    """In the proportion in which it changes them; those that it was fitted on say nothing."""
    nets, start = lift({6: 0.94}, 1.0, 0.0, judged=(0.8, then), unseen=True)
    state = accuracy_aware(nets, start)
    assert (state.corrected, nets.seen.held_out) == (corrected, [])
    if not corrected:
        assert nets.evaluations == 3
        assert state.limit == pytest.approx(min(0.94 * 0.75 / 0.8, AGAIN * 0.94))


def test_a_correction_may_be_judged_by_what_it_was_fitted_on() -> None:
    for asked in ({"strategy": Strategy(corrects="seen")}, {"held_out": None}):
        nets = Simulated(
            lambda dead, corrected: 0.99 if corrected or not dead.any() else 0.9,
            **{"held_out": lambda _: 0.1, "strategy": UNSEEN, **asked},
        )
        assert accuracy_aware(nets, nets.start()).corrected
        assert nets.seen.held_out == []


@pytest.mark.parametrize(("corrects", "corrected"), [("start", True), ("never", False)])
def test_without_waiting_weights_are_corrected_from_the_start_or_never(
    corrects: str, corrected: bool
) -> None:
    nets, start = lift({6: 0.5, 3: 0.5}, 0.99, 1.0, strategy=Strategy(corrects=corrects))
    assert start.corrected == corrected
    state = accuracy_aware(nets, start)
    assert state.corrected == corrected
    assert nets.seen.held_out == []


@pytest.mark.parametrize(("plain", "kept"), [(0.9, False), (0.2, True)])
def test_a_correction_that_comes_to_hurt_is_left_where_weights_keep_more_as_they_are(
    plain: float, kept: bool
) -> None:
    nets = Simulated(
        lambda dead, is_corrected: (
            1.0 if not dead.any() else (0.3 if dead.sum() > 6 else 0.99) if is_corrected else plain
        ),
        held_out=lambda _: 0.1,
        strategy=UNSEEN,
    )
    state = replace(nets.start(), corrected=True)
    state = accuracy_aware(nets, state)
    assert (gone(state), state.corrected) == (6, True)
    state = accuracy_aware(nets, state)
    assert state.corrected == kept
    assert state.accuracy == accuracy(0.3 if kept else 0.9)
    if not kept:
        assert state.limit == pytest.approx(0.3)  # it is not corrected again at once
