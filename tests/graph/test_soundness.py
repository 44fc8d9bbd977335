"""A model that is not what it says is refused in one line, before anything is allocated for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from onnxprune.channels import find_groups
from onnxprune.errors import InvalidModel, InvalidValue
from onnxprune.graph import Graph, load_model
from onnxprune.graph.soundness import MOST_NODES, NODES, check_sound
from tests.fuzz.models import functions
from tests.support.models import model

NET = """
g (float[N,3,8,8] x) => (float[N,5] y) <float[4,3,3,3] w, float[4] b, float[144,5] v> {
  c = Conv(x, w, b)
  r = LeakyRelu<alpha=0.1>(c)
  f = Flatten(r)
  y = MatMul(f, v)
}
"""


def constant(**fields: object) -> Callable[[ModelProto], None]:
    """Put a Constant in front whose tensor has these fields."""

    def spoil(proto: ModelProto) -> None:
        node = proto.graph.node.add(op_type="Constant", name="k", output=["k"])
        tensor = TensorProto(name="t", **fields)
        node.attribute.add(name="value", type=AttributeProto.TENSOR, t=tensor)

    return spoil


def weight(**fields: object) -> Callable[[ModelProto], None]:
    """Add an initializer that has these fields."""

    def spoil(proto: ModelProto) -> None:
        proto.graph.initializer.add(name="t", **fields)

    return spoil


def first(change: Callable[[ModelProto], object]) -> Callable[[ModelProto], None]:
    """Change a model, whatever the change returns."""

    def spoil(proto: ModelProto) -> None:
        change(proto)

    return spoil


def leaky(proto: ModelProto) -> AttributeProto:
    return proto.graph.node[1].attribute[0]


def loops(proto: ModelProto) -> None:
    for name, inner in (("one", "two"), ("two", "one")):
        node = helper.make_node(inner, ["a"], ["b"], domain="own")
        made = helper.make_function("own", name, ["a"], ["b"], [node], proto.opset_import)
        proto.functions.append(made)


def doubles(proto: ModelProto) -> None:
    proto.CopyFrom(functions(40, 2))


def deep(proto: ModelProto) -> None:
    proto.CopyFrom(functions(150, 1))


FLOAT = TensorProto.FLOAT
SPOILT = {
    "raw too short": (weight(dims=[4], data_type=FLOAT, raw_data=b"123"), "do not fill"),
    "raw too long": (weight(dims=[1], data_type=FLOAT, raw_data=bytes(8)), "do not fill"),
    "no values": (weight(dims=[10**12], data_type=FLOAT), "do not fill"),
    "large and short": (
        weight(dims=[2**16], data_type=FLOAT, raw_data=bytes(4 * 2**16 - 1)),
        "do not fill",
    ),
    "typed and short": (weight(dims=[3], data_type=FLOAT, float_data=[1, 2]), "do not fill"),
    "complex": (weight(dims=[2], data_type=TensorProto.COMPLEX64, float_data=[1, 2, 3]), "do not"),
    "four bits": (weight(dims=[3], data_type=TensorProto.INT4, raw_data=b"1"), "do not fill"),
    "words that are no text": (
        weight(dims=[1], data_type=TensorProto.STRING, string_data=[b"\xff"]),
        "do not fill",
    ),
    "a part of a tensor": (
        weight(dims=[1], data_type=FLOAT, raw_data=bytes(4), segment=TensorProto.Segment(end=1)),
        "do not fill",
    ),
    "in a Constant": (
        constant(dims=[4], data_type=FLOAT, raw_data=b"123"),
        "Constant 'k'.*'value'",
    ),
    "negative": (weight(dims=[-4], data_type=FLOAT, raw_data=bytes(16)), "negative size"),
    "no such type": (weight(dims=[1], data_type=99, raw_data=bytes(4)), "element type 99"),
    "no type": (constant(dims=[1], raw_data=bytes(4)), "element type 0"),
    "an input of no such type": (
        first(lambda p: setattr(p.graph.input[0].type.tensor_type, "elem_type", 99)),
        "'x': has element type 99",
    ),
    "elsewhere": (
        weight(dims=[1], data_type=FLOAT, data_location=TensorProto.EXTERNAL),
        "weight 't': its values are in another file",
    ),
    "an attribute without a type": (
        first(lambda p: setattr(leaky(p), "type", AttributeProto.UNDEFINED)),
        "LeakyRelu .*attribute 'alpha': has no type",
    ),
    "an attribute of a function": (
        first(lambda p: setattr(leaky(p), "ref_attr_name", "slope")),
        "stands for 'slope' of a function",
    ),
    "a version of long ago": (
        first(lambda p: setattr(p.opset_import[0], "version", -1)),
        "imports version -1",
    ),
    "a version beyond numbers": (
        first(lambda p: setattr(p.opset_import[0], "version", 2**62)),
        "imports version",
    ),
    "a window beyond all images": (
        first(lambda p: p.graph.node[0].attribute.add(name="pads", type=7, ints=[1, 1, 2**62, 1])),
        "attribute 'pads': states a size beyond",
    ),
    "axes before the first": (
        first(lambda p: p.graph.node[1].attribute.add(name="batch_dims", type=2, i=-4)),
        "attribute 'batch_dims': is -4; expected 0 or more",
    ),
    "more outputs than there are": (
        first(lambda p: p.graph.node[1].attribute.add(name="num_outputs", type=2, i=2**31 - 1)),
        "is 2147483647, and the node has 1 outputs",
    ),
    "no outputs": (first(lambda p: p.graph.ClearField("output")), "has no outputs"),
    "functions in a circle": (loops, "function '.*': calls itself"),
    "functions that double": (doubles, f"at most {MOST_NODES:,} are handled"),
    "functions one in another": (deep, "call chain depth|cannot be written out"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_contradicts_itself_is_refused(name: str, tmp_path: Path) -> None:
    spoil, said = SPOILT[name]
    proto = model(NET)
    spoil(proto)
    begun = time.process_time()
    with pytest.raises(InvalidModel, match=said) as caught:
        Graph(proto)
    assert time.process_time() - begun < 5
    assert str(caught.value).isprintable()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidModel):
        Graph.load(path)


def relus(proto: ModelProto) -> None:
    """Lengthen the network by 20 nodes."""
    for k in range(20):
        proto.graph.node.add(op_type="Relu", name=f"r{k}", input=["c"], output=[f"r{k}"])


def wide(proto: ModelProto) -> None:
    """Add a node of 300 inputs."""
    proto.graph.node.add(op_type="Sum", name="wide", input=["c"] * 300, output=["wide"])


@pytest.mark.parametrize(
    ("lengthen", "says"), [(relus, "24 nodes; at most 23 are"), (wide, "in.*of nodes; at most 230")]
)
def test_the_environment_says_how_large_a_model_may_be(
    lengthen: Callable[[ModelProto], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    proto = model(NET)
    lengthen(proto)
    Graph(proto)
    monkeypatch.setenv(NODES, "23")
    with pytest.raises(InvalidModel, match=f"{says}.*set ONNXPRUNE_NODES .now 23"):
        Graph(proto)
    monkeypatch.setenv(NODES, "32")
    Graph(proto)
    monkeypatch.setenv(NODES, "many")
    with pytest.raises(InvalidValue, match="ONNXPRUNE_NODES 'many': expected a whole number"):
        Graph(proto)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(InvalidValue, match="ONNXPRUNE_NODES 'many': expected a whole number"):
        load_model(tmp_path / "model.onnx")


NAMED = """
graph_g (float[axis_n,3,8,8] image_x) => (float[axis_n,4,6,6] made_y) <float[4,3,3,3] weight_w> {
  made_c = Conv<pads=[0,0,0,0]>(image_x, weight_w)
  made_y = Relu(made_c)
}
"""
NAMES = "graph_g axis_n image_x weight_w made_c made_y pads Conv"


@pytest.mark.parametrize("name", NAMES.split())
def test_names_that_are_no_text_are_refused(name: str, tmp_path: Path) -> None:
    data = model(NAMED).SerializeToString()
    spoilt = data.replace(name.encode(), b"\xff" + name[1:].encode())
    assert spoilt != data
    path = tmp_path / "model.onnx"
    path.write_bytes(spoilt)
    with pytest.raises(InvalidModel, match="is not UTF-8"):
        Graph.load(path)


KINDS = {
    **{kind: np.ones((3, 5), helper.tensor_dtype_to_np_dtype(kind)) for kind in (1, 6, 7, 10, 11)},
    **{kind: np.ones((3, 5), helper.tensor_dtype_to_np_dtype(kind)) for kind in (3, 9, 16, 17)},
    **{kind: np.ones(7, helper.tensor_dtype_to_np_dtype(kind)) for kind in (14, 15, 21, 22)},
    8: np.array(["a", "b"], object),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("raw", [True, False])
def test_weights_of_all_types_are_taken(kind: int, raw: bool) -> None:
    array, proto = KINDS[kind], model(NET)
    if raw:
        tensor = numpy_helper.from_array(array, "t")
    else:
        values = array.astype(np.float64) if kind in (16, 17, 21, 22) else array
        tensor = helper.make_tensor("t", kind, array.shape, values.ravel().tolist())
    proto.graph.initializer.append(tensor)
    check_sound(proto)
    proto.graph.initializer[-1].dims[0] += 4
    with pytest.raises(InvalidModel, match="do not fill"):
        check_sound(proto)


@pytest.mark.parametrize("suffix", [".json", ".txt", ".txtpb", ".onnxtxt", ".pbtxt", ".onnx"])
def test_a_model_as_text_is_no_model(suffix: str, tmp_path: Path) -> None:
    """ONNX's own parsers of text crash on some, so that none of them is asked."""
    path = tmp_path / f"model{suffix}"
    for text in (onnx.printer.to_text(model(NET)), "{}", "<ir_version: 8>\n" + "<" * 9000):
        path.write_text(text)
        with pytest.raises(InvalidModel, match="not an ONNX model"):
            load_model(path)


@pytest.mark.parametrize("suffix", [".json", ".txt", ""])
def test_a_model_is_read_whatever_its_file_is_called(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(model(NET).SerializeToString())
    assert Graph.load(path).outputs == ("y",)


ELSEWHERE = {
    "no such file": ({"location": "w.bin"}, "'w.bin', which is not in"),
    "outside": ({"location": "../w.bin"}, "is no file in the folder"),
    "of the system": ({"location": "/etc/passwd"}, "is no file in the folder"),
    "nowhere": ({}, "is no file in the folder"),
    "a long name": ({"location": "w" * 5000}, "which is not in"),
    "a folder": ({"location": "folder"}, "which is not in"),
    "beyond the end": ({"location": "here.bin", "offset": "4", "length": "99"}, "end at byte 103"),
    "no number": ({"location": "here.bin", "offset": "x"}, "no valid place"),
    "a number of many digits": ({"location": "here.bin", "length": "9" * 5000}, "no valid place"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_external_data_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    said, message = ELSEWHERE[name]
    proto = model(NET)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in said.items():
        tensor.external_data.add(key=key, value=value)
    (tmp_path / "here.bin").write_bytes(bytes(8))
    (tmp_path / "folder").mkdir()
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InvalidModel, match=message) as caught:
        load_model(path)
    assert len(str(caught.value)) <= 2000


HUGE = """
g (float[N,3,{h},{w}] x) => (float[N,a,b,c] y) <float[4,3,1,1] w, float[2,4,1,1] v{more}> {{
  c = Conv(x, w) {body} y = Conv(d, v)
}}
"""


@pytest.mark.parametrize(
    ("h", "w", "body", "more"),
    [
        (10**9, 10**9, "d = Relu(c)", ""),
        (5, 5, "d = Expand(c, s)", ", int64[4] s = {1, 4, 1000000000, 1000000000}"),
        (5, 5, "k = ConstantOfShape(s) d = Add(c, k)", ", int64[3] s = {10000000000, 1, 1}"),
        (5, 5, "d = Tile(c, s)", ", int64[4] s = {1, 1000000000, 1, 1}"),
        (8000, 8000, "d = Reshape(c, s)", ", int64[4] s = {1, -1, 2, 2}"),
    ],
)
def test_nothing_is_allocated_for_a_size_that_is_only_said(
    h: int, w: int, body: str, more: str
) -> None:
    text = HUGE.format(h=h, w=w, body=body, more=more)
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    for name, shape in (("w", (4, 3, 1, 1)), ("v", (2, 4, 1, 1))):
        proto.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    del proto.graph.value_info[:]
    begun = time.process_time()
    try:
        find_groups(Graph(proto))
    except InvalidModel as error:
        assert str(error).isprintable()
    assert time.process_time() - begun < 5
