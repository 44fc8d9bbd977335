"""Reading models: what is known of their tensors, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.graph.storage import load_model
from onnxprune.ops import MOVES
from tests.support.models import model, run

FLATTENED = """
g (float[N,3,6,6] x) => (float[N,M] y) <float[4,3,3,3] w> {
  a = Conv(x, w)
  n = Shape<start=0, end=1>(a)
  k = Constant<value_ints=[-1]>()
  s = Concat<axis=0>(n, k)
  y = Reshape(a, s)
}
"""


def test_computed_shapes_are_followed_without_running_the_model() -> None:
    graph = Graph(model(FLATTENED))
    assert graph.shape("y") == (1, 64)
    assert graph.facts.values["s"].tolist() == [1, -1]
    assert graph.facts.counts["s"] == {"a"}


def test_open_axes_are_told_from_fixed_ones() -> None:
    graph = Graph(model(FLATTENED))
    assert graph.dynamic("a") == (True, False, False, False)
    assert graph.dynamic("y") == (True, False)


def test_weights_listed_as_inputs_are_constants() -> None:
    proto = model(
        "g (float[N,3,6,6] x) => (float[N,4,4,4] y) <float[4,3,3,3] w> { y = Conv(x, w) }"
    )
    proto.graph.input.append(onnx.helper.make_tensor_value_info("w", 1, [4, 3, 3, 3]))
    assert Graph(proto).inputs == ("x",)


def test_what_is_worked_out_from_constants_alone_is_constant() -> None:
    text = """
    g (float[N,4] x) => (float[N,4] y)
    <float[4,4] w, float[4] b, bool t = {1}> {
      i = Constant<value_ints=[0]>()
      turned = Transpose(w)
      more = Unsqueeze(b, i)
      moved = Add(turned, more)
      z = MatMul(x, moved)
      y = If(t) <then_branch = one () => (float[N,4] o) { o = Relu(z) },
                 else_branch = two () => (float[N,4] o) { o = Abs(z) }>
    }
    """
    found = Graph(model(text)).constant_names
    assert found == {"w", "b", "t", "i", "turned", "more", "moved"}


def test_how_channels_cross_a_node_depends_on_what_is_constant() -> None:
    text = """
    g (float[N,4] x) => (float[N,N] y) <float[4,4] w> {
      t = Transpose(w)
      a = MatMul(x, t)
      u = Transpose(x)
      b = MatMul(a, u)
      y = my.Mystery(b)
    }
    """
    graph = Graph(model(text, header='<ir_version: 8, opset_import: ["": 17, "my": 1]>'))
    hows = {node.outputs[0]: graph.how(node) for node in graph.nodes}
    assert hows["t"] == MOVES
    assert [hows[name].pattern for name in "ab"] == ["x z, z y -> x y", "x Z, Z y -> x y"]
    assert hows["y"] is None


def test_node_names_are_unique_even_where_the_model_repeats_them() -> None:
    proto = model("g (float[N,3] x) => (float[N,3] y) { a = Relu(x)\n y = Relu(a) }")
    for node in proto.graph.node:
        node.name = "relu"
    assert [node.name for node in Graph(proto).nodes] == ["relu", "y"]


@given(
    channels=st.integers(1, 5),
    size=st.integers(3, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 2),
)
@settings(max_examples=20, deadline=None)
def test_shapes_are_those_onnxruntime_produces(
    channels: int, size: int, kernel: int, stride: int, pad: int
) -> None:
    proto = model(
        f"""
        g (float[N,{channels},{size},{size}] x) => (float[N,M] f)
        <float[4,{channels},{kernel},{kernel}] w> {{
          a = Conv<strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}]>(x, w)
          f = Flatten(a)
        }}
        """
    )
    x = np.zeros((1, channels, size, size), np.float32)
    assert Graph(proto).shape("f") == run(proto, x)[0].shape


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InvalidModel, match=r"nowhere\.onnx: no such file"):
        load_model("nowhere.onnx")


@pytest.mark.parametrize("content", [b"", b"hello world, not a model", b"\x08\x07\x12\xff\xff"])
def test_what_is_not_onnx_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InvalidModel, match=r"model\.onnx: not an ONNX model"):
        Graph.load(path)


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(model(FLATTENED).SerializeToString()[:-40])
    with pytest.raises(InvalidModel, match=r"model\.onnx: not an ONNX model, or cut short"):
        Graph.load(path)


def test_an_invalid_graph_is_refused_with_its_first_fault() -> None:
    proto = model("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    proto.graph.node[0].input[0] = "nobody"
    with pytest.raises(InvalidModel, match="not valid ONNX"):
        Graph(proto)


def test_several_inputs_have_no_image() -> None:
    proto = model("g (float[N,3] x, float[N,3] z) => (float[N,3] y) { y = Add(x, z) }")
    with pytest.raises(InvalidModel, match=r"has 2 inputs \(x, z\)"):
        _ = Graph(proto).image


def test_an_axis_that_the_model_names_is_as_long_wherever_it_is_declared() -> None:
    """Of an operator that ONNX does not know, all that is known is what the model declares."""
    text = """
    g (float[N,3,H,W] x) => (float[N,4,H,W] y) { y = my.Mystery(x) }
    """
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "my": 1]> {text}')
    assert Graph(proto, input_shapes={"x": (1, 3, 16, 20)}).shape("y") == (1, 4, 16, 20)
    assert Graph(proto).shape("y") == (1, 4, 224, 224)


def test_what_a_subgraph_reads_is_read_by_the_node_that_holds_it() -> None:
    text = """
    g (float[N,4] x) => (float[N,4] y) {
      a = Relu(x)
      s = SplitToSequence(x)
      t = SequenceMap(s) <body = each (float[M,4] r) => (float[N,4] o) { o = Add(a, r) }>
      b = ConcatFromSequence<axis=0>(t)
      y = Exp(b)
    }
    """
    graph = Graph(model(text))
    readers = {name: [node.op_type for node in nodes] for name, nodes in graph.consumers.items()}
    assert readers == {
        **{"x": ["Relu", "SplitToSequence"], "s": ["SequenceMap"], "a": ["SequenceMap"]},
        **{"t": ["ConcatFromSequence"], "b": ["Exp"]},
    }


def test_nodes_of_both_branches_are_nodes_of_the_graph() -> None:
    text = """
    g (float[N,4] x, bool t) => (float[N,4] y) {
      a = Relu(x)
      b = If(t) <then_branch = one () => (float[N,4] o) { o = Neg(a) },
                 else_branch = two () => (float[N,4] o) { o = Abs(x) }>
      y = Exp(b)
    }
    """
    graph = Graph(model(text))
    written = [(node.op_type, node.outputs[0]) for node in graph.nodes]
    assert written == [
        *(("Relu", "a"), ("Neg", "o"), ("Abs", "o_0"), ("If", "b"), ("Exp", "y")),
    ]
    assert graph.nodes[3].inputs == ("t", "o", "o_0")
    assert [graph.shape(name) for name in ("o", "o_0", "b")] == [(1, 4)] * 3
