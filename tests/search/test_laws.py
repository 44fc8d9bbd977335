"""The laws of a search, in worlds where accuracy is a formula of what is gone."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.search.control import Control, Strategy
from onnxprune.search.controllers import CONTROLLERS, search
from onnxprune.search.limits import Limits
from onnxprune.search.lines import from_line, to_line
from onnxprune.search.orders import known
from onnxprune.search.target import Floor, Target, share_removed
from onnxprune.search.task import State
from tests.support.simulated import (
    EVENLY,
    FILTERS,
    GROUPS,
    NOTHING,
    Simulated,
    accuracy,
    gone,
)

in_worlds = settings(max_examples=40, deadline=None)


@dataclass(frozen=True)
class World:
    """What filters are worth, how well the ranking knows it, and what a correction does."""

    control: str
    loss: FloatArray
    scores: FloatArray
    by_damage: bool
    corrected: float
    held_out: float
    asked: dict[str, Any]

    def worth(self, dead: BoolArray, corrected: bool) -> tuple[float, float]:
        fall = float(self.loss[dead].sum()) * (self.corrected if corrected else 1.0)
        soft = 0.98 * float(np.exp(-fall))
        return soft, round(soft, 1)

    def nets(self, evaluations: int = 0) -> Simulated:
        return Simulated(
            self.worth,
            scores=self.scores,
            by_damage=self.by_damage,
            held_out=lambda dead: float(np.exp(-self.held_out * self.loss[dead].sum())),
            evaluations=evaluations,
            restore=lambda dead, _: np.where(dead, np.inf, EVENLY),
            **self.asked,
        )

    def search(self, nets: Simulated, state: State | None = None) -> Iterator[State]:
        return search(nets, CONTROLLERS[self.control], state)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    loss = rng.exponential(size=len(GROUPS)) ** draw(st.sampled_from([1, 4]))
    loss *= draw(st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.5])) / loss.mean()
    scores = np.array([loss, EVENLY, rng.random(len(GROUPS))])[draw(st.integers(0, 2))]
    tuning = Control(
        harmful=draw(st.sampled_from([0.0, 0.9, 0.99])),
        layer_share=draw(st.sampled_from([1.0, 4.0, 100.0])),
        step=draw(st.sampled_from([0.05, 0.1, 0.3])),
    )
    target = draw(st.none() | st.floats(0.02, 0.9))
    floor = draw(st.none() | st.floats(0, 0.4))
    many, relevance = draw(st.booleans()), rng.random(len(GROUPS))
    return World(
        draw(st.sampled_from(list(CONTROLLERS))),
        loss,
        scores,
        draw(st.booleans()),
        draw(st.floats(0.2, 1.5)),
        draw(st.floats(0.2, 1.5)),
        {
            "target": Target() if target is None else Target(rate=target),
            "floor": Floor(max_drop=floor),
            "limits": Limits(round_to=draw(st.sampled_from([1, 1, 4]))),
            "tuning": tuning,
            "unseen": many,
            "relevance": (lambda *_: relevance) if many else None,
            "strategy": Strategy(
                ranks_once=draw(st.booleans()),
                corrects=draw(st.sampled_from(["never", "start", "unseen", "seen"])),
            ),
        },
    )


# Laws


@in_worlds
@given(worlds())
def test_a_search_removes_more_with_every_step_until_something_stops_it(world: World) -> None:
    states = list(world.search(world.nets()))
    for before, after in pairwise(states):
        assert (after.dead >= before.dead).all()
        if before.corrected > after.corrected:
            assert known(after.accuracy).soft_harmonic > world.worth(after.dead, True)[0]
        assert bool(after.stopped) == (after is states[-1])
        assert (gone(after) == gone(before)) == bool(after.stopped)
    assert not states[0].dead.any()
    assert states[-1].stopped in {"target", "floor", "limits"}


@in_worlds
@given(worlds())
def test_a_state_holds_the_accuracy_of_its_own_net(world: World) -> None:
    for state in world.search(world.nets()):
        assert state.accuracy == accuracy(*world.worth(state.dead, state.corrected))


@in_worlds
@given(worlds())
def test_a_rate_is_met_and_exceeded_by_less_than_a_block(world: World) -> None:
    *_, state = world.search(world.nets())
    target, limits = world.asked["target"], world.asked["limits"]
    if state.stopped == "target":
        assert target.rate <= share_removed(GROUPS, state.dead) + 1e-9
    if target:
        assert share_removed(GROUPS, state.dead) < target.rate + limits.round_to / FILTERS


@in_worlds
@given(worlds())
def test_a_floor_is_never_broken_and_given_up_only_at_the_finest_step(world: World) -> None:
    nets = world.nets()
    states = list(world.search(nets))
    floor, finest = world.asked["floor"], world.asked["tuning"].finest
    if not floor:
        assert states[-1].stopped != "floor"
        return
    level = world.worth(NOTHING, False)[1] - floor.max_drop
    assert all(state.accuracy.harmonic >= level - 1e-9 for state in states)
    if states[-1].stopped == "floor":
        tried = CONTROLLERS[world.control](nets, states[-1])
        if gone(tried) == gone(states[-1]):
            assert states[-1].barred  # whatever is left breaks it by its finest step
            return
        assert states[-1].size == finest
        assert tried.accuracy.harmonic < level
        if world.asked["strategy"].waits:
            assert world.worth(tried.dead, True)[1] < level


@in_worlds
@given(worlds(), st.integers(0, 40))
def test_a_search_resumed_from_any_state_goes_on_as_if_nothing_had_happened(
    world: World, killed: int
) -> None:
    """All that it knows is the last line of the journal, and how many evaluations there were."""
    nets = world.nets()
    states, counts = [], []
    for state in world.search(nets):
        states.append(state)
        counts.append(nets.evaluations)
    killed %= len(states)
    resumed = world.nets(counts[killed])
    last = from_line(json.loads(json.dumps(to_line(states[killed]))))
    assert last == states[killed]
    assert list(world.search(resumed, last)) == states[killed + 1 :]
    assert resumed.evaluations == nets.evaluations


@in_worlds
@given(worlds())
def test_a_layer_loses_at_most_its_share_in_a_step(world: World) -> None:
    world = replace(world, control="accuracy-aware")
    world.asked["limits"] = Limits()
    tuning = world.asked["tuning"]
    for before, after in pairwise(world.search(world.nets())):
        for layer in range(3):
            own = GROUPS.group == layer
            allowed = max(tuning.layer_share, tuning.even_share * before.corrected)
            share = min(allowed * before.size, 1.0)
            most = max(int(share * (own & ~before.dead).sum()), 1)
            assert (own & after.dead & ~before.dead).sum() <= most


@in_worlds
@given(worlds())
def test_weights_are_corrected_only_where_that_helps_or_holds_a_floor(world: World) -> None:
    world = replace(world, control="accuracy-aware")
    strategy, floor = world.asked["strategy"], world.asked["floor"]
    for before, after in pairwise(world.search(world.nets())):
        if after.corrected and not before.corrected:
            assert strategy.waits
            untouched = world.worth(after.dead, False)
            level = world.worth(NOTHING, False)[1] - (floor.max_drop or 0)
            held = float(np.exp(-world.held_out * world.loss[after.dead].sum()))
            seen = world.worth(after.dead, True)[0]
            harmless = world.asked["tuning"].harmless if world.asked["unseen"] else 1.0
            helps = (held if strategy.corrects == "unseen" else seen) > harmless * untouched[0]
            assert helps or (floor and untouched[1] < level)
