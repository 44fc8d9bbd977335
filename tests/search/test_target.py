"""Targets that are measured: the size of the file to the byte, the latency by a clock."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.control import Strategy
from onnxprune.search.controllers import one_shot, search
from onnxprune.search.limits import Limits
from onnxprune.search.nets import Nets
from onnxprune.search.reach import MARGIN, Reach, first
from onnxprune.search.target import Target
from onnxprune.search.task import State, Task
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

TEXT = """
net (float[N,3,8,8] x) => (float[N,5,8,8] y)
<float[40,3,3,3] w1, float[40] b1, float[30,40,3,3] w2, float[5,30,1,1] w3> {
  a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  b = Conv<pads=[1,1,1,1]>(a, w2)
  y = Conv(b, w3)
}
"""
NET = Graph(model(TEXT))
GROUPS = find_groups(NET)
COSTS = find_costs(NET, GROUPS)
NOTHING = np.zeros(len(GROUPS), np.bool_)
flags = st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)).map(
    lambda chosen: np.array(chosen) & GROUPS.removable & (np.arange(len(GROUPS)) % 7 > 0)
)


def build(state: State) -> ModelProto:
    return remove_channels(NET, GROUPS, state.dead)


def width(proto: ModelProto) -> float:
    """A latency that anybody can check: the weights that are left."""
    return float(sum(numpy_helper.to_array(t).size for t in proto.graph.initializer))


def nets(target: Target, clock: Callable[[ModelProto], float] = width, round_to: int = 1) -> Nets:
    scores = np.random.default_rng(0).random(len(GROUPS))
    return Nets(
        Task(
            NET,
            GROUPS,
            rank=lambda graph, groups: scores[: len(groups)],
            target=target,
            limits=Limits(round_to=round_to),
            clock=clock,
            strategy=Strategy(stride=1.0),
        )
    )


@given(flags)
def test_the_way_to_a_target_goes_by_the_logarithm_of_what_is_left(dead: np.ndarray) -> None:
    cost, full = COSTS.of(dead).macs, COSTS.of().macs
    way = Target(macs=0.25).way(COSTS, dead)
    assert way == pytest.approx(min(np.log(cost / full) / np.log(0.25), 1))
    assert (way == 1) == Target(macs=0.25).met(COSTS, dead)
    both = Target(macs=0.25, rate=0.5).way(COSTS, dead)
    assert both is not None
    assert both <= way
    assert Target(rate=0.5).way(COSTS, NOTHING) == 0
    assert Target(latency_ms=1).way(COSTS, dead) is None


def last(problem: Nets) -> State:
    *_, state = search(problem, one_shot)
    return state


@given(flags, st.integers(-3, 3))
def test_a_size_is_that_of_the_file(dead: np.ndarray, beyond: int) -> None:
    state = State(dead)
    exact = len(build(state).SerializeToString())
    reach = Reach(NET, COSTS, Target(size=exact + beyond), build)
    assert reach.size(state) == exact
    assert reach.met(state) == (beyond >= 0)
    assert reach.near(dead) == (beyond >= 0), "an estimate is exact where it was measured last"


@given(flags, flags)
def test_an_estimate_is_right_to_a_few_bytes(one: np.ndarray, other: np.ndarray) -> None:
    reach = Reach(NET, COSTS, Target(size=0.5), build)
    reach.size(State(one))
    assert abs(reach._estimate(other) - len(build(State(other)).SerializeToString())) <= 40


def test_an_estimate_knows_how_many_bytes_a_weight_has() -> None:
    halves = Graph(model(TEXT.replace("float[", "float16[")))
    groups = find_groups(halves)

    def pruned(state: State) -> ModelProto:
        return remove_channels(halves, groups, state.dead)

    reach = Reach(halves, find_costs(halves, groups), Target(size=0.5), pruned)
    dead = np.arange(len(groups)) < 20
    reach.size(State(NOTHING))
    assert abs(reach._estimate(dead) - pruned(State(dead)).ByteSize()) <= 40


def test_a_size_that_is_met_is_that_of_the_corrected_model() -> None:
    """Which may have biases that no estimate has seen."""

    def longer(state: State) -> ModelProto:
        found = ModelProto()
        found.CopyFrom(build(state))
        found.doc_string = 500 * "x"
        return found

    exact = build(State(NOTHING)).ByteSize()
    reach = Reach(NET, COSTS, Target(size=exact + 100), longer)
    assert reach.near(NOTHING)
    assert not reach.met(State(NOTHING))


@pytest.mark.parametrize("size", [0.3, 0.7, 20_000.0])
@pytest.mark.parametrize("round_to", [1, 5])
def test_a_size_is_reached_and_not_overshot(size: float, round_to: int) -> None:
    problem = nets(Target(size=size), round_to=round_to)
    state = last(problem)
    goal = size * NET.model.ByteSize() if size <= 1 else size
    assert state.stopped == "target"
    found = problem.build(state).ByteSize()
    assert found <= goal
    filter_bytes = 4 * (40 * 9 + 5 + 3 * 9 + 30 * 9)  # one channel of both layers, generously
    assert found > goal - 2 * round_to * filter_bytes


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_latency_is_found_with_few_measurements(share: float) -> None:
    asked: list[float] = []

    def clock(proto: ModelProto) -> float:
        asked.append(width(proto))
        return asked[-1]

    goal = share * width(NET.model)
    state = last(nets(Target(latency_ms=goal), clock))
    assert state.stopped == "target"
    assert asked[-1] <= goal, "confirmed on the model that comes out"
    assert asked[-1] >= MARGIN * goal - 2 * 400, "and not overshot by more than two filters"
    assert len(asked) <= 12


def test_a_latency_that_is_not_confirmed_is_searched_on() -> None:
    """A clock that was too kind at first: what is measured again decides."""
    goal, kind = 0.6 * width(NET.model), [0.9] * 8

    def clock(proto: ModelProto) -> float:
        return width(proto) * (kind.pop() if kind else 1.0)

    problem = nets(Target(latency_ms=goal), clock)
    state = last(problem)
    assert state.stopped == "target"
    assert width(problem.build(state)) <= goal
    assert problem.reach.last_latency(state) == width(problem.build(state))


def test_a_spike_is_measured_twice_and_a_clear_miss_once() -> None:
    goal = 0.6 * width(NET.model)
    ticks = iter([1.1 * goal, 0.9 * goal, 2 * goal])
    reach = Reach(NET, COSTS, Target(latency_ms=goal), build, lambda _: next(ticks))
    one, other = np.eye(len(GROUPS), dtype=np.bool_)[:2]
    assert reach.near(one)
    assert not reach.near(other)
    assert not reach.met(State(other)), "no third look"
    assert next(ticks, None) is None


def test_what_is_met_already_removes_nothing() -> None:
    for target in (Target(size=1.0), Target(latency_ms=width(NET.model))):
        state = last(nets(target))
        assert state.stopped == "target"
        assert not state.dead.any()


def test_a_latency_needs_a_clock() -> None:
    with pytest.raises(ValueError, match="needs a clock"):
        Reach(NET, COSTS, Target(latency_ms=1), build).met(State(NOTHING))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 9))
def test_bisection_finds_the_first(where: int, last_one: int, apart: int) -> None:
    where = min(where, last_one)
    found = first(lambda n: n >= where, last_one, apart)
    assert where <= found < where + apart
