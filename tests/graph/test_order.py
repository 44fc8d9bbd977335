"""Nodes that stand in another order than they run in are sorted; circles are refused."""

import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import FunctionProto, GraphProto, ModelProto

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.graph.order import is_sorted, sort_nodes
from onnxprune.graph.storage import load_model
from onnxprune.surgery.removal import remove_channels
from tests.support.models import RESIDUAL, images, model, run

BRANCHES = """
g (float[N,3,6,6] x, bool t) => (float[N,2,6,6] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
  a = Conv(x, w)
  b = If(t) <then_branch = one () => (float[N,4,6,6] o) { p = Relu(a)  q = Abs(p)  o = Neg(q) },
             else_branch = two () => (float[N,4,6,6] u) { r = Abs(a)  u = Relu(r) }>
  y = Conv(b, v)
}
"""
FUNCTION = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y) <float[4,3,1,1] w, float[2,4,1,1] v> {
  a = Conv(x, w)
  b = my.twice(a)
  y = Conv(b, v)
}
<domain: "my", opset_import: ["": 17]>
twice (x) => (y) { r = Relu(x)  s = Abs(r)  y = Neg(s) }
"""
HEADER = '<ir_version: 8, opset_import: ["": 17, "my": 1]>'


def bodies(proto: ModelProto) -> list[GraphProto | FunctionProto]:
    inner = [a.g for node in proto.graph.node for a in node.attribute if a.HasField("g")]
    return [proto.graph, *inner, *proto.functions]


def outputs(body: GraphProto | FunctionProto) -> list[str]:
    return sorted(name for node in body.node for name in node.output)


def shuffled(proto: ModelProto, seed: int) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(proto)
    rng = random.Random(seed)
    for body in bodies(copy):
        body.node.sort(key=lambda _: rng.random())
    return copy


@pytest.mark.parametrize("text", [RESIDUAL, BRANCHES, FUNCTION])
@given(seed=st.integers(0, 10**6))
def test_nodes_in_any_order_are_one_model(text: str, seed: int) -> None:
    proto = model(text, header=HEADER)
    mixed = sort_nodes(shuffled(proto, seed))
    assert is_sorted(mixed)
    onnx.checker.check_model(mixed, full_check=True)
    for one, other in zip(bodies(proto), bodies(mixed), strict=True):
        assert outputs(one) == outputs(other)


def test_nodes_that_are_in_order_keep_their_places() -> None:
    proto = model(RESIDUAL)
    node = proto.graph.node.pop(3)  # Conv(c, w3), of which the sum that follows is the reader
    proto.graph.node.append(node)
    written = [node.output[0] for node in sort_nodes(proto).graph.node]
    assert written == ["a", "b", "c", "d", "s", "p", "f", "y"]


def test_a_node_moves_no_farther_than_it_must() -> None:
    """The first two read what comes last; the others, which could run in any order, stay."""
    proto = model("""
    g (float[N,3] x) => (float[N,3] y) {
      t = Relu(x)  p = Neg(x)  q = Abs(x)  r = Exp(x)
      s = Neg(t)   u = Abs(t)  y = Sum(s, u, p, q, r)
    }
    """)
    nodes = {node.output[0]: node for node in proto.graph.node}
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[name] for name in "supqrty")
    assert [node.output[0] for node in sort_nodes(proto).graph.node] == list("pqrtsuy")


@pytest.mark.parametrize("seed", range(3))
def test_an_unsorted_model_is_pruned_as_the_sorted_one(seed: int, tmp_path: Path) -> None:
    proto, path = model(RESIDUAL), tmp_path / "model.onnx"
    mixed = shuffled(proto, seed)
    mixed.graph.node.insert(0, mixed.graph.node.pop())
    assert not is_sorted(mixed)
    before = mixed.SerializeToString()
    onnx.save(mixed, path)
    x = images(proto, 2)
    dead = np.arange(12) == 1
    expected = run(remove_channels(Graph(proto), find_groups(Graph(proto)), dead), x)[0]
    for graph in (Graph(mixed), Graph.load(path), Graph(load_model(path))):
        pruned = remove_channels(graph, find_groups(graph), dead)
        onnx.checker.check_model(pruned, full_check=True)
        np.testing.assert_allclose(run(pruned, x)[0], expected, rtol=1e-5)
    assert mixed.SerializeToString() == before


def circle(proto: ModelProto, body: int) -> ModelProto:
    nodes = bodies(proto)[body].node
    nodes[0].input[0] = nodes[1].output[0]
    return proto


@pytest.mark.parametrize(("text", "body"), [(RESIDUAL, 0), (BRANCHES, 1), (FUNCTION, 1)])
def test_a_circle_is_refused_by_name(text: str, body: int) -> None:
    proto = circle(model(text, header=HEADER), body)
    names = [f"'{node.output[0]}'" for node in bodies(proto)[body].node[:2]]
    with pytest.raises(InvalidModel) as caught:
        Graph(proto)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)
    assert "circle" in str(caught.value)


def test_a_node_that_reads_itself_is_a_circle() -> None:
    proto = model(RESIDUAL)
    proto.graph.node[2].input[0] = "c"
    with pytest.raises(InvalidModel, match="'c'"):
        Graph(proto)
