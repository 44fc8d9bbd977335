"""Networks in integers: weights stay quantised, and scales shrink with their channels."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.removal import remove_channels
from tests.support.assertions import check, some
from tests.support.models import HEADER, model

NETWORK = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float s, uint8 z, int8[4,3,3,3] w, float[{w}] ws, int8[{w}] wz, int32[4] b, float[{w}] bs,
 int8[5,4,1,1] u, float[{u}] us, int8[{u}] uz, float[2,5,1,1] v> {{
  xq = QuantizeLinear(x, s, z)
  x1 = DequantizeLinear(xq, s, z)
  w1 = DequantizeLinear<axis=0>(w, ws, wz)
  b1 = DequantizeLinear<axis=0>(b, bs)
  a = Conv<pads=[1,1,1,1]>(x1, w1, b1)
  r = Relu(a)
  rq = QuantizeLinear(r, s, z)
  r1 = DequantizeLinear(rq, s, z)
  u1 = DequantizeLinear<axis=0>(u, us, uz)
  c = Conv(r1, u1)
  y = Conv(c, v)
}}
"""


def quantised(text: str, header: str = HEADER) -> ModelProto:
    """A model with scales above 0 and integers that use their range."""
    proto = model(text, header=header)
    rng = np.random.default_rng(0)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.ndim < 2:
            array = np.abs(array) / 50
        elif array.dtype.kind in "iu" and array.ndim and array.dtype != np.int64:
            array = rng.integers(-100, 100, array.shape).astype(array.dtype)
        elif array.dtype.kind == "u":
            array = np.array(128, array.dtype)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


@pytest.mark.parametrize(("w", "u"), [("", ""), ("4", "5"), ("4", "")])
def test_quantised_weights_with_one_scale_or_one_for_each_filter(w: str, u: str) -> None:
    text = NETWORK.format(w=w, u=u).replace("[]", "")
    check(quantised(text), a="abcd", c="efghi")


def test_quantised_weights_count_as_parameters() -> None:
    proto = quantised(NETWORK.format(w="4", u="5"))
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = some(groups, 1.0, 0)
    costs = find_costs(graph, groups)
    small = remove_channels(graph, groups, dead)
    for cost, model_left in ((costs.of(), proto), (costs.of(dead), small)):
        assert cost.params == sum(int(np.prod(t.dims)) for t in model_left.graph.initializer)


def test_weights_stay_quantised() -> None:
    graph = Graph(quantised(NETWORK.format(w="4", u="5")))
    groups = find_groups(graph)
    dead = some(groups, 1.0, 0)
    small = {t.name: t for t in remove_channels(graph, groups, dead).graph.initializer}
    alive = ~dead[groups.filters[0].channels]
    assert small["w"].data_type == onnx.TensorProto.INT8
    found = numpy_helper.to_array(small["w"])
    assert (found == graph.constant("w")[alive]).all()
    assert small["ws"].dims == small["wz"].dims == [int(alive.sum())]


def test_fake_quantisation_of_a_float_weight() -> None:
    """As training with quantisation leaves it: a float weight that is rounded when it is read."""
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y)
    <float[4,3,3,3] w, float[4] ws, int8[4] wz, float[2,4,1,1] v> {
      wq = QuantizeLinear<axis=0>(w, ws, wz)
      w1 = DequantizeLinear<axis=0>(wq, ws, wz)
      a = Conv<pads=[1,1,1,1]>(x, w1)
      y = Conv(a, v)
    }
    """
    check(quantised(text), a="abcd")


def test_an_activation_with_a_scale_for_each_channel() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y)
    <float[4,3,3,3] w, float[4] s, uint8[4] z, float[2,4,1,1] v> {
      a = Conv<pads=[1,1,1,1]>(x, w)
      q = QuantizeLinear<axis=1>(a, s, z)
      r = DequantizeLinear<axis=1>(q, s, z)
      y = Conv(r, v)
    }
    """
    check(quantised(text), a="abcd")


def test_channels_of_0_do_not_change_a_scale_from_the_range_of_all() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y) <float[4,3,3,3] w, float[2,4,1,1] v> {
      a = Conv<pads=[1,1,1,1]>(x, w)
      q, s, z = DynamicQuantizeLinear(a)
      r = DequantizeLinear(q, s, z)
      y = Conv(r, v)
    }
    """
    check(text, a="abcd")
