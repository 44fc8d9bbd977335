"""What cannot be looked into holds what it reads, and is named; the rest is pruned as ever."""

import onnx
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.assertions import check, check_channels, some
from tests.support.models import model

BESIDE = """
g (float[N,3,8,8] x{inputs}) => ({outputs})
<float[4,3,1,1] w, float[5,4,1,1] u, float[2,5,1,1] v{constants}> {{
  a = Conv(x, w)
  {body}
  c = Conv({last}, u)
  r = Relu(c)
  y = Conv(r, v)
}}
"""


def beside(body: str, *, last: str = "b", **parts: str) -> str:
    """Some nodes between two convolutions, of which the second is free."""
    filled = {"inputs": "", "outputs": "float[N,2,8,8] y", "constants": "", **parts}
    return BESIDE.format(body=body, last=last, **filled)


LOOP = """
  n = Constant<value_int=3>() go = Constant<value=bool {1}>()
  b = Loop(n, go, a) <body = again (int64 i, bool c0, float[N,4,8,8] s) =>
      (bool c1, float[N,4,8,8] s1) { c1 = Identity(c0) s1 = Relu(s) }>
"""
SCAN = """
  b = Scan<num_scan_inputs=1, scan_input_axes=[2], scan_output_axes=[2],
           body = each (float[N,4,8] row) => (float[N,4,8] o) { o = Softmax<axis=2>(row) }>(a)
"""
SUBGRAPHS = {
    "Loop": (LOOP, "feeds Loop 'b'"),
    "Scan": (SCAN, "feeds Scan 'b'"),
    "an unknown operator of a domain": ("b = com.microsoft.Trilu(a)", "Trilu 'b'"),
}
MICROSOFT = '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]>'


@pytest.mark.parametrize(("body", "why"), SUBGRAPHS.values(), ids=list(SUBGRAPHS))
def test_what_a_subgraph_or_unknown_operator_reads_stays(body: str, why: str) -> None:
    parts = {}
    if "Loop" in body or "microsoft" in body:
        parts["constants"] = ", float[N,4,8,8] b"  # the shape is declared, or nobody knows it
    text = beside(body, **parts)
    check(text, header=MICROSOFT, why=why, a="ABCD", c="efghi")


def test_a_weight_read_inside_a_subgraph_stays() -> None:
    body = """
      s = SplitToSequence(a)
      t = SequenceMap(s) <body = each (float[M,4,8,8] r) => (float[M,4,8,8] o) { o = Conv(r, k) }>
      b = ConcatFromSequence<axis=0>(t)
      h = Conv(x, k2) d = Mul(b, h) e = Conv(d, k)
    """
    constants = ", float[4,4,1,1] k, float[4,3,1,1] k2, float[N,4,8,8] b"
    check(
        beside(body, last="e", constants=constants),
        why="is read inside the subgraph of SequenceMap 't'",
        a="ABCD",
        h="EFGH",
        e="IJKL",
        c="mnopq",
    )


def test_non_maximum_suppression_holds_boxes_and_scores() -> None:
    """The trunk before the heads may go; the heads make numbers that are read one by one."""
    check(
        """
        g (float[1,3,4,4] x) => (int64[M,3] y)
        <float[5,3,1,1] w, float[4,5,1,1] h1, float[3,5,1,1] h2> {
          a = Conv(x, w)
          boxes0 = Conv(a, h1)
          scores0 = Conv(a, h2)
          sb = Constant<value_ints=[1,4,16]>()
          b1 = Reshape(boxes0, sb)
          boxes = Transpose<perm=[0,2,1]>(b1)
          ss = Constant<value_ints=[1,3,16]>()
          scores = Reshape(scores0, ss)
          most = Constant<value_ints=[5]>()
          y = NonMaxSuppression(boxes, scores, most)
        }
        """,
        a="abcde",
        boxes0="FGHI",
        scores0="JKL",
        why="feeds NonMaxSuppression 'y', which returns as many rows as it finds",
    )


def test_top_k_of_what_is_pooled_holds_it() -> None:
    check(
        """
        g (float[N,3,8,8] x) => (float[N,2] y)
        <float[5,3,1,1] w, float[4,5,1,1] u> {
          a = Conv(x, w)
          b = Conv(a, u)
          p = GlobalAveragePool(b)
          f = Flatten(p)
          k = Constant<value_ints=[2]>()
          y, i = TopK(f, k)
        }
        """,
        a="abcde",
        b="FGHI",
        why="feeds TopK 'y', which compares these channels with each other",
    )


def test_a_custom_domain_is_pinned_by_name() -> None:
    """No runtime has a kernel for it, so only the structure is checked."""
    text = beside("b = my.Mystery<strength=3>(a)", constants=", float[N,4,8,8] b")
    header = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'
    proto = model(text, header=header)
    graph = Graph(proto)
    groups = find_groups(graph)
    why = "feeds Mystery 'b', an operator that onnxprune does not know"
    check_channels(groups, {"a": "ABCD", "c": "efghi"}, why)
    small = remove_channels(graph, groups, some(groups, 0.5, 0))
    onnx.checker.check_model(small, full_check=True)
    assert small.graph.node[1] == proto.graph.node[1]
    assert [list(t.dims) for t in small.graph.initializer] == [
        [4, 3, 1, 1],
        [3, 4, 1, 1],
        [2, 3, 1, 1],
    ]


LOCAL = """
<ir_version: 8, opset_import: ["": 17, "local": 1]>
"""
SWISH = """
<domain: "local", opset_import: ["": 17]>
swish (x) => (y) { s = Sigmoid(x)  y = Mul(x, s) }
"""
SCALE = """
<domain: "local", opset_import: ["": 17]>
scale (x, k, o) => (y) { m = Mul(x, k)  y = Add(m, o) }
"""
BLOCK = """
<domain: "local", opset_import: ["": 17, "local": 1]>
block (x, w) => (y) { c = Conv<pads=[1,1,1,1]>(x, w)  s = local.swish(c) y = Add(x, s) }
"""
RESHAPES = """
<domain: "local", opset_import: ["": 17]>
shuffle (x) => (y) {
  s = Constant<value_ints=[-1,2,2,8,8]>() r = Reshape(x, s) t = Transpose<perm=[0,2,1,3,4]>(r)
  q = Constant<value_ints=[-1,4,8,8]>() y = Reshape(t, q)
}
"""


def test_the_body_of_a_local_function_is_walked() -> None:
    check(beside("b = local.swish(a)") + SWISH, header=LOCAL, a="abcd", c="efghi")


def test_a_local_function_with_constants_of_the_caller() -> None:
    text = beside("b = local.scale(a, k, o)", constants=", float[4,1,1] k, float[4,1,1] o")
    check(text + SCALE, header=LOCAL, a="abcd", c="efghi")


def test_a_local_function_that_calls_another_and_convolves() -> None:
    """A residual block as a function, called with two weights of the caller."""
    body = "b1 = local.block(a, k1) b = local.block(b1, k2)"
    text = beside(body, constants=", float[4,4,3,3] k1, float[4,4,3,3] k2") + SWISH + BLOCK
    graph = Graph(model(text, header=LOCAL))
    inner = [f.node for f in find_groups(graph).filters if f.node not in {"a", "c", "y"}]
    assert len(inner) == 2
    check(text, header=LOCAL, a="abcd", c="efghi", **dict.fromkeys(inner, "abcd"))


def test_a_count_written_inside_a_local_function_holds_the_channels() -> None:
    """Its body is shared by all calls and cannot be restated for one of them."""
    text = beside("b = local.shuffle(a)") + RESHAPES
    check(text, header=LOCAL, a="ABCD", c="efghi")


BEHIND = {
    "a convolution": ("b = com.microsoft.Trilu(a)", {}),
    "one behind an activation": ("t = com.microsoft.Trilu(a) b = Relu(t)", {}),
    "a transposed one": ("t = com.microsoft.Trilu(a) b = ConvTranspose(t, k)", {"b": "jklm"}),
    "a depthwise one": ("t = com.microsoft.Trilu(a) b = Conv<group=4>(t, d)", {"b": "JKLM"}),
}


@pytest.mark.parametrize(("body", "own"), BEHIND.values(), ids=list(BEHIND))
def test_behind_an_unknown_operator_the_weight_says_what_is_read(
    body: str, own: dict[str, str]
) -> None:
    text = beside(body, constants=", float[4,4,1,1] k, float[4,1,1,1] d")
    check(text, header=MICROSOFT, why="an operator", a="ABCD", c="efghi", **own)


def test_what_does_not_fit_the_sizes_supposed_behind_an_unknown_operator_stays() -> None:
    """The operator makes 4 x 4 of 8 x 8, which nobody can know: the sum with another map stays."""
    text = """
    g (float[N,3,8,8] x, float[N,5,4,4] other) => (float[N,2,4,4] y)
    <float[4,3,1,1] w, float[5,4,1,1] u, float[6,5,1,1] t, float[2,6,1,1] v> {
      a = Conv(x, w)
      b = acme.Halve(a)
      c = Conv(b, u)
      s = Add(c, other)
      d = Conv(s, t)
      y = Conv(d, v)
    }
    """
    header = '<ir_version: 8, opset_import: ["": 17, "acme": 1]>'
    groups = find_groups(Graph(model(text, header=header)))
    filters = {"a": "ABCD", "c": "EFGHI", "d": "jklmno"}
    check_channels(groups, filters, "whose output shape is not known")


@pytest.mark.parametrize("domain", ["", "acme"])
def test_a_plugin_without_schema_and_import_is_an_unknown_operator(domain: str) -> None:
    proto = model(beside("b = Relu(a)"))
    proto.graph.node[1].op_type, proto.graph.node[1].domain = "Plugin_TRT", domain
    graph = Graph(proto)
    groups = find_groups(graph)
    check_channels(
        groups, {"a": "ABCD", "c": "efghi"}, "Plugin_TRT 'b', an operator that onnxprune"
    )
    pruned = remove_channels(graph, groups, some(groups, 0.5, 0))
    assert pruned.graph.node[1] == proto.graph.node[1]
    assert [entry.domain for entry in pruned.opset_import] == [""]
