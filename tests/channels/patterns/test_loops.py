"""Networks in the body of a Loop or a Scan: cut inside, and nothing that crosses its border."""

import onnx
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import count, find_costs
from tests.support.assertions import check
from tests.support.models import model

REPEATED = """
g (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[4,3,1,1] w, float[5,4,3,3] u, float[3,5,1,1] v> {
  n = Constant<value_int=3>() go = Constant<value=bool {1}>()
  y = Loop(n, go, x) <body = again (int64 i, bool c0, float[N,3,8,8] s) =>
      (bool c1, float[N,3,8,8] s1) {
        c1 = Identity(c0)
        a = Conv(s, w)
        b = Conv<pads=[1,1,1,1]>(a, u)
        r = Tanh(b)
        d = Conv(r, v)
        s1 = Add(s, d)
      }>
}
"""
STATE = """
g (float[N,3,8,8] x, bool t) => (float[N,2,8,8] y, float[N,4,8,8] z)
<float[4,3,1,1] w, float[4,4,3,3] u, float[2,4,1,1] v> {
  n = Constant<value_int=2>()
  a = Conv(x, w)
  h, z = Loop(n, t, a, a) <body = again (int64 i, bool c0, float[N,4,8,8] s, float[N,4,8,8] t0) =>
      (bool c1, float[N,4,8,8] s1, float[N,4,8,8] t1) {
        c1 = Identity(c0) b = Conv<pads=[1,1,1,1]>(s, u) s1 = Tanh(b) t1 = Neg(s1)
      }>
  y = Conv(h, v)
}
"""
READS_OUTSIDE = """
g (float[N,3,8,8] x) => (float[N,2,8,8] y)
<float[4,3,1,1] w, float[2,4,1,1] v, float[N,2,8,8] zero> {
  n = Constant<value_int=2>()
  a = Conv(x, w)
  first = Conv(x, k)
  y = Loop(n, "", first) <body = again (int64 i, bool c0, float[N,2,8,8] s) =>
      (bool c1, float[N,2,8,8] s1) {
        c1 = Constant<value=bool {1}>() b = Sigmoid(a) d = Conv(b, v) s1 = Add(s, d)
      }>
}
"""
STACKED = """
g (float[N,3,8,8] x) => (float[5,N,2] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
  n = Constant<value_int=5>() go = Constant<value=bool {1}>()
  last, y = Loop(n, go, x) <body = again (int64 i, bool c0, float[N,3,8,8] s) =>
      (bool c1, float[N,3,8,8] s1, float[N,2] o) {
        c1 = Identity(c0) s1 = Sin(s)
        a = Conv(s, w) b = Relu(a) d = Conv(b, v) p = GlobalAveragePool(d) o = Flatten(p)
      }>
}
"""
SCANNED = """
g (float[N,3,8,6] x, float[N,2,8] s) => (float[N,2,8] e, float[N,2,8,6] y)
<float[4,3,1] w, float[5,2,1] u, float[2,4,1] v, float[2,5,1] z> {
  e, y = Scan<num_scan_inputs=1, scan_input_axes=[3], scan_output_axes=[-1],
      body = each (float[N,2,8] s0, float[N,3,8] column) => (float[N,2,8] s1, float[N,2,8] o) {
        a = Conv(column, w) r = Relu(a) f = Conv(r, v)
        b = Conv(s0, u) t = Tanh(b) g = Conv(t, z)
        s1 = Add(f, g) o = Neg(s1)
      }>(s, x)
}
"""
IN_A_BRANCH = """
g (float[N,3,8,8] x, bool t) => (float[N,3,8,8] y) <float[4,3,1,1] w, float[3,4,1,1] v> {
  y = If(t) <
    then_branch = one () => (float[N,3,8,8] p) {
      n = Constant<value_int=3>() go = Constant<value=bool {1}>()
      p = Loop(n, go, x) <body = again (int64 i, bool c0, float[N,3,8,8] s) =>
          (bool c1, float[N,3,8,8] s1) {
            c1 = Identity(c0)
            m = Constant<value_int=2>()
            s1 = Loop(m, c0, s) <body = inner (int64 j, bool d0, float[N,3,8,8] t0) =>
                (bool d1, float[N,3,8,8] t1) {
                  d1 = Identity(d0) a = Conv(t0, w) r = Tanh(a) t1 = Conv(r, v)
                }>
          }>
    },
    else_branch = two () => (float[N,3,8,8] q) { q = Relu(x) }
  >
}
"""
OPENED = {
    "a network that runs three times": (REPEATED, {"a": "abcd", "b": "efghi"}),
    "states": (STATE, {"a": "ABCD", "b": "EFGH"}),
    "what is read from outside": (
        READS_OUTSIDE.replace("float[N,2,8,8] zero", "float[2,3,1,1] k"),
        {"a": "abcd", "first": "EF"},
    ),
    "what is stacked": (STACKED, {"a": "abcd"}),
    "a Scan": (SCANNED, {"a": "abcd", "b": "efghi"}),
    "a Loop in a Loop in an If": (IN_A_BRANCH, {"a": "abcd"}),
}


@pytest.mark.parametrize(("text", "filters"), OPENED.values(), ids=list(OPENED))
def test_bodies_are_cut_inside(text: str, filters: dict[str, str]) -> None:
    proto = model(text)
    graph = Graph(proto)
    groups = find_groups(graph)
    ends = {f.node: "ZYXWV"[: f.channels.size] for f in groups.filters if f.node not in filters}
    check(proto, why="", **filters, **ends)


def test_a_body_with_weights_of_its_own_is_cut() -> None:
    proto = model(REPEATED)
    (loop,) = (node for node in proto.graph.node if node.op_type == "Loop")
    (body,) = (attribute.g for attribute in loop.attribute if attribute.name == "body")
    for name in ("w", "u", "v"):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        body.initializer.append(tensor)
        proto.graph.initializer.remove(tensor)
    onnx.checker.check_model(proto, full_check=True)
    check(proto, a="abcd", b="efghi", d="XYZ")


GROWS = """
g (float[N,3,8,8] x) => (float[N,3,M,8] y)
<float[4,3,1,1] w, float[4,4,3,3] u, float[3,4,1,1] v> {
  n = Constant<value_int=3>() go = Constant<value=bool {1}>()
  y = Loop(n, go, x) <body = again (int64 i, bool c0, float[N,3,M,8] s) =>
      (bool c1, float[N,3,M,8] s1) {
        c1 = Identity(c0)
        a = Conv(s, w)
        b = Conv<pads=[1,1,1,1]>(a, u)
        d = Conv(b, v)
        s1 = Concat<axis=2>(s, d)
      }>
}
"""


def test_a_state_that_grows_has_no_shape() -> None:
    """What the convolutions in the body read is supposed, as behind an unknown operator."""
    graph = Graph(model(GROWS))
    assert graph.facts.unsteady == {"s"} and graph.facts.supposed == {"s"}
    check(GROWS, a="abcd", b="efgh", d="XXX")


@pytest.mark.parametrize(
    ("text", "times"), [(REPEATED, 3), (STACKED, 5), (SCANNED, 6), (IN_A_BRANCH, 6)]
)
def test_multiply_adds_count_every_run_of_a_body(text: str, times: int) -> None:
    proto = model(text)
    whole = count(Graph(proto))
    once = sum(
        places * weights
        for places, weights in {
            REPEATED: [(64, 12), (64, 180), (64, 15)],
            STACKED: [(64, 12), (64, 8)],
            SCANNED: [(8, 12), (8, 10), (8, 8), (8, 10)],
            IN_A_BRANCH: [(64, 12), (64, 12)],
        }[text]
    )
    assert (whole.macs, whole.unknown) == (times * once, ())


@pytest.mark.parametrize(
    "change",
    [
        ("n = Constant<value_int=3>()", "p = ReduceMax<keepdims=0>(x) n = Cast<to=7>(p)"),
        ("c1 = Identity(c0)", "m = ReduceMax<keepdims=0>(s) c1 = Cast<to=9>(m)"),
    ],
    ids=["number", "condition"],
)
def test_runs_that_are_only_known_later_are_said_so(change: tuple[str, str]) -> None:
    text = REPEATED.replace(*change)
    graph = Graph(model(text))
    costs = find_costs(graph, find_groups(graph))
    assert costs.of().unknown == ("a", "b", "d")
    assert "how often Loop 'y' runs its body is not known: it counts once" in costs.caveat
    check(text, a="abcd", b="efghi", d="XYZ")
