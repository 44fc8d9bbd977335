"""Filters are measured by real numbers, whatever their weights are written as."""

import numpy as np
import numpy.typing as npt
import pytest
from onnx import numpy_helper

from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.relevance import Mirror, score
from onnxprune.relevance.weights import weight_of
from tests.support.models import images, model

HEAD = "g (float[1,3,5,5] x) => (float[1,2,5,5] y)"
FLOAT = HEAD + "<float[4,3,1,1] w, float[2,4,1,1] v> { a = Conv(x, w) y = Conv(a, v) }"
SCALES = np.array([0.1, 0.5, 0.02, 0.3], np.float32)
ZEROS = np.array([120, 3, 250, 128], np.uint8)
CODES = np.random.default_rng(0).integers(0, 256, (4, 3, 1, 1)).astype(np.uint8)

BEFORE = "xs = Constant<value = float {0.1}> () xz = Constant<value = uint8 {128}> () "
BEFORE += "q = QuantizeLinear(x, xs, xz) "
BODIES = {
    "dequantised": "r = DequantizeLinear<axis=0>(w, s, z) a = Conv(x, r)",
    "QLinearConv": BEFORE + "c = QLinearConv(q, xs, xz, w, s, z, xs, xz) "
    "a = DequantizeLinear(c, xs, xz)",
    "ConvInteger": BEFORE + "i = ConvInteger(q, w, xz, z) f = Cast<to=1>(i) k = Mul(xs, t) "
    "a = Mul(f, k)",
    "ConvInteger, scale by scale": BEFORE + "i = ConvInteger(q, w, xz, z) f = Cast<to=1>(i) "
    "a = Mul(t, f)",
    "ConvInteger, divided": BEFORE + "i = ConvInteger(q, w, xz, z) f = Cast<to=1>(i) "
    "o = Reciprocal(t) a = Div(f, o)",
    "of what the image scales": "d, e, p = DynamicQuantizeLinear(x) i = ConvInteger(d, w, p, z) "
    "f = Cast<to=1>(i) k = Mul(e, t) a = Mul(f, k)",
}


def network(body: str) -> Graph:
    proto = model(HEAD + "<float[2,4,1,1] v> {" + body + " y = Conv(a, v) }")
    return Graph(proto)


def given(body: str, each: bool) -> Graph:
    scale, zero = (SCALES, ZEROS) if each else (np.float32(0.3), np.uint8(100))
    declared = "<float[2,4,1,1] v, float{0} s, uint8{0} z, uint8[4,3,1,1] w, float{1} t>"
    sizes = ("[4]", "[1,4,1,1]") if each else ("", "")
    text = HEAD + declared.format(*sizes) + " {" + body + " y = Conv(a, v) }"
    proto = model(text)
    values = {
        "s": scale,
        "z": zero,
        "w": CODES,
        "t": np.reshape(scale, (1, 4, 1, 1) if each else ()),
    }
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values[tensor.name]), tensor.name))
    return Graph(proto)


@pytest.mark.parametrize("each", [False, True], ids=["one scale", "a scale for each filter"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_quantised_weights_count_as_the_numbers_that_they_stand_for(body: str, each: bool) -> None:
    graph = given(body, each)
    groups = find_groups(graph)
    scale, zero = (SCALES[:, None], ZEROS[:, None]) if each else (0.3, 100)
    expected = (CODES.reshape(4, 3).astype(np.float64) - zero) * scale
    found = weight_of(graph, groups, groups.filters[0])
    assert found is not None
    factor = found / expected  # the scale of the image is common to all filters
    np.testing.assert_allclose(factor, factor.ravel()[0], rtol=1e-6)
    norms = score(graph, groups, criterion="magnitude").values[0][:4]
    exact = np.linalg.norm(expected, axis=1)
    np.testing.assert_allclose(norms, exact / np.linalg.norm(exact), rtol=1e-6)


def test_a_product_of_integers_over_positions_is_a_convolution() -> None:
    text = """
    g (float[1,6,3] x) => (float[1,6,2] y) <uint8[3,4] w, uint8[4] z, float[4] t, float[4,2] v> {
      d, e, p = DynamicQuantizeLinear(x)
      i = MatMulInteger(d, w, p, z)
      f = Cast<to=1>(i)
      k = Mul(e, t)
      a = Mul(f, k)
      y = MatMul(a, v)
    }
    """
    proto = model(text)
    codes = CODES.reshape(3, 4)
    values: dict[str, npt.NDArray[np.generic]] = {"w": codes, "z": ZEROS, "t": SCALES}
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    graph = Graph(proto)
    groups = find_groups(graph)
    assert int(groups.removable.sum()) == 4
    expected = ((codes.astype(np.float64) - ZEROS) * SCALES).T
    np.testing.assert_allclose(weight_of(graph, groups, groups.filters[0]), expected, rtol=1e-6)


# Weights that are computed from the image

GATED = """
g (float[1,3,3,3] x) => (float[1,4,1,1] y) <float[4,1,3,3] w, float[4,4,1,1] v> {
  k = Mul(w, x)
  a = Conv(x, k)
  r = Relu(a)
  y = Conv(r, v)
}
"""
TRACKER = """
g (float[1,3,3,3] z, float[1,3,6,6] x) => (float[1,2,4,4] y)
<float[4,3,1,1] w, float[2,4,1,1] v> {
  a = Conv(z, w)
  s = Constant<value_ints=[4,1,3,3]>()
  k = Reshape(a, s)
  b = Conv(x, w)
  c = Conv<group=4>(b, k)
  y = Conv(c, v)
}
"""
DATA_FREE = ["magnitude", "geometric-median", "random"]


def test_a_weight_that_the_image_makes_is_measured_by_the_constants_in_it() -> None:
    graph = Graph(model(GATED))
    groups = find_groups(graph)
    found = score(graph, groups, criterion="magnitude").values[0][:4]
    norms = np.linalg.norm(graph.constant("w").reshape(4, -1).astype(np.float64), axis=1)
    np.testing.assert_allclose(found, norms / np.linalg.norm(norms), rtol=1e-6)


@pytest.mark.parametrize("criterion", DATA_FREE)
def test_a_weight_without_constants_is_measured_by_what_is_tied_to_it(criterion: str) -> None:
    graph = Graph(model(TRACKER))
    groups = find_groups(graph)
    assert groups.removable_filters == 12
    found = score(graph, groups, criterion=criterion).values[0][groups.removable]
    assert len(set(found.round(9))) == 4
    if criterion == "magnitude":
        norms = np.linalg.norm(graph.constant("w").reshape(4, -1), axis=1)
        assert np.array_equal(np.argsort(found), np.argsort(norms))


def test_a_weight_is_computed_without_the_rest_of_the_graph() -> None:
    """Nothing else has to be computed, so an operator that torch does not know is no obstacle."""
    text = FLOAT.replace("a = Conv(x, w)", "k = Neg(w) a = Conv(x, k) u = Unique(x)").replace(
        "(float[1,2,5,5] y)", "(float[1,2,5,5] y, float[M] u)"
    )
    graph = Graph(model(text))
    groups = find_groups(graph)
    plain = Graph(model(FLOAT))
    expected = score(plain, find_groups(plain), criterion="magnitude").values
    found = score(graph, groups, criterion="magnitude").values
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_activations_of_integers_are_real_numbers() -> None:
    """Half of the integers are below the zero point: they stand for numbers below zero.

    Integers are rounded, the numbers that they stand for are not.
    """
    text = """
    g (float[N,3,5,5] x) => (float[N,2,5,5] y)
    <float[4] ws, int8[4,3,1,1] wi, int8[4] wz, float[2,4,1,1] v> {
      xs = Constant<value = float {0.05}> ()
      xz = Constant<value = uint8 {128}> ()
      ys = Constant<value = float {0.01}> ()
      yz = Constant<value = uint8 {100}> ()
      q = QuantizeLinear(x, xs, xz)
      c = QLinearConv(q, xs, xz, wi, ws, wz, ys, yz)
      a = DequantizeLinear(c, ys, yz)
      y = Conv(a, v)
    }
    """
    proto = model(text)
    rng = np.random.default_rng(0)
    values: dict[str, npt.NDArray[np.generic]] = {
        "wi": rng.integers(-127, 127, (4, 3, 1, 1)).astype(np.int8),
        "ws": np.array([0.001, 0.004, 0.0005, 0.002], np.float32),
        "wz": np.zeros(4, np.int8),
    }
    for tensor in proto.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(values[tensor.name], tensor.name))
    graph = Graph(proto)
    groups = find_groups(graph)
    data = Data(images(proto, 3), np.array([0, 1, 0]), ("cat", "dog"))
    found = score(graph, groups, data, "activation,layer-none", device="cpu").values
    trace = Mirror(graph, device="cpu").trace(data.x)
    exact = trace["a"].clamp(min=0).double().mean((2, 3)).numpy()
    expected = [exact[[0, 2]].mean(0), exact[1]]
    np.testing.assert_allclose(found[:, :4], expected, rtol=0.05)
