"""A network inside an If: each branch is cut, and what both read or return goes together."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.assertions import check, check_channels
from tests.support.models import model, run

HEAD = "g (float[N,3,8,8] x, bool t) => (float[N,2,A,B] y)"

NETWORKS = """
{head} <float[4,3,3,3] w, float[4] k, float[2,4,3,3] v> {{
  y = If(t) <
    then_branch = one () => (float[N,2,4,4] p) {{ a = Conv(x, w, k) r = Relu(a) p = Conv(r, v) }},
    else_branch = two () => (float[N,2,4,4] q) {{ b = Conv(x, w, k) s = Sigmoid(b) q = Conv(s, v) }}
  >
}}
"""
APART = """
{head}
<float[4,3,1,1] w, float[5,3,1,1] u, float[6] k, float[6,4,1,1] m, float[6,5,1,1] n,
 float[2,6,1,1] v> {{
  h = If(t) <
    then_branch = one () => (float[N,6,8,8] p) {{ a = Conv(x, w) p = Conv(a, m, k) }},
    else_branch = two () => (float[N,6,8,8] q) {{ b = Conv(x, u) q = Conv(b, n, k) }}
  >
  y = Conv(h, v)
}}
"""
ACTIVATES = """
{head} <float[4,3,1,1] w, float[2,4,1,1] v> {{
  a = Conv(x, w)
  b = If(t) <
    then_branch = one () => (float[N,4,8,8] o) {{ o = Relu(a) }},
    else_branch = two () => (float[N,4,8,8] o) {{ i = Identity(a) o = Neg(i) }}
  >
  y = Conv(b, v)
}}
"""
TWO_OUTPUTS = """
{head} <float[4,3,1,1] w, float[5,3,1,1] u, float[2,4,1,1] v, float[2,5,1,1] z> {{
  a = Conv(x, w)
  b = Conv(x, u)
  c, d = If(t) <
    then_branch = one () => (float[N,4,8,8] c1, float[N,5,8,8] d1) {{ c1 = Relu(a) d1 = Abs(b) }},
    else_branch = two () => (float[N,4,8,8] c2, float[N,5,8,8] d2) {{ c2 = Abs(a) d2 = Relu(b) }}
  >
  e = Conv(c, v)
  f = Conv(d, z)
  y = Add(e, f)
}}
"""
INSIDE = """
{head} <float[4,3,1,1] w, float[2,4,1,1] v> {{
  a = Conv(x, w)
  b = If(t) <
    then_branch = one () => (float[N,4,8,8] o) {{
      m = GlobalMaxPool(a)
      n = ReduceMean<keepdims=0>(m)
      i = Greater(n, zero)
      o = If(i) <
        then_branch = three () => (float[N,4,8,8] p) {{ p = Relu(a) }},
        else_branch = four () => (float[N,4,8,8] q) {{ q = Abs(a) }}
      >
      zero = Constant<value=float {{0.1}}>()
    }},
    else_branch = two () => (float[N,4,8,8] r) {{ r = Neg(a) }}
  >
  y = Conv(b, v)
}}
"""
STATES = """
{head}
<float[4,3,1,1] w, float[4,1,3,3] d, float[2,4,1,1] v, float[2,4,3,3] z> {{
  a = Conv(x, w)
  y = If(t) <
    then_branch = one () => (float[N,2,8,8] p) {{
      s = Constant<value_ints=[0, 4, 64]>()
      f = Reshape(a, s)
      e = Constant<value_ints=[0, 4, 8, 8]>()
      g = Reshape(f, e)
      p = Conv(g, v)
    }},
    else_branch = two () => (float[N,2,8,8] q) {{
      c = Conv<group=4, pads=[1,1,1,1]>(a, d)
      q = Conv<pads=[1,1,1,1]>(c, z)
    }}
  >
}}
"""
OPENED = {
    "whole networks of one weight": (NETWORKS, {"a": "abcd", "b": "abcd"}),
    "whole networks of their own": (
        APART,
        {"a": "abcd", "b": "efghi", "p": "jklmno", "q": "jklmno"},
    ),
    "activations": (ACTIVATES, {"a": "abcd"}),
    "two outputs": (TWO_OUTPUTS, {"a": "abcd", "b": "efghi", "e": "JK", "f": "JK"}),
    "an If in an If": (
        INSIDE.replace("      zero = Constant<value=float {{0.1}}>()\n", "").replace(
            "      m = Glob", "      zero = Constant<value=float {{0.1}}>()\n      m = Glob"
        ),
        {"a": "ABCD"},
    ),
    "counts that are stated again": (STATES, {"a": "abcd", "c": "abcd"}),
}


@pytest.mark.parametrize(("text", "filters"), OPENED.values(), ids=list(OPENED))
def test_channels_cross_the_branches_of_an_if(text: str, filters: dict[str, str]) -> None:
    check(text.format(head=HEAD), **filters)


def own_weights(text: str) -> ModelProto:
    """The same network with the weights of each branch in it, under one name in both."""
    proto = model(text.format(head=HEAD))
    for attribute in proto.graph.node[0].attribute:
        for name in ("w", "v"):
            tensor = next(t for t in proto.graph.initializer if t.name == name)
            own = attribute.g.initializer.add()
            own.CopyFrom(tensor)
            own.name = f"own_{name}"
            for node in attribute.g.node:
                for k, read in enumerate(node.input):
                    node.input[k] = own.name if read == name else read
        for node, names in zip(attribute.g.node, ("conv", "act", "last"), strict=True):
            node.output[0] = names
        attribute.g.node[1].input[0], attribute.g.node[2].input[0] = "conv", "act"
        attribute.g.output[0].name = "last"
    for name in ("w", "v"):
        proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == name))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_branches_with_weights_and_names_of_their_own_are_cut_apart() -> None:
    proto = own_weights(NETWORKS)
    before = proto.SerializeToString()
    check(proto, conv="abcd", conv_0="efgh")
    assert proto.SerializeToString() == before


def test_both_branches_compute_what_they_did_without_the_filters() -> None:
    proto = own_weights(NETWORKS)
    graph = Graph(proto)
    groups = find_groups(graph)
    second = next(found for found in groups.filters if found.node == "conv_0")
    pruned = remove_channels(graph, groups, np.arange(len(groups)) == second.channels[1])
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    first = [run(p, x, np.array(True))[0] for p in (proto, pruned)]
    np.testing.assert_allclose(*first, rtol=1e-5)
    assert not np.allclose(*(run(p, x, np.array(False))[0] for p in (proto, pruned)))


def test_branches_that_return_different_shapes_hold_what_they_read() -> None:
    text = """
    g (float[N,3,8,8] x, bool t) => (float[N,M] y) <float[4,3,1,1] w, float[4,1] d> {
      a = Conv(x, w)
      p = GlobalAveragePool(a)
      y = If(t) <
        then_branch = one () => (float[N,M] o) { o = Flatten(p) },
        else_branch = two () => (float[N,M] u) { f = Flatten(p) u = MatMul(f, d) }
      >
    }
    """
    groups = find_groups(Graph(model(text)))
    check_channels(groups, {"a": "ABCD"}, "feeds If 'y', whose")


EACH = """
g (float[N,4,8,8] x) => (float[M,4,8,8] y) <float[4,4,1,1] w> {
  s = SplitToSequence(x)
  t = SequenceMap(s) <body = each (float[A,4,8,8] r) => (float[A,4,8,8] o) { o = Conv(r, w) }>
  y = ConcatFromSequence<axis=0>(t)
}
"""


def test_convolutions_that_are_not_followed_are_not_denied() -> None:
    with pytest.raises(InvalidModel, match=r"SequenceMap 't': holds the convolutions of gr"):
        find_groups(Graph(model(EACH)))


def test_a_loop_in_a_branch_reads_what_has_another_name() -> None:
    """Both branches call a tensor `m`; the second one's is read in a body that has its own `s`."""
    text = """
    g (float[N,4,8,8] x, bool t) => (float[N,4,8,8] y) <float[4,4,1,1] w> {
      c = Conv(x, w)
      y = If(t) <
        then_branch = one () => (float[N,4,8,8] p) { m = Relu(c) s = Neg(m) p = Abs(s) },
        else_branch = two () => (float[N,4,8,8] q) {
          m = Abs(c)
          n = Constant<value_int=2>() go = Constant<value=bool {1}>()
          q = Loop(n, go, c) <body = again (int64 i, bool c0, float[N,4,8,8] s) =>
              (bool c1, float[N,4,8,8] s1) { c1 = Identity(c0) s1 = Add(m, s) }>
        }
      >
    }
    """
    proto = model(text)
    opened = Graph(proto).model
    onnx.checker.check_model(opened, full_check=True)
    x = np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)
    for way in (True, False):
        outputs = [run(one, x, np.array(way))[0] for one in (proto, opened)]
        np.testing.assert_array_equal(*outputs)


def test_a_constant_condition_takes_one_branch_alone() -> None:
    text = """
    g (float[N,3,8,8] x) => (float[N,2,8,8] y)
    <float[4,3,1,1] w, float[5,4,1,1] u, float[2,5,1,1] v, bool yes = {1}> {
      a = Conv(x, w)
      h = If(yes) <
        then_branch = one () => (float[N,4,8,8] o) { o = Relu(a) },
        else_branch = two () => (float[N,M] f) { f = Flatten(a) }
      >
      b = Conv(h, u)
      y = Conv(b, v)
    }
    """
    check(text, a="abcd", b="efghi")


SQUEEZED = """
g (float[N,3,8,WIDTH] x) => (float[N,2,M] y)
<float[4,3,1,1] w, float[5,4,1,1] u, float[6,4,1,1] t, float[2,5,8] v> {
  a = Conv(x, w)
  size = Shape(a)
  at = Constant<value_ints=[AXIS]>()
  found = Gather(size, at)
  wanted = Constant<value_ints=[COUNT]>()
  is = Equal(found, wanted)
  last = Constant<value_ints=[3]>()
  h = If(is) <
    then_branch = one () => (float[N,5,8] p) { b = Conv(a, u) p = Squeeze(b, last) },
    else_branch = two () => (float[N,6,8,1] q) { q = Conv(a, t) }
  >
  y = Conv(h, v)
}
"""


def squeezed(width: str = "1", axis: int = 3, count: int = 1) -> str:
    places = {"WIDTH": width, "AXIS": str(axis), "COUNT": str(count)}
    text = SQUEEZED
    for name, value in places.items():
        text = text.replace(name, value)
    return text


def test_a_condition_on_a_size_takes_one_branch_alone() -> None:
    check(squeezed(), a="abcd", b="efghi", q="jklmno")


def test_a_condition_on_a_number_of_channels_pins_them() -> None:
    why = "their number is a value that If 'h' computes with"
    check(squeezed(axis=1, count=4), why=why, a="ABCD", b="efghi", q="jklmno")


def test_a_condition_on_an_open_size_may_take_the_other_branch() -> None:
    graph = Graph(model(squeezed(width="W")), input_shapes={"x": (1, 3, 8, 1)})
    why = "feeds If 'h', whose branches return different shapes"
    check_channels(find_groups(graph), {"a": "abcd", "b": "EFGHI", "q": "JKLMNO"}, why)
