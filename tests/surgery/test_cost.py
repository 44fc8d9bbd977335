"""Parameters and multiply-adds, counted again by other means."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import find_costs, node_macs
from onnxprune.surgery.removal import remove_channels
from tests.support.models import RESIDUAL, model, run

LAYERS = {
    "plain": ("Conv(x, w)", [6, 4, 3, 3]),
    "strided": ("Conv<strides=[2, 2]>(x, w)", [6, 4, 3, 3]),
    "grouped": ("Conv<group=2>(x, w)", [6, 2, 3, 3]),
    "depthwise": ("Conv<group=4>(x, w)", [4, 1, 3, 3]),
    "depthwise with a multiplier": ("Conv<group=4>(x, w)", [8, 1, 3, 3]),
    "transposed": ("ConvTranspose<strides=[2, 2]>(x, w)", [4, 6, 2, 2]),
    "transposed depthwise": ("ConvTranspose<group=4, strides=[2, 2]>(x, w)", [4, 1, 2, 2]),
}


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)
def test_multiply_adds_are_what_a_layer_of_ones_sums_to(layer: tuple[str, list[int]]) -> None:
    body, shape = layer
    sizes = ",".join(map(str, shape))
    proto = model(f"g (float[N,4,7,7] x) => (float[N,M,A,B] y) <float[{sizes}] w> {{ y = {body} }}")
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(shape, np.float32), "w"))
    graph = Graph(proto)
    macs = find_costs(graph, find_groups(graph)).of().macs
    assert macs == run(proto, np.ones((1, 4, 7, 7), np.float32))[0].sum()
    assert node_macs(graph, graph.nodes[0]) == macs


def parameters(proto: onnx.ModelProto) -> int:
    return sum(int(np.prod(tensor.dims)) for tensor in proto.graph.initializer)


def test_costs_of_a_plan_are_those_of_the_pruned_model() -> None:
    proto = model(RESIDUAL)
    graph = Graph(proto)
    groups = find_groups(graph)
    costs = find_costs(graph, groups)
    dead = np.zeros(len(groups), np.bool_)
    dead[[0, 3, 7, 8]] = True
    small = Graph(remove_channels(graph, groups, dead))
    again = find_costs(small, find_groups(small)).of()
    assert costs.of(dead) == again
    assert again.params == parameters(small.model)
    assert costs.of().params == parameters(proto)


def test_what_a_channel_saves_is_the_difference_that_it_makes() -> None:
    graph = Graph(model(RESIDUAL))
    groups = find_groups(graph)
    costs = find_costs(graph, groups)
    own = np.flatnonzero(groups.group == 1)[0]
    dead = np.zeros(len(groups), np.bool_)
    dead[own] = True
    full, left = costs.of(), costs.of(dead)
    assert costs.params_saved[own] == full.params - left.params
    assert costs.macs_saved[own] == full.macs - left.macs


HALF_IMAGE = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[6,3,1,1] w, float[4,9,3,3] u, float[2,4,1,1] v> {
  a = Conv(x, w)
  c = Concat<axis=1>(x, a)
  b = Conv<pads=[1,1,1,1]>(c, u)
  y = Conv(b, v)
}
"""
"""The second convolution reads three channels that stay and six that may go."""


def test_a_channel_saves_less_of_a_net_in_which_others_are_gone() -> None:
    graph = Graph(model(HALF_IMAGE))
    groups = find_groups(graph)
    costs = find_costs(graph, groups)
    dead = np.zeros(len(groups), np.bool_)
    dead[[0, 1, 7]] = True
    for figure in (costs.params, costs.macs):
        saved = figure.saved(dead)
        assert not saved[dead].any()
        for channel in np.flatnonzero(groups.removable & ~dead):
            without = dead | (np.arange(len(groups)) == channel)
            assert saved[channel] == pytest.approx(figure.of(dead) - figure.of(without))


def test_a_saving_is_that_of_the_positions_that_go_among_all() -> None:
    graph = Graph(model(HALF_IMAGE))
    groups = find_groups(graph)
    costs = find_costs(graph, groups)
    assert (costs.params_saved[:6] == 3 + 4 * 9).all()
    assert (costs.macs_saved[:6] == 64 * (3 + 4 * 9)).all()
    assert (costs.params_saved[6:10] == 9 * 9 + 2).all()


def test_indices_are_no_parameters_and_normalisation_multiplies_nothing() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,3,8,8] y)
    <float[5,3,1,1] w, float[5] s, float[5] o, float[5] m, float[5] var, int64[3] i = {4,0,2}> {
      a = Conv(x, w)
      n = BatchNormalization(a, s, o, m, var)
      y = Gather<axis=1>(n, i)
    }
    """
    graph = Graph(model(text))
    found = find_costs(graph, find_groups(graph)).of()
    assert (found.params, found.macs, found.filters) == (15 + 4 * 5, 64 * 15, 5)


BRANCHES = """
g (float[N,3,4,4] x, bool t) => (float[N,2,4,4] y)
<float[4,3,1,1] k, float[6,4,3,3] w, float[2,6,1,1] v, float[5,4,1,1] u, float[2,5,1,1] z> {
  c = Conv(x, k)
  y = If(t) <
    then_branch = one () => (float[N,2,4,4] p) { a = Conv<pads=[1,1,1,1]>(c, w) p = Conv(a, v) },
    else_branch = two () => (float[N,2,4,4] q) { b = Conv(c, u) q = Conv(b, z) }
  >
}
"""


def test_of_two_branches_the_dearer_one_counts() -> None:
    """Also when it is the other one that is left dearer: one filter of `w` costs 38, of `u` 6."""
    graph = Graph(model(BRANCHES))
    costs = find_costs(graph, find_groups(graph))
    assert costs.of().macs == 16 * (12 + 6 * (36 + 2))
    own = {found.node: found.channels for found in costs.groups.filters}
    dead = np.zeros(len(costs.groups), np.bool_)
    dead[own["a"][1:]] = True
    assert costs.of(dead).macs == 16 * (12 + 36 + 2)
    macs = costs.macs
    for channel in own["c"].tolist() + own["b"].tolist() + own["a"].tolist():
        fewer = dead.copy()
        fewer[channel] = True
        assert macs.saved(dead)[channel] == macs.of(dead) - macs.of(fewer)
