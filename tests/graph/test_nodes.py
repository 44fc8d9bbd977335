"""Vectors that several nodes share do not tie them; the model stores copies only where it must."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, model, relative_error, run

SHARED_BIAS = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[4,3,1,1] w1, float[4,4,1,1] w2, float[2,4,1,1] w3, float[4] b> {
  p = Conv(x, w1, b)
  q = Relu(p)
  r = Conv(q, w2, b)
  s = Relu(r)
  y = Conv(s, w3)
}
"""
SHARED_STATISTICS = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[4,3,1,1] w1, float[4,4,1,1] w2, float[2,4,1,1] w3, float[4] var_one, float[4] zero> {
  p = Conv(x, w1)
  q = BatchNormalization(p, var_one, zero, zero, var_one)
  r = Conv(q, w2)
  s = BatchNormalization(r, var_one, zero, zero, var_one)
  y = Conv(s, w3)
}
"""
SHARED_WEIGHT = """
g (float[N,4,6,6] x) => (float[N,2,6,6] y) <float[4,4,1,1] w, float[4] b, float[2,4,1,1] v> {
  p = Conv(x, w, b)
  q = Conv(p, w, b)
  y = Conv(q, v)
}
"""


def first_layer(groups: ChannelGroups, filters: list[int]) -> BoolArray:
    dead = np.zeros(len(groups), np.bool_)
    dead[groups.filters[0].channels[filters]] = True
    return dead


def stored(proto: ModelProto) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}


@pytest.mark.parametrize("text", [SHARED_BIAS, SHARED_STATISTICS])
@pytest.mark.parametrize("seed", range(3))
def test_layers_with_equal_vectors_are_pruned_apart(text: str, seed: int) -> None:
    proto = model(text)
    graph = Graph(proto)
    groups = find_groups(graph)
    assert groups.removable_filters == 8
    assert len(groups) - 2 == 8
    rng = np.random.default_rng(seed)
    dead = groups.removable & (rng.random(len(groups)) < 0.4)
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    for batch in (1, 3):
        x = images(proto, batch)
        assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-5
    elements = sum(int(np.prod(shape)) for shape in stored(small).values())
    assert find_costs(graph, groups).of(dead).params == elements


def test_a_vector_is_copied_only_for_readers_that_keep_other_channels() -> None:
    graph = Graph(model(SHARED_BIAS))
    groups = find_groups(graph)
    dead = first_layer(groups, [1])
    assert stored(remove_channels(graph, groups, dead)) == {
        "w1": [3, 3, 1, 1],
        "w2": [4, 3, 1, 1],
        "w3": [2, 4, 1, 1],
        "b": [3],
        "b_0": [4],
    }
    both = dead | np.isin(np.arange(len(groups)), groups.filters[1].channels[[1]])
    assert stored(remove_channels(graph, groups, both))["b"] == [3]
    assert "b_0" not in stored(remove_channels(graph, groups, both))
    assert stored(graph.model) == stored(model(SHARED_BIAS))


def test_a_layer_that_is_applied_twice_stays_one_layer() -> None:
    groups = find_groups(Graph(model(SHARED_WEIGHT)))
    one, other = groups.filters[0].channels, groups.filters[1].channels
    assert one.tolist() == other.tolist()
