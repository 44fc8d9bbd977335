"""What ends a search: floors, targets and limits, approached and not passed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from onnxprune.arrays import BoolArray
from onnxprune.errors import UnreachableTarget
from onnxprune.search.control import Control, Strategy
from onnxprune.search.controllers import CONTROLLERS, accuracy_aware, search
from onnxprune.search.limits import Limits
from onnxprune.search.lines import from_line, to_line
from onnxprune.search.target import Floor, Target
from tests.support.simulated import (
    FILTERS,
    LAYERS,
    UNSEEN,
    WIDTH,
    Simulated,
    end,
    gone,
    steep,
)


@pytest.mark.parametrize("control", CONTROLLERS)
@pytest.mark.parametrize("limit", [0, 7, 23])
def test_a_floor_is_approached_by_smaller_and_smaller_steps(control: str, limit: int) -> None:
    nets = Simulated(steep(limit), floor=Floor(max_drop=0.1))
    state = end(nets, control)
    assert state.stopped == "floor"
    assert state.size == 0.0125
    assert limit - 1 <= gone(state) <= limit
    tried = [count for count, _ in nets.seen.measured]
    assert min(count for count in tried if count > limit) == gone(state) + 1


def test_a_floor_halves_the_step_down_to_an_eighth() -> None:
    nets = Simulated(steep(0), floor=Floor(max_drop=0.1), strategy=Strategy(stride=0.4))
    assert end(nets, "iterative").size == 0.0125
    assert nets.seen.measured == [(24, False), (12, False), (6, False), (3, False)]


def test_after_a_step_that_broke_the_floor_no_order_rests() -> None:
    nets = Simulated(lambda dead, _: 0.5 ** float(dead.sum()), floor=Floor(max_drop=0.6))
    state = replace(nets.start(), corrected=True, better=1, won=2, rests=2)
    *_, last = search(nets, accuracy_aware, state)
    assert (gone(last), last.rests) == (1, 0)


def brittle(layer: int) -> Callable[[BoolArray, bool], Any]:
    """A net that needs all of one layer and nothing of the others."""

    def worth(dead: BoolArray, _: bool) -> tuple[float, float]:
        return 1.0, 0.0 if dead[layer * WIDTH : (layer + 1) * WIDTH].any() else 1.0

    return worth


@pytest.mark.parametrize("control", CONTROLLERS)
@pytest.mark.parametrize("layer", range(LAYERS))
def test_where_a_layer_breaks_the_floor_the_others_still_go(control: str, layer: int) -> None:
    state = end(Simulated(brittle(layer), floor=Floor(max_drop=0.1)), control)
    assert (state.barred, state.stopped) == ((layer,), "floor")
    assert gone(state) == (LAYERS - 1) * (WIDTH - 1)


def test_after_so_many_layers_in_vain_a_floor_holds() -> None:
    asked = {"floor": Floor(max_drop=0.1), "tuning": Control(patience=1)}
    nets = Simulated(steep(0), **asked)
    state = end(nets)
    assert (gone(state), state.stopped, len(state.barred)) == (0, "floor", 1)
    assert nets.seen.measured[-2:] == [(1, False), (1, False)]


def test_where_no_block_holds_the_floor_narrower_ones_are_tried() -> None:
    """Layers of 20 lose 4, then 8 at once; in blocks of 2, 2 of 3 that may go, then the last."""
    asked: dict[str, Any] = {"floor": Floor(max_drop=0.1), "block": 8}
    states = list(search(Simulated(steep(3), **asked), accuracy_aware))
    assert [(gone(state), state.halved) for state in states] == [(0, 0), (2, 2), (3, 3), (3, 3)]
    assert states[-1].stopped == "floor"
    for state in states[:-1]:
        resumed = search(Simulated(steep(3), **asked), accuracy_aware, from_line(to_line(state)))
        assert [*resumed][-1] == states[-1]


def test_blocks_stay_as_wide_as_asked_for_or_where_the_floor_lets_enough_go() -> None:
    asked: dict[str, Any] = {"floor": Floor(max_drop=0.1)}
    state = end(Simulated(steep(3), limits=Limits(round_to=8), **asked))
    assert (gone(state), state.halved, state.stopped) == (0, 0, "floor")
    state = end(Simulated(steep(5), block=8, **asked))
    assert (gone(state), state.halved) == (4, 0)
    state = end(Simulated(steep(5), block=8, tuning=Control(little=0.1), **asked))
    assert (gone(state), state.halved) == (5, 3)


def test_where_every_layer_is_left_out_narrower_blocks_are_tried() -> None:
    state = end(Simulated(steep(1), floor=Floor(max_drop=0.1), block=8))
    assert (gone(state), state.halved, state.barred) == (1, 3, (0, 1, 2))


def test_a_correction_is_tried_before_a_floor_gives_up_a_step() -> None:
    nets = Simulated(
        steep(7, 20), floor=Floor(max_drop=0.1), strategy=UNSEEN, held_out=lambda _: 0.0
    )
    states = list(search(nets, accuracy_aware))
    assert [(gone(state), state.corrected) for state in states[:4]] == [
        (0, False),
        (6, False),
        (11, True),
        (15, True),
    ]
    assert nets.seen.measured[:3] == [(6, False), (11, False), (11, True)]
    assert gone(states[-1]) in (19, 20)


def test_a_correction_that_breaks_the_floor_as_well_is_not_kept_for_the_next_try() -> None:
    nets = Simulated(steep(4, 2), floor=Floor(max_drop=0.1), strategy=UNSEEN)
    states = list(search(nets, accuracy_aware))
    assert nets.seen.measured[:3] == [(6, False), (6, True), (3, False)]
    assert not any(state.corrected for state in states)


def test_a_net_that_the_step_has_corrected_is_measured_once() -> None:
    def worth(dead: BoolArray, corrected: bool) -> tuple[float, float]:
        return (0.93, 0.5) if dead.any() else (1.0, 1.0)

    nets = Simulated(worth, floor=Floor(max_drop=0.1), strategy=UNSEEN, held_out=lambda _: 1.0)
    end(nets)
    assert nets.seen.measured[:3] == [(6, False), (6, True), (3, False)]


def test_an_absolute_floor_and_a_drop_hold_the_harmonic_mean() -> None:
    def worth(dead: BoolArray, _: bool) -> tuple[float, float]:
        return 1.0, 0.9 - 0.01 * dead.sum()

    for floor, most in ((Floor(min_accuracy=0.8), 10), (Floor(max_drop=0.2), 20)):
        assert gone(end(Simulated(worth, floor=floor))) == most
    with pytest.raises(UnreachableTarget, match=r"0\.9000 .* min-accuracy 0\.91; give"):
        end(Simulated(worth, floor=Floor(min_accuracy=0.91)))
    assert gone(end(Simulated(worth, floor=Floor(min_accuracy=0.9)))) == 0


@pytest.mark.parametrize("control", CONTROLLERS)
@pytest.mark.parametrize("wanted", [1, 6, 7, 31])
def test_a_rate_is_reached_to_the_filter(control: str, wanted: int) -> None:
    state = end(Simulated(steep(60), target=Target(rate=wanted / FILTERS)), control)
    assert (gone(state), state.stopped) == (wanted, "target")


@pytest.mark.parametrize("control", CONTROLLERS)
def test_limits_end_a_search(control: str) -> None:
    state = end(Simulated(steep(60), limits=Limits(min_channels=2)), control)
    assert (gone(state), state.stopped) == (3 * (WIDTH - 2), "limits")
