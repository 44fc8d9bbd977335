"""dpx: what a fall of the harmonic mean does to rate and order, on nets that are formulas.

Of 60 filters a whole step takes 3, half a step and all below it 1. H is the harmonic mean.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxprune.arrays import BoolArray
from onnxprune.search.control import Control
from onnxprune.search.dpx import dpx
from onnxprune.search.task import State
from tests.support.simulated import GROUPS, NOTHING, Simulated, accuracy, end, gone

LAYERS = GROUPS.group[:60]
IN_TURN = np.where(np.arange(len(GROUPS)) < 60, np.arange(len(GROUPS)), np.inf)
"""Scores that empty one layer after the other."""


def walk(
    hard: Callable[[BoolArray], float], start: State | None = None, steps: int = 1, **asked: Any
) -> tuple[Simulated, State]:
    """So many steps, by the harmonic mean of what is gone; the soft one never changes."""
    nets = Simulated(lambda dead, _: (1.0, hard(dead)), by_damage=False, **asked)
    state = start or nets.start()
    for _ in range(steps):
        state = dpx(nets, state)
    return nets, state


def of_layer(number: int, dead: BoolArray) -> int:
    return int(dead[:60][number == LAYERS].sum())


def test_a_step_that_holds_takes_five_hundredths_and_ranks_anew() -> None:
    nets, state = walk(lambda _: 1.0, steps=3)
    assert gone(state) == 9
    assert nets.seen.ranked == [0, 3, 6]
    assert (state.size, state.barred) == (0.1, ())


@pytest.mark.parametrize(("kept", "tries"), [(0.91, [3]), (0.89, [3, 1])])
def test_a_step_that_keeps_less_than_nine_tenths_is_taken_back(
    kept: float, tries: list[int]
) -> None:
    nets, state = walk(lambda dead: kept if dead.sum() > 2 else 1.0)
    assert [count for count, _ in nets.seen.measured] == tries
    assert gone(state) == tries[-1]


def test_the_rate_doubles_again_where_a_step_holds() -> None:
    start = State(NOTHING, 0.025, accuracy(1.0))
    _, state = walk(lambda _: 1.0, start, steps=1)
    assert state.size == 0.05
    _, state = walk(lambda _: 1.0, start, steps=4)
    assert state.size == 0.1


def test_where_no_rate_holds_the_layers_go_to_the_back() -> None:
    nets, state = walk(lambda dead: 0.5 if of_layer(0, dead) else 1.0, scores=IN_TURN)
    assert (of_layer(0, state.dead), of_layer(1, state.dead)) == (0, 1)
    assert state.barred == (int(LAYERS[0]),)
    later = dpx(nets, state)
    assert of_layer(0, later.dead) == 0, "it stays at the back"


def test_what_is_at_the_back_goes_when_nothing_else_is_left() -> None:
    nets, state = walk(lambda dead: 0.5 if of_layer(0, dead) else 1.0, scores=IN_TURN, steps=60)
    assert [of_layer(layer, state.dead) for layer in range(3)] == [19, 19, 19]
    last = end(nets, "dpx")
    assert (last.stopped, last.barred) == ("limits", ())


def test_where_nothing_holds_the_best_try_is_taken_and_the_order_begins_anew() -> None:
    nets, state = walk(lambda dead: 0.5 / (1 + dead.sum()) if dead.any() else 1.0)
    assert (gone(state), state.barred) == (1, ())
    tries = len(nets.seen.measured)
    assert tries == 4 + Control.patience, "four rates, then other layers at the smallest"


def test_what_a_floor_looks_at_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one image a class the plain harmonic mean is 0, and no step would be taken back."""
    nets = Simulated(lambda dead, _: (0.5 if dead.sum() > 2 else 1.0, 0.0), by_damage=False)
    monkeypatch.setattr(nets.floors, "judged", lambda found: found.soft_harmonic)
    assert gone(dpx(nets, nets.start())) == 1
    assert [count for count, _ in nets.seen.measured] == [3, 1]


def test_a_class_that_is_lost_cannot_be_held() -> None:
    nets, state = walk(lambda dead: 0.0, State(NOTHING, 0.1, accuracy(1.0, 0.0)))
    assert gone(state) == 3
    assert len(nets.seen.measured) == 1
