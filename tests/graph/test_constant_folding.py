"""Weights that the model computes from constants: followed by labels, or stored when cut."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.relevance.mirror import Mirror
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, model, relative_error, run

STANDARDISED = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[6,3,1,1] w, float[4,6,3,3] v, float[2,4,1,1] u, float[4] gain> {
  a = Conv(x, w)
  m = ReduceMean<axes=[1,2,3], keepdims=1>(v)
  c = Sub(v, m)
  q = Mul(c, c)
  e = ReduceMean<axes=[1,2,3], keepdims=1>(q)
  s = Sqrt(e)
  d = Div(c, s)
  i = Constant<value_ints=[1,2,3]>()
  g4 = Unsqueeze(gain, i)
  k = Mul(d, g4)
  b = Conv<pads=[1,1,1,1]>(a, k)
  y = Conv(b, u)
}
"""
BY_BATCHNORM = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[6,3,1,1] w, float[4,6,1,1] v, float[2,4,1,1] u,
 int64[3] s = {1,4,-1}, int64[4] t = {4,6,1,1},
 float[4] gain, float[4] zero, float[4] mean, float[4] var> {
  a = Conv(x, w)
  r = Reshape(v, s)
  n, nm, nv = BatchNormalization<training_mode=1>(r, gain, zero, mean, var)
  k = Reshape(n, t)
  b = Conv(a, k)
  y = Conv(b, u)
}
"""
SCALED = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[6,3,1,1] w, float[4,6,1,1] v, float[2,4,1,1] u, float[4,1,1,1] gain> {
  a = Conv(x, w)
  k = Mul(v, gain)
  b = Conv(a, k)
  y = Conv(b, u)
}
"""


def stored(proto: ModelProto) -> int:
    return sum(
        int(np.prod(tensor.dims))
        for tensor in proto.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    )


@pytest.mark.parametrize("text", [STANDARDISED, BY_BATCHNORM], ids=["by hand", "BatchNorm"])
@pytest.mark.parametrize("seed", range(3))
def test_a_weight_that_labels_cannot_reach_is_stored_when_it_is_cut(text: str, seed: int) -> None:
    proto = model(text)
    graph = Graph(proto)
    groups = find_groups(graph)
    assert groups.removable_filters == 10
    dead = groups.removable & (np.random.default_rng(seed).random(len(groups)) < 0.4)
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    for batch in (1, 3):
        x = images(proto, batch)
        assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-5
    assert [node.op_type for node in small.graph.node] == ["Conv"] * 3
    assert find_costs(graph, groups).of(dead).params == stored(small)


@pytest.mark.parametrize("text", [STANDARDISED, BY_BATCHNORM], ids=["by hand", "BatchNorm"])
def test_it_is_left_alone_when_nothing_of_it_is_cut(text: str) -> None:
    proto = model(text)
    graph = Graph(proto)
    groups = find_groups(graph)
    nothing = np.zeros(len(groups), np.bool_)
    assert remove_channels(graph, groups, nothing) == proto


def test_labels_ride_through_elementwise_makers() -> None:
    proto = model(SCALED)
    graph = Graph(proto)
    assert not graph.computed.makers
    groups = find_groups(graph)
    assert groups.removable_filters == 10
    dead = groups.removable & (np.arange(len(groups)) % 2 == 0)
    small = remove_channels(graph, groups, dead)
    assert [node.op_type for node in small.graph.node] == ["Conv", "Mul", "Conv", "Conv"]
    x = images(proto, 2)
    assert relative_error(run(small, x)[0], run(mask(graph, groups, dead), x)[0]) < 1e-5


@pytest.mark.parametrize("text", [STANDARDISED, BY_BATCHNORM], ids=["by hand", "BatchNorm"])
def test_the_mirror_reads_what_was_computed(text: str) -> None:
    proto = model(text)
    x = images(proto, 2)
    found = Mirror(Graph(proto), device="cpu")(x)
    assert relative_error(found.numpy(), run(proto, x)[0]) < 1e-5


READ_ELSEWHERE = STANDARDISED.replace("(float[N,2,6,6] y)", "(float[N,2,6,6] y, float[4,1,1,1] m)")


def test_what_else_is_made_of_its_makers_stays() -> None:
    """The mean of the weight, a step on the way to it, is returned as well."""
    proto = model(READ_ELSEWHERE)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.arange(len(groups)) < 2
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    x = images(proto, 2)
    assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-5
    np.testing.assert_array_equal(run(small, x)[1], run(proto, x)[1])
    kept = [node.op_type for node in small.graph.node]
    assert kept.count("ReduceMean") == 1
    assert find_costs(graph, groups).of(dead).params == stored(small)
