"""A 1x1 convolution written as a product of matrices, channels last, is a convolution."""

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.relevance.criteria import score
from onnxprune.surgery.cost import find_costs
from tests.support.models import images, model, run

CONVOLUTION = """
g (float[N,3,6,6] x) => (float[N,4] y)
<float[5,3,3,3] w, float[7,5,1,1] m, float[6,7,1,1] v, float[6,4] d> {
  a = Conv(x, w)
  b = Relu(a)
  c = Conv(b, m)
  e = Relu(c)
  f = Conv(e, v)
  p = GlobalAveragePool(f)
  q = Flatten(p)
  y = Gemm(q, d)
}
"""
PRODUCT = """
g (float[N,3,6,6] x) => (float[N,4] y)
<float[5,3,3,3] w, float[5,7] m, float[6,7,1,1] v, float[6,4] d> {
  a = Conv(x, w)
  b = Relu(a)
  t = Transpose<perm=[0,2,3,1]>(b)
  c = MatMul(t, m)
  e = Relu(c)
  u = Transpose<perm=[0,3,1,2]>(e)
  f = Conv(u, v)
  p = GlobalAveragePool(f)
  q = Flatten(p)
  y = Gemm(q, d)
}
"""


def twins() -> tuple[ModelProto, ModelProto]:
    """The same function, written twice."""
    one, other = model(CONVOLUTION), model(PRODUCT)
    weights = {t.name: numpy_helper.to_array(t) for t in one.graph.initializer}
    weights["m"] = weights["m"][:, :, 0, 0].T
    for tensor in other.graph.initializer:
        array = np.ascontiguousarray(weights[tensor.name])
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    x = images(one, 2)
    np.testing.assert_allclose(run(one, x)[0], run(other, x)[0], rtol=1e-5)
    return one, other


def test_channels_and_costs_are_those_of_the_convolution() -> None:
    one, other = (Graph(proto) for proto in twins())
    found = [find_groups(graph) for graph in (one, other)]
    assert [f.channels.tolist() for f in found[0].filters] == [
        f.channels.tolist() for f in found[1].filters
    ]
    assert found[0].removable_filters == found[1].removable_filters == 18
    full = [
        find_costs(graph, groups).of() for graph, groups in zip((one, other), found, strict=True)
    ]
    assert full[0] == full[1]


@pytest.mark.parametrize(
    "criterion", ["lrp", "lrp:zplus", "gradient", "activation", "magnitude", "geometric-median"]
)
def test_scores_are_those_of_the_convolution(criterion: str) -> None:
    one, other = (Graph(proto) for proto in twins())
    rng = np.random.default_rng(0)
    data = Data(
        rng.normal(size=(8, 3, 6, 6)).astype(np.float32), np.arange(8) % 4, ("a", "b", "c", "d")
    )
    tables = [
        score(graph, find_groups(graph), data, criterion, device="cpu").values
        for graph in (one, other)
    ]
    np.testing.assert_allclose(tables[0], tables[1], rtol=1e-4, atol=1e-7)
