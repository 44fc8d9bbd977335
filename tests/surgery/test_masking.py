"""What a mask zeroes, by masking by hand; and vectors that several layers share."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.arrays import BoolArray
from onnxprune.channels import find_groups
from onnxprune.graph import Graph
from onnxprune.surgery import find_costs, mask, remove_channels
from tests.support.models import images, model, relative_error, run

EXACT = 1e-5
"""Relative, in single precision."""

SHARED = """
g (float[N,3,4,4] x) => (float[N,2,4,4] y)
<float[4,3,1,1] w, float[4,4,1,1] u, float[4] b, float[2,4,1,1] v> {
  one = Conv(x, w, b)
  r = Relu(one)
  two = Conv(r, u, b)
  y = Conv(two, v)
}
"""
"""Two layers whose biases are one vector; the first reads it by its name, the other by an alias."""

PLANS = [
    np.isin(np.arange(10), dead)
    for dead in ([0], [0, 3], [5], [4, 5], [0, 4], [0, 3, 4, 7], [0, 5], [1, 2, 7])
]
"""Channels of the first layer, of the second, of both alike, of both otherwise."""


def apart(proto: ModelProto) -> ModelProto:
    """The same with a vector for each layer."""
    found = ModelProto()
    found.CopyFrom(proto)
    (bias,) = (t for t in found.graph.initializer if t.name == "b")
    own = numpy_helper.from_array(numpy_helper.to_array(bias), "own")
    found.graph.initializer.append(own)
    found.graph.node[2].input[2] = "own"
    return found


def by_hand(proto: ModelProto, dead: BoolArray) -> ModelProto:
    """Filters that are gone have weights and biases of zero."""
    found = apart(proto)
    for tensor in found.graph.initializer:
        gone = {"w": dead[:4], "b": dead[:4], "u": dead[4:8], "own": dead[4:8]}.get(tensor.name)
        if gone is not None:
            array = numpy_helper.to_array(tensor).copy()
            array[gone] = 0.0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return found


@pytest.mark.parametrize("dead", PLANS, ids=lambda dead: str(np.flatnonzero(dead)))
def test_a_shared_vector_is_masked_and_cut_for_each_layer_alone(dead: BoolArray) -> None:
    proto = model(SHARED)
    x = images(proto, 2)
    graph = Graph(proto)
    groups = find_groups(graph)
    expected = run(by_hand(proto, dead), x)[0]
    for found in (mask(graph, groups, dead), remove_channels(graph, groups, dead)):
        assert relative_error(run(found, x)[0], expected) < EXACT


@pytest.mark.parametrize("dead", PLANS, ids=lambda dead: str(np.flatnonzero(dead)))
def test_a_shared_vector_is_stored_twice_only_where_it_has_to_be(dead: BoolArray) -> None:
    """And so it is counted."""
    graph = Graph(model(SHARED))
    groups = find_groups(graph)
    small = remove_channels(graph, groups, dead)
    alike = (dead[:4] == dead[4:8]).all()
    assert len(small.graph.initializer) == (4 if alike else 5)
    stored = sum(int(np.prod(tensor.dims)) for tensor in small.graph.initializer)
    assert find_costs(graph, groups).of(dead).params == stored


FILLED = """
g (float[N,3,4,4] x) => (float[N,2,4,4] y) <int64[4] s = {4,3,1,1}, float[2,4,1,1] v> {
  w = ConstantOfShape<value = float[1] {0.5}>(s)
  a = Conv(x, w)
  y = Conv(a, v)
}
"""


@pytest.mark.parametrize("gone", [[0], [3], [1, 2], [0, 1, 2]])
def test_a_weight_that_a_node_fills_is_masked_in_part(gone: list[int]) -> None:
    proto = model(FILLED)
    x = images(proto, 2)
    graph = Graph(proto)
    masked = mask(graph, find_groups(graph), np.isin(np.arange(6), gone))
    masked.graph.output.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, None))
    expected = 0.5 * np.repeat(x.sum(1, keepdims=True), 4, axis=1)
    expected[:, gone] = 0.0
    assert relative_error(run(masked, x)[1], expected) < EXACT


COMPUTED = """
g (float[1,3,5,5] x) => (float[1,1,1,1] y) <float[4,3,1,1] w, float[5] r> {
  c = Conv(x, w)
  s = Add(c, r)
  y = Conv(s, s)
}
"""
"""An image that is convolved with itself; a channel without weights is not 0 in it."""


@pytest.mark.parametrize("gone", [[0], [1, 3]])
def test_weights_that_are_computed_are_masked_where_they_are_read(gone: list[int]) -> None:
    proto = model(COMPUTED)
    x = images(proto, 1)
    graph = Graph(proto)
    dead = np.isin(np.arange(4), gone)
    groups = find_groups(graph)
    assert groups.removable.all()
    with_image = helper.make_tensor_value_info("s", TensorProto.FLOAT, None)
    proto.graph.output.append(with_image)
    image = run(proto, x)[1]
    expected = (image[:, ~dead] ** 2).sum()
    for found in (mask(graph, groups, dead), remove_channels(graph, groups, dead)):
        assert relative_error(run(found, x)[0].ravel(), np.array([expected])) < EXACT
