"""Widths end at multiples, whatever is chosen: read off the weights of the pruned model."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto

from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.limits import Limits
from onnxprune.search.nets import Nets
from onnxprune.search.picker import Picker
from onnxprune.search.rounding import Rounding
from onnxprune.search.target import Target
from onnxprune.search.task import State, Task
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

CHAIN = """
net (float[N,3,4,4] x) => (float[N,5,1,1] y)
<float[16,3,1,1] w1, float[16] b1, float[10,16,1,1] w2, float[24,10,1,1] w3, float[5,24,4,4] w4> {
  a = Conv(x, w1, b1)
  b = Conv(a, w2)
  c = Conv(b, w3)
  y = Conv(c, w4)
}
"""
TIED = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[16,3,1,1] w1, float[16,16,1,1] w2, float[8,16,1,1] w3, float[5,24,1,1] w4> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  s = Add(a, b)
  c = Conv(s, w3)
  d = Concat<axis=1>(s, c)
  y = Conv(d, w4)
}
"""
GROUPED = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[24,3,1,1] w1, float[24,1,3,3] w2, float[32,6,1,1] w3, float[16,32,1,1] w4,
 float[48,8,1,1] w5, float[5,48,1,1] w6> {
  a = Conv(x, w1)
  b = Conv<group=24, pads=[1,1,1,1]>(a, w2)
  c = Conv<group=4>(b, w3)
  d = Conv(c, w4)
  e = Conv<group=2>(d, w5)
  y = Conv(e, w6)
}
"""
SPLIT = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[20,3,1,1] w1, float[10,10,1,1] w2, float[12,20,1,1] w3, float[4,20,1,1] w4,
 float[5,16,1,1] w5> {
  a = Conv(x, w1)
  h, k = Split<axis=1, num_outputs=2>(a)
  m = Conv(h, w2)
  s = Add(m, k)
  d = Concat<axis=1>(h, s)
  e = Conv(d, w3)
  f = Conv(d, w4)
  g = Concat<axis=1>(e, f)
  y = Conv(g, w5)
}
"""
TEXTS = (CHAIN, TIED, GROUPED, SPLIT)


@cache
def opened(text: str) -> tuple[Graph, ChannelGroups]:
    header = '<ir_version: 8, opset_import: ["": 18]>'
    graph = Graph(model(text, header=header))
    return graph, find_groups(graph)


def widths(proto: ModelProto) -> dict[str, list[int]]:
    return {t.name: list(t.dims) for t in proto.graph.initializer if t.name[0] in "wb"}


@st.composite
def picks(draw: st.DrawFn) -> tuple[str, Limits, np.ndarray]:
    text = draw(st.sampled_from(TEXTS))
    limits = Limits(
        min_channels=draw(st.integers(1, 9)),
        max_layer_rate=draw(st.sampled_from([0.4, 0.8, 1.0])),
        round_to=draw(st.sampled_from([2, 3, 4, 8])),
    )
    order = draw(st.permutations(range(len(opened(text)[1]))))
    return text, limits, np.array(order)


@given(picks(), st.integers(1, 60), st.integers(1, 60))
def test_widths_are_multiples_or_untouched(
    pick: tuple[str, Limits, np.ndarray], count: int, more: int
) -> None:
    """After one step and after two; no layer falls under the least, none grows."""
    text, limits, order = pick
    graph, groups = opened(text)
    picker, dead = Picker(groups, limits), np.zeros(len(groups), np.bool_)
    before = widths(graph.model)
    for size in (count, more):
        chosen = picker.pick(order, dead)[:size]
        following = picker.remove(chosen, dead)
        assert (following >= dead).all()
        assert set(np.flatnonzero(following & ~dead)) <= set(chosen)
        dead = following
        after = widths(remove_channels(graph, groups, dead))
        for name, dims in before.items():
            for axis, (was, now) in enumerate(zip(dims, after[name], strict=True)):
                if now == was:
                    continue
                assert min(limits.min_channels, was) <= now < was
                if axis == 0 or was % limits.round_to == 0:
                    assert now % limits.round_to == 0, (name, axis, was, now)


@given(st.permutations(range(50)), st.integers(0, 50), st.sampled_from([2, 3, 4, 8]))
def test_the_last_chosen_stay_and_no_more_than_needed(
    order: list[int], count: int, multiple: int
) -> None:
    """In a chain every layer is on its own: the first of its chosen go, in whole multiples."""
    _, groups = opened(CHAIN)
    nothing = np.zeros(len(groups), np.bool_)
    order = [channel for channel in order if groups.removable[channel]]
    picker = Picker(groups, Limits(round_to=multiple))
    chosen = picker.pick(np.array(order, np.int64), nothing)[:count]
    gone = picker.remove(chosen, nothing)
    for group, width in enumerate((16, 10, 24)):
        own = [c for c in chosen.tolist() if groups.group[c] == group]
        legal = [n for n in range(len(own) + 1) if n == 0 or (width - n) % multiple == 0]
        # An axis that is no multiple to begin with still loses whole multiples.
        assert np.flatnonzero(gone & (groups.group == group)).tolist() == sorted(own[: max(legal)])


def test_a_normalisation_over_groups_does_not_make_blocks_wider() -> None:
    """Of 32 groups of 4 filters each, 4 go at once: 16 filters, and not 16 groups."""
    text = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[128,3,1,1] w1, float[32] s, float[32] t, int64[3] few = {0, 32, -1},
 int64[4] many = {-1, 128, 4, 4}, float[5,128,1,1] w2> {
  a = Conv(x, w1)
  b = Reshape(a, few)
  c = InstanceNormalization(b, s, t)
  d = Reshape(c, many)
  y = Conv(d, w2)
}
"""
    _, groups = opened(text)
    assert groups.removable[groups.group == 0].sum() == 32
    assert Rounding(groups, 16).stops[0].tolist() == [*range(0, 33, 4)]


def test_whole_blocks_go_through_grouped_convolutions() -> None:
    """Where there is enough to choose from, something goes in every kind of graph."""
    for text in TEXTS:
        _, groups = opened(text)
        nothing = np.zeros(len(groups), np.bool_)
        picker = Picker(groups, Limits(round_to=4))
        gone = picker.remove(picker.pick(np.arange(len(groups)), nothing), nothing)
        assert gone.sum() >= 4, text


@pytest.mark.parametrize("round_to", [1, 8])
def test_without_a_choice_nothing_goes(round_to: int) -> None:
    _, groups = opened(TIED)
    nothing = np.zeros(len(groups), np.bool_)
    picker = Picker(groups, Limits(round_to=round_to))
    assert not picker.remove(np.empty(0, np.int64), nothing).any()


def test_a_layer_share_leaves_room_for_a_block() -> None:
    _, groups = opened(CHAIN)
    nothing = np.zeros(len(groups), np.bool_)
    picker = Picker(groups, Limits(round_to=8))
    chosen = picker.pick(np.arange(len(groups)), nothing, layer_share=0.1)
    assert np.bincount(groups.group[picker.remove(chosen, nothing)], minlength=3)[:3].tolist() == [
        8,
        2,
        8,
    ]


def test_a_step_looks_beyond_a_layer_share_that_allows_no_block() -> None:
    """Of `k`, tied to `m`, 2 or 6 may go, of `a` whole blocks of 4: only more than 4 help."""
    graph, groups = opened(SPLIT)
    limits = Limits(round_to=4, include=("a",))
    nets = Nets(Task(graph, groups, rank=lambda *_: np.zeros(0), limits=limits))
    picker = nets.task.picker
    nothing, ranking = np.zeros(len(groups), np.bool_), np.arange(len(groups), dtype=float)
    ranking[10:20] -= 100  # `k` goes first
    share = picker.pick(np.argsort(ranking), nothing, layer_share=0.01)
    assert not picker.remove(share, nothing).any()
    gone = np.flatnonzero(nets.bring_down(State(nothing), ranking, 0.1, layer_share=0.01).dead)
    assert (np.sum(gone < 10), np.sum((gone >= 10) & (gone < 20)), gone.size) == (2, 6, 8)


def test_an_axis_that_was_no_multiple_is_left_alone() -> None:
    """Eight filters beside three channels of an image: four may go, though seven are left."""
    graph = Graph(
        model("""
        net (float[N,3,4,4] x) => (float[N,5,4,4] y) <float[8,3,1,1] w1, float[5,11,1,1] w2> {
          a = Conv(x, w1)
          c = Concat<axis=1>(x, a)
          y = Conv(c, w2)
        }
        """)
    )
    groups = find_groups(graph)
    picker = Picker(groups, Limits(round_to=4))
    gone = picker.remove(np.arange(4), np.zeros(len(groups), np.bool_))
    assert np.flatnonzero(gone).tolist() == [0, 1, 2, 3]


# Blocks


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("text", TEXTS[:3])
def test_a_block_is_the_least_that_makes_widths_right(text: str, multiple: int) -> None:
    """Read off the pruned model: the first of a group's channels go, and its layers are rounded."""
    graph, groups = opened(text)
    rounding = Rounding(groups, multiple)
    before = widths(graph.model)
    for group in range(len(groups.names)):
        own = np.flatnonzero((groups.group == group) & groups.removable)
        if own.size < np.sum(groups.group == group):
            continue
        right = [0]
        for count in range(1, own.size):
            dead = np.zeros(len(groups), np.bool_)
            dead[own[:count]] = True
            after = widths(remove_channels(graph, groups, dead))
            names = [found.weight for found in groups.filters_of(group)]
            sizes = [after[name][0] for name in names if after[name][0] < before[name][0]]
            if all(size % multiple == 0 for size in sizes):
                right.append(count)
        stops = rounding.stops[group].tolist()
        assert set(stops) - {own.size} <= set(right)
        for gone in right[:-1]:
            later = [stop for stop in stops if stop > gone]
            assert rounding.block(group, gone) == (later[0] - gone if later else 0)
            earlier = [stop for stop in stops if stop < gone]
            assert rounding.last_block(group, gone) == (gone - earlier[-1] if earlier else 0)


def test_where_no_block_is_left_filters_go_one_by_one() -> None:
    """Of widths 16, 10 and 24 all are 8 before any is less."""
    _, groups = opened(CHAIN)
    picker, dead = Picker(groups, Limits(), 8), np.zeros(len(groups), np.bool_)
    seen = []
    while (picked := picker.pick(np.arange(len(groups)), dead)).size:
        if picker.rounding(dead).multiple == 1:
            picked = picked[:1]
        dead = picker.remove(picked, dead)
        left = [int((~dead & (groups.group == group)).sum()) for group in range(3)]
        seen.append((picker.rounding(dead).multiple, left))
    assert seen[0] == (1, [8, 8, 8])
    assert [sum(left) for _, left in seen] == list(range(24, 2, -1))
    assert seen[-1] == (1, [1, 1, 1])


def test_a_target_is_not_passed_by_a_block_that_it_does_not_need() -> None:
    """12 filters are to go, and the ranking takes 8 of each layer in turn: two blocks do."""
    graph, groups = opened(CHAIN)
    limits, rate = Limits(round_to=8), 12 / groups.removable_filters
    task = Task(graph, groups, rank=lambda *_: np.zeros(0), limits=limits, target=Target(rate=rate))
    nets, nothing = Nets(task), np.zeros(len(groups), np.bool_)
    ranking = np.arange(len(groups), dtype=float)
    ranking[16:26] -= 100  # the narrow layer, of which 2 may go, comes first
    gone = nets.step(State(nothing), ranking, 1.0).dead
    assert (gone.sum(), gone[16:26].sum()) == (16, 0)


@pytest.mark.parametrize(
    ("limits", "goal", "gone"),
    [
        (Limits(), 0.5, 36),  # 48 in blocks of 16, then 40, 36
        (Limits(), 0.76, 16),  # no block passes the target by much
        (Limits(round_to=16), 0.5, 48),
    ],
)
def test_a_target_is_not_passed_by_most_of_a_block(limits: Limits, goal: float, gone: int) -> None:
    """Of 64 filters half would do, but for what the others share with nothing."""
    text = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[64,3,1,1] w1, float[2,64,1,1] w2, float[5,2,1,1] w3> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  y = Conv(b, w3)
}
"""
    graph, groups = Graph(model(text)), find_groups(Graph(model(text)))
    limits = replace(limits, include=("a",))
    target = Target(macs=goal)
    task = Task(
        graph,
        groups,
        lambda *_: np.zeros(0),
        target=target,
        limits=limits,
        aims=("macs",),
        block=16,
    )
    nets, ranking = Nets(task), np.arange(len(groups), dtype=float)
    state = State(np.zeros(len(groups), np.bool_))
    while not nets.reach.met(state):
        state = nets.bring_down(state, ranking, 0.1)
    assert state.dead.sum() == gone
