"""Other ways to hold a model: old opsets, small numbers, several inputs and outputs, files."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.assertions import check, some
from tests.support.models import model

CHAIN = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[4,3,3,3] w, float[4] b, float[5,4,1,1] u, float[2,5,1,1] v> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  c = Conv(r, u)
  y = Conv(c, v)
}
"""


def with_weights_as_inputs(text: str, opset: int) -> ModelProto:
    """A model as exporters wrote it in 2018: IR 3, where every initializer is an input as well."""
    proto = model(text, header=f'<ir_version: 8, opset_import: ["": {opset}]>')
    proto.ir_version = 3
    proto.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in proto.graph.initializer
    )
    onnx.checker.check_model(proto, full_check=True)
    return proto


OLD_RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,2] y)
<float[4,3,3,3] w, float[4] k, float[4] o, float[4,4,3,3] u, float[4,1,1] k2, float[4] s,
 float[4] f, float[4] m, float[4] var, float[4,2] d> {
  a = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(x, w)
  k1 = Unsqueeze<axes=[1,2]>(k)
  o1 = Unsqueeze<axes=[1,2]>(o)
  a1 = Mul(a, k1)
  a2 = Add(a1, o1)
  a3 = Relu(a2)
  b = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(a3, u)
  b1 = BatchNormalization(b, s, f, m, var)
  b2 = Mul(b1, k2)
  c = Sum(a3, b2)
  p = GlobalAveragePool(c)
  q = Dropout(p)
  z = Reshape(q, shape)
  l = Gemm<alpha=1.0, beta=1.0>(z, d, bias)
  y = Softmax(l)
}
"""


@pytest.mark.parametrize("opset", [7, 8, 9])
def test_an_old_residual_network(opset: int) -> None:
    """Weights listed as inputs, Sum for residuals, constants unsqueezed for each channel."""
    text = OLD_RESIDUAL.replace("float[4,2] d", "float[4,2] d, float[2] bias")
    text = text.replace("float[4,2] d", "int64[2] shape = {-1,4}, float[4,2] d")
    check(with_weights_as_inputs(text, opset), a="abcd", b="abcd")


OLD_UPSAMPLE = """
g (float[N,3,{h},{h}] x) => (float[N,2,I,J] y)
<float[4,3,3,3] w, float[4,4,3,3] u, float[2,4,1,1] v> {{
  a = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(x, w)
  b = Conv<pads=[1,1,1,1], kernel_shape=[3,3], strides=[2,2]>(a, u)
  {body}
  t = Add(a, c)
  y = Conv(t, v)
}}
"""
COMPUTED_SCALES = """
  i = Constant<value = int64[1] {2}>() j = Constant<value = int64[1] {3}>()
  n = Shape(a) h0 = Gather(n, i) w0 = Gather(n, j)
  m = Shape(b) h1 = Gather(m, i) w1 = Gather(m, j)
  h2 = Cast<to=1>(h0) h3 = Cast<to=1>(h1) fh = Div(h2, h3)
  w2 = Cast<to=1>(w0) w3 = Cast<to=1>(w1) fw = Div(w2, w3)
  one = Constant<value = float[2] {1., 1.}>() k = Concat<axis=0>(one, fh, fw)
  c = Upsample<mode="nearest">(b, k)
"""
UPSAMPLES = {
    "attribute": (7, 'c = Upsample<mode="nearest", scales=[1., 1., 2., 2.]>(b)'),
    "Constant": (9, "k = Constant<value = float[4] {1., 1., 2., 2.}>() c = Upsample(b, k)"),
    "computed": (9, COMPUTED_SCALES),
    "Resize": (10, "k = Constant<value = float[4] {1., 1., 2., 2.}>() c = Resize(b, k)"),
    "Resize, computed": (10, COMPUTED_SCALES.replace("Upsample", "Resize")),
}


@pytest.mark.parametrize("size", [8, "H"])
@pytest.mark.parametrize(("opset", "body"), UPSAMPLES.values(), ids=list(UPSAMPLES))
def test_an_old_upsample(opset: int, body: str, size: int | str) -> None:
    proto = with_weights_as_inputs(OLD_UPSAMPLE.format(h=size, body=body), opset)
    check(proto, a="abcd", b="abcd", sizes=(8, 12))


def test_restated_counts_are_inputs_too_where_the_format_wants_them() -> None:
    text = """
    g (float[N,3,4,4] x) => (float[N,2] y)
    <float[4,3,3,3] w, int64[2] shape = {-1,64}, float[64,2] d, float[2] bias> {
      a = Conv<kernel_shape=[3,3], pads=[1,1,1,1]>(x, w)
      b = Relu(a)
      z = Reshape(b, shape)
      y = Gemm(z, d, bias)
    }
    """
    check(with_weights_as_inputs(text, 8), a="abcd")


def test_several_inputs_and_outputs() -> None:
    check(
        """
        g (float[N,3,8,8] x, float[N,1,8,8] depth, float[1] gain) =>
          (float[N,2,8,8] y, float[N,5,8,8] c, float[N,3] z)
        <float[4,3,1,1] w, float[4,1,1,1] u, float[5,4,1,1] o, float[2,5,1,1] v, float[4,3] d> {
          a = Conv(x, w)
          b = Conv(depth, u)
          s = Add(a, b)
          g0 = Mul(s, gain)
          c = Conv(g0, o)
          y = Conv(c, v)
          p = GlobalMaxPool(g0)
          f = Flatten(p)
          z = Gemm(f, d)
        }
        """,
        a="abcd",
        b="abcd",
    )


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_weights_of_sixteen_bits_are_widened_where_they_are_read(kind: str) -> None:
    check(
        f"""
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <{kind}[4,3,3,3] w, {kind}[4] b, {kind}[5,4,1,1] u, float[2,5,1,1] v> {{
          w1 = Cast<to=1>(w)
          b1 = Cast<to=1>(b)
          u1 = Cast<to=1>(u)
          a = Conv<pads=[1,1,1,1]>(x, w1, b1)
          r = Relu(a)
          c = Conv(r, u1)
          y = Conv(c, v)
        }}
        """,
        a="abcd",
        c="efghi",
    )


def test_a_network_of_float16() -> None:
    text = CHAIN.replace("float[", "float16[")
    check(text, exact=5e-3, a="abcd", c="efghi")


def test_a_network_of_bfloat16_keeps_its_type() -> None:
    """onnxruntime has no kernel for it on a CPU, so only the structure is checked."""
    header = '<ir_version: 10, opset_import: ["": 22]>'
    graph = Graph(model(CHAIN.replace("float[", "bfloat16["), header=header))
    groups = find_groups(graph)
    assert groups.removable_filters == 9
    dead = some(groups, 1.0, 0)
    small = remove_channels(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    alive = ~dead[groups.filters[0].channels]
    before, after = graph.model.graph.initializer[0], small.graph.initializer[0]
    assert after.data_type == onnx.TensorProto.BFLOAT16
    assert (numpy_helper.to_array(after) == numpy_helper.to_array(before)[alive]).all()


def test_external_data(tmp_path: Path) -> None:
    proto = model(CHAIN)
    path = tmp_path / "large.onnx"
    copy = ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, path, save_as_external_data=True, location="large.data", size_threshold=0)
    assert (tmp_path / "large.data").stat().st_size > path.stat().st_size / 10
    graph, whole = Graph.load(path), Graph(proto)
    groups = find_groups(graph)
    dead = some(groups, 0.5, 0)
    found = remove_channels(graph, groups, dead)
    expected = remove_channels(whole, find_groups(whole), dead)
    for one, other in zip(found.graph.initializer, expected.graph.initializer, strict=True):
        assert np.array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other))


def test_weights_in_constant_nodes() -> None:
    """As many optimisers write them: no initializers at all."""
    proto = model(CHAIN)
    for tensor in reversed(proto.graph.initializer):
        proto.graph.node.insert(
            0, helper.make_node("Constant", [], [tensor.name], value=tensor, name=tensor.name)
        )
    del proto.graph.initializer[:]
    onnx.checker.check_model(proto, full_check=True)
    check(proto, a="abcd", c="efghi")


def test_a_weight_computed_from_constants() -> None:
    """A transposed, reshaped or scaled weight: still the constants are cut."""
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2,8,8] y)
        <float[3,3,3,4] w, float[4,1,1,1] k, float[5,4] u, float[2,5,1,1] v> {
          w1 = Transpose<perm=[3,2,0,1]>(w)
          w2 = Mul(w1, k)
          a = Conv<pads=[1,1,1,1]>(x, w2)
          s = Constant<value_ints=[5,4,1,1]>()
          u1 = Reshape(u, s)
          c = Conv(a, u1)
          y = Conv(c, v)
        }
        """,
        a="abcd",
        c="efghi",
    )
