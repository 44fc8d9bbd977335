"""What onnx2tf gets computes what the model does; ncnn gets copies, and what it lacks is named."""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from onnxprune.evaluation import made_up, session
from onnxprune.graph import Graph
from onnxprune.runtimes import fix_axes
from onnxprune.runtimes.litert import IMAGES, convert, prepare
from onnxprune.runtimes.ncnn import NcnnSession
from tests.support.models import model

COMPUTED = model(
    """g (float[N, 3, 8, 8] x) => (float[N, 4, 6, 6] map, float[N, 2, 36] rows)
    <float[4, 3, 3, 3] w, float[2, 36] points, int64[2] split = {2, 2}, int64[1] rest = {-1},
     int64[1] zero = {0}, int64[1] two = {2}> {
        map = Conv(x, w) shape = Shape(map) lead = Slice(shape, zero, two)
        whole = Concat<axis = 0>(lead, rest) flat = Reshape(map, whole)
        one, other = Split<axis = 1>(flat, split) rows = Add(points, one)
    }"""
)
"""A map, and rows whose shape is computed and that meet a constant of fewer axes."""

NAMED = model(
    """g (float[2, 3, 8, 8] first, float[2, 3, 8, 8] second) => (float[2, 3, 8, 8] sum,
    float[2, 3] mean) { sum = Add(first, second) pool = GlobalAveragePool(sum)
    mean = Flatten(pool) }"""
)


def renamed(proto: ModelProto, **names: str) -> ModelProto:
    proto = copy.deepcopy(proto)
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = names.get(value.name, value.name)
    for node in proto.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    return proto


@pytest.mark.parametrize(
    ("proto", "inputs", "outputs"),
    [
        (COMPUTED, ["x"], ["map", "rows"]),
        (NAMED, ["first", "second"], ["sum", "mean"]),
        (
            renamed(NAMED, second="a:0", mean="/mean"),
            ["input_0", "input_1"],
            ["output_0", "output_1"],
        ),
    ],
    ids=["computed", "plain names", "other names"],
)
def test_it_computes_the_same(
    proto: ModelProto, inputs: list[str], outputs: list[str], tmp_path: Path
) -> None:
    fixed = fix_axes(Graph(proto))
    onnx.save(fixed.model, tmp_path / "model.onnx")
    assert prepare(tmp_path / "model.onnx", tmp_path / "prepared.onnx") == inputs
    ready = onnx.load(tmp_path / "prepared.onnx")
    onnx.checker.check_model(ready, full_check=True)
    assert [value.name for value in ready.graph.output] == outputs
    feeds = made_up(Graph(fixed.model))
    assert feeds is not None
    expected = session(fixed.model, device="cpu").run(None, feeds)
    given = dict(zip(inputs, feeds.values(), strict=True))
    found = session(ready, device="cpu").run(None, given)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-6)


def test_no_shape_is_computed_and_no_map_comes_out_as_it_is(tmp_path: Path) -> None:
    onnx.save(fix_axes(Graph(COMPUTED)).model, tmp_path / "model.onnx")
    prepare(tmp_path / "model.onnx", tmp_path / "prepared.onnx")
    graph = Graph.load(tmp_path / "prepared.onnx")
    assert not {"Shape", "Slice", "Concat"} & {node.op_type for node in graph.model.graph.node}
    (add,) = (node for node in graph.nodes if node.proto.op_type == "Add")
    assert {len(graph.shape(name) or ()) for name in add.inputs} == {3}
    for name in ("map", "rows"):
        flat = graph.producers[graph.producers[name].inputs[0]]
        assert graph.shape(flat.outputs[0]) == (np.prod(graph.shape(name)),)


TURNED = model(
    """g (float[N, 5, 4, 4] x) => (float[N, 7, 7, 6] y)
    <float[3, 3, 5, 6] k, int64[2] s = {-1, 5}, int64[2] e = {-4, -9}, int64[2] a = {0, 1},
     int64[2] b = {-1, -1}, float[6] bias> {
        f = Slice(k, s, e, a, b) v = Transpose<perm = [2, 3, 0, 1]>(f)
        c = ConvTranspose<strides = [2, 2], pads = [1, 1, 1, 1]>(x, v)
        t = Transpose<perm = [0, 2, 3, 1]>(c) y = Add(t, bias)
    }"""
)
"""A kernel that is read backwards, as JAX's exporter writes it: MNN's converter crashes on it."""


def test_kernels_that_are_read_backwards_are_turned_for_runtimes() -> None:
    turned = fix_axes(Graph(TURNED)).model
    assert "Slice" not in {node.op_type for node in turned.graph.node}
    x = made_up(Graph(TURNED))
    assert x is not None
    found, expected = (session(one).run(None, dict(x))[0] for one in (turned, TURNED))
    np.testing.assert_array_equal(found, expected[: len(found)])


def test_the_size_of_a_transposed_kernel_is_written(tmp_path: Path) -> None:
    """Where ONNX leaves it to the weights, onnx2tf takes it for a kernel of no axes."""
    onnx.save(fix_axes(Graph(TURNED)).model, tmp_path / "model.onnx")
    prepare(tmp_path / "model.onnx", tmp_path / "prepared.onnx")
    nodes = onnx.load(tmp_path / "prepared.onnx").graph.node
    (node,) = [node for node in nodes if node.op_type == "ConvTranspose"]
    assert {one.name: list(one.ints) for one in node.attribute}["kernel_shape"] == [3, 3]


def test_nothing_is_fetched_for_pixels_that_come_channels_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnx2tf fetches images from the network unless they lie where it runs."""

    def stand_in(**asked: object) -> None:
        assert np.load(IMAGES).shape == (20, 128, 128, 3)
        assert asked["output_signaturedefs"]
        Path("saved").mkdir()
        Path("saved", "prepared_float32.tflite").write_bytes(b"net")

    onnx.save(fix_axes(Graph(COMPUTED)).model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "onnx2tf", SimpleNamespace(convert=stand_in))
    assert convert(tmp_path / "model.onnx", tmp_path).read_bytes() == b"net"


PARAM = """7767517
3 3
Input      in0    0 1 in0
ReduceMax  max_0  1 1 in0 1
Softmax    out_0  1 1 1 out0 0=0 1=1
"""


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (("Input", "Softmax"), "net.ncnn.param: ncnn has no layer ReduceMax; export the model "),
        (("Input", "Softmax", "ReduceMax"), "net.ncnn.param: ncnn cannot read it"),
    ],
)
def test_a_layer_that_ncnn_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: tuple[str, ...], said: str
) -> None:
    (tmp_path / "net.ncnn.param").write_text(PARAM, encoding="utf-8")
    net = SimpleNamespace(opt=SimpleNamespace(), load_param=lambda path: -1, load_model=None)
    stands_in = SimpleNamespace(Net=lambda: net, layer_to_index=lambda n: int(n in known) - 1)
    monkeypatch.setitem(sys.modules, "ncnn", stands_in)
    with pytest.raises(ValueError, match=said):
        NcnnSession(tmp_path / "net.ncnn.param", 1)


def test_samples_stay_as_they_are_where_ncnn_computes_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers write into what they are given; a network that began with one crashed."""

    class Mat:
        def __init__(self, held: np.ndarray) -> None:
            self.held = held

        def clone(self) -> "Mat":
            return Mat(self.held.copy())

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return self.held

    class Extractor:
        def input(self, name: str, mat: Mat) -> None:
            mat.held *= 2
            self.mat = mat

        def extract(self, name: str) -> tuple[int, Mat]:
            return 0, self.mat

    net = SimpleNamespace(
        opt=SimpleNamespace(),
        load_param=lambda path: 0,
        load_model=lambda path: 0,
        input_names=lambda: ["in0"],
        output_names=lambda: ["out0"],
        create_extractor=Extractor,
    )
    monkeypatch.setitem(sys.modules, "ncnn", SimpleNamespace(Net=lambda: net, Mat=Mat))
    x = np.ones((1, 4, 4, 3), np.float32)
    found = NcnnSession(tmp_path / "net.ncnn.param", 1).run({"in0": x})
    assert (found["out0"] == 2).all()
    assert (x == 1).all()
