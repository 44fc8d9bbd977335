"""Model-local functions: their bodies are walked, shared by all calls, and never changed."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.models import images, relative_error, run

HEADER = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'
BLOCK = """
<domain: "my", opset_import: ["": 17]>
block (a, w, b) => (r) { c = Conv<pads=[1,1,1,1]>(a, w, b)  h = Constant<value=float {0.5}>()
  s = Mul(c, h)  r = Relu(s) }
"""
TWO_CALLS = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[4,3,3,3] w1, float[4] b1, float[6,4,3,3] w2, float[6] b2, float[2,6,1,1] v> {
  a = my.block(x, w1, b1)
  c = my.block(a, w2, b2)
  y = Conv(c, v)
}
"""
GROUPED = """
<domain: "my", opset_import: ["": 17]>
block (a, w) => (r) { c = Conv<group=4, pads=[1,1,1,1]>(a, w)  r = Relu(c) }
"""
DEPTHWISE_CALL = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[4,3,1,1] w, float[4,1,3,3] d, float[2,4,1,1] v> {
  a = Conv(x, w)
  c = my.block(a, d)
  y = Conv(c, v)
}
"""


def with_function(graph: str, function: str) -> ModelProto:
    proto = onnx.parser.parse_model(f"{HEADER}\n{graph}\n{function}")
    rng = np.random.default_rng(0)
    for value in proto.graph.value_info:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del proto.graph.value_info[:]
    onnx.checker.check_model(proto, full_check=True)
    return proto


@pytest.mark.parametrize("seed", range(3))
def test_filters_inside_a_function_are_pruned_for_each_call_on_its_own(seed: int) -> None:
    proto = with_function(TWO_CALLS, BLOCK)
    graph = Graph(proto)
    groups = find_groups(graph)
    assert [f.channels.size for f in groups.filters] == [4, 6, 2]
    assert groups.removable_filters == 10
    rng = np.random.default_rng(seed)
    dead = groups.removable & (rng.random(len(groups)) < 0.5)
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    assert small.functions == proto.functions
    assert [node.op_type for node in small.graph.node] == ["block", "block", "Conv"]
    for batch in (1, 3):
        x = images(proto, batch)
        assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-5


def test_a_count_stated_inside_a_function_keeps_its_channels() -> None:
    graph = Graph(with_function(DEPTHWISE_CALL, GROUPED))
    groups = find_groups(graph)
    assert groups.removable_filters == 0
    assert any(
        "a function that other nodes may call" in why.text for why in groups.reasons.values()
    )
