"""What of a network is drawn, on small graphs in ONNX text: names are those of output tensors."""

import pytest

from onnxprune import Graph, find_groups
from onnxprune.report.skeleton import Vertex, find_vertices
from tests.support.models import model


def vertices_of(text: str, header: str | None = None) -> list[Vertex]:
    proto = model(text) if header is None else model(text, header=header)
    graph = Graph(proto)
    return find_vertices(graph, find_groups(graph))


def edges(text: str) -> dict[str, list[str]]:
    """What each vertex reads, by the names of output tensors, without the network's output."""
    vertices = vertices_of(text)
    return {
        vertex.tensor: [vertices[source].tensor for source in vertex.sources]
        for vertex in vertices
        if vertex.kind != "output"
    }


def net(body: str, weights: str = "") -> str:
    """A net of ten channels from `a` to `z`; `body` leads from one to the other."""
    return f"""
    net (float[N,3,8,8] x) => (float[N,4,H,W] y)
    <float[10,3,1,1] wa, float[4,10,1,1] wy{weights}> {{
      a = Conv(x, wa)
      {body}
      y = Conv(z, wy)
    }}
    """


@pytest.mark.parametrize(
    "body",
    [
        "z = Relu(a)",
        "s = Sigmoid(a) z = Mul(a, s)",
        "z = BatchNormalization(a, c, c, c, var)",
        "z = Add(a, k)",
        "r = Relu(a) t = Transpose<perm=[0,2,3,1]>(r) z = Transpose<perm=[0,3,1,2]>(t)",
        "m = ReduceMean<axes=[2,3]>(a) s = Sub(a, m) z = Mul(s, k)",
    ],
    ids=["activation", "swish", "batchnorm", "bias", "transpose", "centred"],
)
def test_what_goes_on_from_one_tensor_alone_is_passed_over(body: str) -> None:
    weights = ", float[10] c, float[10] var, float[10,1,1] k"
    found = edges(net(body, weights))
    if "ReduceMean" in body:  # a pool of the whole image is drawn, and so is what it joins
        assert found.pop("m") == ["a"]
        assert found == {"x": [], "a": ["x"], "s": ["a", "m"], "y": ["s"]}
    else:
        assert found == {"x": [], "a": ["x"], "y": ["a"]}


@pytest.mark.parametrize(
    "body",
    [
        "z = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
        "z = GlobalAveragePool(a)",
        "z = Resize<mode='nearest'>(a, , k)",
        "b = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) z = Relu(b)",
    ],
    ids=["stride 1", "global", "resize", "stride 2"],
)
def test_pools_and_resizes_are_drawn(body: str) -> None:
    name = "b" if "b =" in body else "z"
    text = net(body.replace("'", '"'), ", float[4] k = {1, 1, 2, 2}")
    assert edges(text) == {"x": [], "a": ["x"], name: ["a"], "y": [name]}


def test_a_gate_with_weights_is_a_join() -> None:
    body = "p = GlobalAveragePool(a) g = Conv(p, wg) s = Sigmoid(g) z = Mul(a, s)"
    found = edges(net(body, ", float[10,10,1,1] wg"))
    assert found["z"] == ["a", "g"]
    assert found["g"] == ["p"]


def test_a_concat_of_what_an_earlier_one_joined_goes_on_from_it() -> None:
    body = """
      b = Conv(a, wb)
      ab = Concat<axis=1>(a, b)
      c = Conv(ab, wc)
      abc = Concat<axis=1>(a, b, c)
      d = Conv(abc, wd)
      abcd = Concat<axis=1>(a, b, c, d)
      z = Conv(abcd, wz)
    """
    weights = ", float[2,10,1,1] wb, float[2,12,1,1] wc, float[2,14,1,1] wd, float[10,16,1,1] wz"
    found = edges(net(body, weights))
    assert found["ab"] == ["a", "b"]
    assert found["abc"] == ["ab", "c"]
    assert found["abcd"] == ["abc", "d"]


def test_sums_of_the_same_parts_are_not_shortened() -> None:
    body = "b = Conv(a, wb) s = Add(a, b) c = Conv(s, wb) z = Sum(a, b, c)"
    assert edges(net(body, ", float[10,10,1,1] wb"))["z"] == ["a", "b", "c"]


def test_shape_arithmetic_is_not_drawn() -> None:
    text = """
    net (float[N,3,4,4] x) => (float[N,2] y)
    <float[5,3,1,1] wa, float[80,2] wy, int64[1] i = {0}, int64[1] last = {-1}> {
      a = Conv(x, wa)
      s = Shape(a)
      n = Gather<axis=0>(s, i)
      t = Concat<axis=0>(n, last)
      f = Reshape(a, t)
      y = MatMul(f, wy)
    }
    """
    assert edges(text) == {"x": [], "a": ["x"], "y": ["a"]}
    assert [vertex.kind for vertex in vertices_of(text)] == ["input", "filters", "dense", "output"]


def test_what_no_output_depends_on_is_not_drawn() -> None:
    assert set(edges(net("z = Relu(a) lost = Conv(a, wy)"))) == {"x", "a", "y"}


def test_what_pins_is_drawn_and_so_is_what_is_not_known() -> None:
    body = "t = Transpose<perm=[0,2,3,1]>(a) u = LayerNormalization(t, k) " + (
        "z = Transpose<perm=[0,3,1,2]>(u)"
    )
    assert edges(net(body, ", float[10] k"))["u"] == ["a"]
    header = '<ir_version: 8, opset_import: ["": 17, "acme": 1]>'
    found = vertices_of(net("z = acme.Widget(a)"), header)
    assert [vertex.node.op_type for vertex in found if vertex.node] == ["Conv", "Widget", "Conv"]


def test_parts_follow_what_they_read() -> None:
    for number, vertex in enumerate(
        vertices_of(net("b = Conv(a, wb) z = Add(b, a)", ", float[10,10,1,1] wb"))
    ):
        assert all(source < number for source in vertex.sources)
