"""What channels are worth: figures counted again on the pruned model, and their weights by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.nets import Nets
from onnxprune.search.objective import LEAST, FilterCount, Objective
from onnxprune.search.target import Target
from onnxprune.search.task import Task
from onnxprune.surgery.cost import Figure, find_costs
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

NET = """
net (float[N,3,8,8] x) => (float[N,4] y)
<float[6,3,3,3] w, float[6] b, float[5,6,1,1] v, float[5] c, float[4,5] h> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  e = Conv(p, v, c)
  g = GlobalAveragePool(e)
  f = Flatten(g)
  y = Gemm<transB=1>(f, h)
}
"""
GRAPH = Graph(model(NET))
GROUPS = find_groups(GRAPH)
COSTS = find_costs(GRAPH, GROUPS)
REMOVABLE = GROUPS.removable
MAY_GO = REMOVABLE & ~np.isin(np.arange(len(GROUPS)), [0, 6])
"""All but the first channel of each layer, so that none is emptied."""
nets = st.lists(st.booleans(), min_size=len(GROUPS), max_size=len(GROUPS)).map(
    lambda flags: np.array(flags) & MAY_GO
)


@given(nets, st.integers(0, 10))
@pytest.mark.parametrize("what", ["params", "macs"])
def test_what_a_channel_saves_is_the_difference_it_makes_to_the_net_as_it_is(
    what: str, dead: BoolArray, channel: int
) -> None:
    figure = getattr(COSTS, what)
    saved = figure.saved(dead)
    without = dead.copy()
    without[channel] = True
    assert saved[channel] == pytest.approx(figure.of(dead) - figure.of(without))


@given(nets)
def test_the_bytes_of_weights_are_those_of_the_pruned_model(dead: BoolArray) -> None:
    task = Task(GRAPH, GROUPS, rank=lambda *_: np.zeros(0))
    figure = Nets(task).reach.bytes
    small = remove_channels(GRAPH, GROUPS, dead)
    assert figure.of(dead) == sum(4 * int(np.prod(t.dims)) for t in small.graph.initializer)


def objective(**goals: float | None) -> Objective:
    figures = {"rate": FilterCount(GROUPS), "params": COSTS.params, "macs": COSTS.macs}
    chosen = {name: figures[name] for name in goals}
    return Objective(chosen, {n: g for n, g in goals.items() if g is not None}, REMOVABLE)


@given(nets)
def test_one_figure_keeps_its_unit(dead: BoolArray) -> None:
    one = objective(macs=None)
    free = REMOVABLE & ~dead
    assert one.saved(dead)[free] == pytest.approx(COSTS.macs.saved(dead)[free])
    least = COSTS.macs.of(REMOVABLE)
    assert one.left(dead) == pytest.approx(COSTS.macs.of(dead) - least)


def test_several_figures_are_weighed_by_how_far_they_are_from_their_goals() -> None:
    """Of the removable parameters a half is wanted, of the multiply-adds a tenth."""
    nothing = np.zeros(len(GROUPS), np.bool_)
    spans = {n: getattr(COSTS, n).of(nothing) - getattr(COSTS, n).of(REMOVABLE) for n in BOTH}
    goals = {
        name: getattr(COSTS, name).of(nothing) - share * spans[name]
        for name, share in zip(BOTH, (0.5, 0.1), strict=True)
    }
    saved = objective(**goals).saved(nothing)
    by_hand = sum(
        share * getattr(COSTS, name).saved(nothing) / spans[name]
        for name, share in zip(BOTH, (0.5, 0.1), strict=True)
    )
    assert saved[REMOVABLE] == pytest.approx(by_hand[REMOVABLE])


BOTH = ("params", "macs")


def test_a_figure_that_is_met_counts_no_more() -> None:
    nothing = np.zeros(len(GROUPS), np.bool_)
    both = objective(params=1.0, macs=COSTS.macs.of(nothing))
    alone = objective(params=1.0)
    ratio = (both.saved(nothing) / alone.saved(nothing))[REMOVABLE]
    assert ratio == pytest.approx(ratio[0])
    met = objective(params=1e9, macs=1e9)
    assert (met.saved(nothing) > 0).all()


def test_what_saves_nothing_is_worth_a_little() -> None:
    nothing = np.zeros(len(GROUPS), np.bool_)
    second = Figure(GROUPS, {"h": (4, 5)}, {"h": 1.0})
    saved = Objective({"macs": second}, {}, REMOVABLE).saved(nothing)
    assert saved[6:11] == pytest.approx(4)
    assert saved[:6] == pytest.approx(LEAST * 20 / 11)
    idle = Figure(GROUPS, {}, {}, 3.0)
    assert (Objective({"macs": idle}, {}, REMOVABLE).saved(nothing) == 1).all()


@pytest.mark.parametrize(
    ("target", "goal"),
    [
        (Target(rate=0.5), {"rate": 5.5}),
        (Target(params=0.25), {"params": 0.25 * 223}),
        (Target(macs=1000.0), {"macs": 1000.0}),
        (Target(size=0.5), {"size": 0.5 * 4 * 223}),
        (Target(), {}),
    ],
)
def test_goals_are_in_the_units_of_the_figures(target: Target, goal: dict[str, float]) -> None:
    task = Task(GRAPH, GROUPS, rank=lambda *_: np.zeros(0), target=target)
    reach = Nets(task).reach
    figures = {
        "rate": FilterCount(GROUPS),
        "params": COSTS.params,
        "macs": COSTS.macs,
        "size": reach.bytes,
    }
    assert reach.goals(figures) == pytest.approx(goal)
