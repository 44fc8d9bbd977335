"""Parameters and multiply-adds, counted again by other means."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import find_costs, node_macs
from onnxprune.surgery.removal import prune
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
    small = Graph(prune(graph, groups, dead))
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
