"""Weights with a scale for each block of positions: whole blocks go, and no block is cut."""

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.relevance.mirror import Mirror
from onnxprune.surgery.removal import remove_channels
from tests.channels.patterns.test_quantised import quantised
from tests.support.assertions import check
from tests.support.models import images, relative_error, run

HEADER = '<ir_version: 10, opset_import: ["": 21]>'
MATRIX = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<int8[6,27] w, float[6,1] ws, int8[6,1] wz, int64[4] ww = {{6,3,3,3}}, int8[6] b, float[3] bs,
 int8[4,6] u, float[4,{k}] us, int8[4,{k}] uz, int64[4] uw = {{4,6,1,1}}, float[2,4,1,1] v> {{
  w1 = DequantizeLinear<axis=1, block_size=27>(w, ws, wz)
  w2 = Reshape(w1, ww)
  b1 = DequantizeLinear<axis=0, block_size=2>(b, bs)
  a = Conv<pads=[1,1,1,1]>(x, w2, b1)
  r = Relu(a)
  u1 = DequantizeLinear<axis=1, block_size={size}>(u, us, uz)
  u2 = Reshape(u1, uw)
  c = Conv(r, u2)
  y = Conv(c, v)
}}
"""
"""A bias in three blocks of two, and a second weight whose rows are one block or several."""


def blocked(k: int, size: int) -> ModelProto:
    text = MATRIX.format(k=k, size=size)
    return quantised(text, HEADER)


@pytest.mark.parametrize(
    ("k", "size", "a"),
    [(1, 6, "aabbcc"), (3, 2, "aabbcc"), (2, 3, "aaaaaa"), (6, 1, "aabbcc")],
    ids=["a row is one block", "same blocks", "blocks that overlap", "blocks of one"],
)
def test_whole_blocks_go(k: int, size: int, a: str) -> None:
    """A row that is one block may lose any position; the bias has blocks of two."""
    proto = blocked(k, size)
    if a == "aaaaaa":  # one channel in all, which is the last of its axis
        groups = find_groups(Graph(proto))
        assert len(set(groups.filters[0].channels.tolist())) == 1
    else:
        check(proto, a=a, c="efgh")


def test_a_last_block_that_is_shorter_keeps_its_axis() -> None:
    check(blocked(2, 4), a="AABBCC", c="efgh", why="whose last block is shorter")


def test_one_block_that_is_left_of_a_bias_is_one_scale_for_all() -> None:
    """onnxruntime refuses a block size beside a single scale of a row."""
    proto = blocked(1, 6)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    dead[np.unique(groups.filters[0].channels)[:2]] = True
    small = remove_channels(graph, groups, dead)
    (bias,) = (node for node in small.graph.node if node.output[0] == "b1")
    assert {one.name for one in bias.attribute} == {"axis"}
    assert run(small, images(proto, 2))[0].any()


@pytest.mark.parametrize(("k", "size"), [(1, 6), (3, 2), (2, 4)])
def test_the_mirror_reads_blocks_as_onnxruntime_does(k: int, size: int) -> None:
    proto = blocked(k, size)
    x = images(proto, 2)
    found = Mirror(Graph(proto), device="cpu").run({"x": x})["y"]
    assert relative_error(found.numpy(), run(proto, x)[0]) < 1e-5


def test_blocks_of_weights_stay_as_they_were() -> None:
    proto = blocked(3, 2)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    dead[groups.filters[0].channels[2]] = True
    pruned = remove_channels(graph, groups, dead)
    small = {tensor.name: numpy_helper.to_array(tensor) for tensor in pruned.graph.initializer}
    for name, alive in (("u", [0, 1, 4, 5]), ("us", [0, 2]), ("uz", [0, 2])):
        np.testing.assert_array_equal(small[name], graph.constant(name)[:, alive])
    np.testing.assert_array_equal(small["bs"], graph.constant("bs")[[0, 2]])
