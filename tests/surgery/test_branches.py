"""A branch whose filters are all gone goes as a whole, exactly."""

import numpy as np
import onnx
import pytest

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.errors import InvalidPlan
from onnxprune.graph import Graph
from onnxprune.surgery import find_costs, mask, remove_channels
from tests.support.halves import half
from tests.support.models import images, model, relative_error, run

EXACT = 1e-5
"""Relative, in single precision."""
ALSO = ("dense", "branches")

NET = """
g (float[N,3,8,8] x) => (float[N,2] y)
<float[6,3,1,1] w1, {weights} float[6,2] v> {{
  a = Conv(x, w1)
  {block}
  p = GlobalAveragePool(s)
  f = Flatten(p)
  y = Gemm(f, v)
}}
"""

BASIC = NET.format(
    weights="float[4,6,3,3] w2, float[4] b2, float[6,4,3,3] w3, float[6] b3,",
    block="""b = Conv<pads=[1,1,1,1]>(a, w2, b2)
  c = Relu(b)
  d = Conv<pads=[1,1,1,1]>(c, w3, b3)
  e = Relu(d)
  s = Add(a, e)""",
)
"""4 filters in a branch, which leaves the positive part of a bias."""
PLAIN = BASIC.replace(", w3, b3)", ", w3)")
"""A branch that leaves nothing."""
BOTTLENECK = NET.format(
    weights="float[4,6,1,1] w2, float[4] b2, float[5,4,3,3] w3, float[5] b3, float[6,5,1,1] w4,"
    "float[6] k, float[6] o, float[6] m, float[6] var,",
    block="""b = Conv(a, w2, b2)
  c = Relu(b)
  d = Conv<pads=[1,1,1,1]>(c, w3, b3)
  e = Relu(d)
  g = Conv(e, w4)
  n = BatchNormalization(g, k, o, m, var)
  s = Add(n, a)""",
)
"""4 and 5 filters one after another; what the first leave behind passes the second."""
PADDED = BOTTLENECK.replace("g = Conv(e, w4)", "g = Conv<pads=[1,1,1,1]>(e, w4)").replace(
    "float[6,5,1,1]", "float[6,5,3,3]"
)
"""What the first leave behind differs at borders."""
GATE = NET.format(
    weights="float[4,6,1,1] w2, float[4] b2, float[6,4,1,1] w3, float[6] b3,",
    block="""q = GlobalAveragePool(a)
  b = Conv(q, w2, b2)
  c = Relu(b)
  d = Conv(c, w3, b3)
  e = Sigmoid(d)
  s = Mul(a, e)""",
)
"""A gate, which is a factor for each channel then. Its maps have one pixel, the image has many."""
INVERTED = NET.format(
    weights="float[8,6,1,1] w2, float[8] b2, float[8,1,3,3] w3, float[8] b3, float[6,8,1,1] w4,"
    "float[6] b4,",
    block="""b = Conv(a, w2, b2)
  c = Relu(b)
  d = Conv<group=8, pads=[1,1,1,1]>(c, w3, b3)
  e = Relu(d)
  g = Conv(e, w4, b4)
  s = Add(a, g)""",
)
TWICE = NET.format(
    weights="float[4,6,3,3] w2, float[6,4,1,1] w3, float[5,6,3,3] w4, float[6,5,1,1] w5,",
    block="""b = Conv<pads=[1,1,1,1]>(a, w2)
  c = Relu(b)
  d = Conv(c, w3)
  t = Add(a, d)
  e = Conv<pads=[1,1,1,1]>(t, w4)
  g = Relu(e)
  h = Conv(g, w5)
  s = Add(t, h)""",
)
"""Two blocks, one after another."""
BOTH = NET.format(
    weights="float[4,6,3,3] w2, float[6,4,1,1] w3, float[5,6,3,3] w4, float[6,5,1,1] w5,"
    "float[6,6,3,3] w6,",
    block="""b = Conv<pads=[1,1,1,1]>(a, w2)
  d = Conv(b, w3)
  e = Conv<pads=[1,1,1,1]>(a, w4)
  h = Conv(e, w5)
  t = Add(d, h)
  s = Conv<pads=[1,1,1,1]>(t, w6)""",
)
"""Two branches and no shortcut: one of them has to stay."""
JOINED = BOTH.replace("t = Add(d, h)", "t = Concat<axis=1>(d, h)").replace(
    "float[6,6,3,3] w6", "float[6,12,3,3] w6"
)
"""Joined side by side, where a branch cannot be left out."""
TOKENS = NET.format(
    weights="float[6,5] w2, float[5] b2, float[5,6] w3, float[6] b3, float[6] scale,",
    block="""t = Transpose<perm=[0,2,3,1]>(a)
  b = MatMul(t, w2)
  c = Add(b, b2)
  d = Relu(c)
  e = MatMul(d, w3)
  g = Add(e, b3)
  h = Mul(g, scale)
  u = Transpose<perm=[0,3,1,2]>(h)
  s = Add(a, u)""",
)
"""Channels last and back."""

NETS = {
    "basic": (BASIC, [4]),
    "plain": (PLAIN, [4]),
    "bottleneck": (BOTTLENECK, [4, 5]),
    "padded": (PADDED, [5]),
    "gate": (GATE, [4]),
    "inverted": (INVERTED, [8]),
    "twice": (TWICE, [4, 5]),
    "both": (BOTH, [4]),
    "joined": (JOINED, []),
    "tokens": (TOKENS, [5]),
}
"""Networks, and the widths that may go whole."""


def analysed(text: str) -> tuple[Graph, ChannelGroups]:
    graph = Graph(model(text))
    return graph, find_groups(graph, also=ALSO)


def assert_exact(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> onnx.ModelProto:
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    for batch in (1, 3):
        x = images(graph.model, batch)
        for found, expected in zip(run(small, x), run(zeroed, x), strict=True):
            assert found.shape == expected.shape
            assert relative_error(found, expected) < EXACT
    return small


@pytest.mark.parametrize("name", NETS)
def test_a_branch_that_goes_is_one_that_is_masked(name: str) -> None:
    text, widths = NETS[name]
    graph, groups = analysed(text)
    assert [len(axis) for axis in groups.whole] == widths
    rng = np.random.default_rng(0)
    for subset in range(1, 1 << len(widths)):
        dead = np.zeros(len(groups), np.bool_)
        for k, axis in enumerate(groups.whole):
            dead[axis] = bool(subset >> k & 1)
        for others in (np.zeros(len(groups), np.bool_), half(groups, int(rng.integers(99)))):
            small = assert_exact(graph, groups, dead | others)
            for tensor in small.graph.initializer:
                assert 0 not in tensor.dims


def test_nothing_is_left_of_a_branch_but_what_it_adds() -> None:
    """By hand: the sum of a layer and the positive part of a bias."""
    graph, groups = analysed(BASIC)
    dead = np.zeros(len(groups), np.bool_)
    dead[groups.whole[0]] = True
    small = remove_channels(graph, groups, dead)
    kinds = [node.op_type for node in small.graph.node]
    assert kinds == ["Conv", "Add", "GlobalAveragePool", "Flatten", "Gemm"]
    sizes = sorted(tuple(tensor.dims) for tensor in small.graph.initializer)
    assert sizes == [(1, 6, 1, 1), (6, 2), (6, 3, 1, 1)]
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in graph.model.graph.initializer}
    x = images(graph.model, 2)
    a = np.einsum("nchw,oc->nohw", x, weights["w1"][:, :, 0, 0])
    s = a + np.maximum(weights["b3"], 0)[:, None, None]
    np.testing.assert_allclose(run(small, x)[0], s.mean((2, 3)) @ weights["v"], rtol=1e-4)


def test_a_sum_with_nothing_hands_on_the_other_side() -> None:
    graph, groups = analysed(PLAIN)
    dead = np.zeros(len(groups), np.bool_)
    dead[groups.whole[0]] = True
    kinds = [node.op_type for node in remove_channels(graph, groups, dead).graph.node]
    assert kinds == ["Conv", "Identity", "GlobalAveragePool", "Flatten", "Gemm"]


def test_without_the_option_one_filter_stays() -> None:
    graph = Graph(model(BASIC))
    groups = find_groups(graph)
    assert groups.whole == ()
    dead = np.zeros(len(groups), np.bool_)
    dead[find_groups(graph, also=ALSO).whole[0]] = True
    with pytest.raises(InvalidPlan, match="removes all 4 positions"):
        remove_channels(graph, groups, dead)


def test_what_a_branch_saves_is_all_of_it() -> None:
    graph, groups = analysed(PLAIN)
    dead = np.zeros(len(groups), np.bool_)
    dead[groups.whole[0]] = True
    full, left = (find_costs(graph, groups).of(which) for which in (None, dead))
    assert full.params - left.params == 4 * 6 * 9 + 4 + 6 * 4 * 9
    assert full.macs - left.macs == 2 * 4 * 6 * 9 * 64
