"""What a framework knows of a model goes into its metadata, and is used."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.converters import Export, convert, facts
from onnxprune.converters.torchvision import _facts, import_torchvision
from onnxprune.errors import NOTICE
from onnxprune.graph import Graph
from onnxprune.search.scaling import class_names, find_scaling
from tests.support.conversion import refusal

TEXT = """
<ir_version: 9, opset_import: ["": 17]>
g (float[N,8,8,3] x) => (float[N,2] y) <float[4,3,3,3] w, float[4,2] v, float[4] s> {
  t = Transpose <perm = [0, 3, 1, 2]> (x)
  a = Conv (t, w)
  b = Relu (a)
  m = ReduceMean <axes = [2, 3], keepdims = 0> (b)
  y = MatMul (m, v)
}
"""


def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    del proto.graph.initializer[:]
    for name, shape in (("w", (4, 3, 3, 3)), ("v", (4, 2))):
        weight = rng.standard_normal(shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return proto


def export(source: str, options: Any) -> Export:
    proto = model()
    w, v = (onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer)

    def run(x: Any) -> list[Any]:
        patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        sums = np.einsum("nhwiyx,oiyx->nohw", patches, w)
        return [np.maximum(sums, 0).mean((2, 3)) @ v]

    known = facts(preprocess="mean=0.4:std=0.2", names=["cat", "dog"])
    return Export(proto, run, (8, 8, 3), facts=known)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return convert("far/net.mine", tmp_path / "net.onnx", framework=export)


def test_the_metadata_says_what_the_framework_knows(path: Path) -> None:
    said = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert said == {
        "onnxprune.preprocess": "mean=0.4:std=0.2",
        "names": "{0: 'cat', 1: 'dog'}",
        "onnxprune.source": "net.mine",
    }
    graph = Graph.load(path)
    assert find_scaling(graph).preset == "mean=0.4:std=0.2"
    assert class_names(graph) == ("cat", "dog")


def test_a_pruned_model_keeps_its_metadata(path: Path) -> None:
    small = onnxprune.prune(path, rate=0.3, control="one-shot", criterion="magnitude").model
    assert list(small.metadata_props) == list(onnx.load(path).metadata_props)


def test_the_scale_is_used_for_images(path: Path, tmp_path: Path) -> None:
    from PIL import Image

    from onnxprune.search import Settings, open_model

    for name in ("dog", "cat"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (102, 51, 204)).save(tmp_path / "data" / name / "a.png")
    _, data = open_model(onnx.load(path), tmp_path / "data", Settings())
    assert data is not None
    np.testing.assert_allclose(data.x[0, 0, 0], [0.0, -1.0, 2.0], atol=1e-5)
    assert data.classes == ("cat", "dog")


def test_metadata_that_no_preset_fits_is_refused(path: Path) -> None:
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {"onnxprune.preprocess": "mean=a"})
    message = refusal(find_scaling, Graph.load(proto))
    assert "metadata, onnxprune.preprocess: preprocess 'mean=a': expected" in message


def test_published_weights_of_torchvision_say_all() -> None:
    known = _facts(import_torchvision().models, "resnet18", "DEFAULT")
    assert known["onnxprune.preprocess"] == "imagenet"
    assert known["names"].startswith("{0: 'tench', 1: 'goldfish'")


def test_unknown_facts_have_no_key() -> None:
    assert facts() == {}
    assert facts(names={3: "c"}) == {"names": "{3: 'c'}"}


def test_a_batch_that_the_framework_fixed_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fixed(source: str, options: Any) -> Export:
        made = export(source, options)
        made.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        return Export(made.model, made.run, made.sample_shape, batch=1)

    def first(path: Path) -> Any:
        return onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]

    caplog.set_level(NOTICE, "onnxprune.converters")
    assert first(convert("net", tmp_path / "a.onnx", framework=fixed)).dim_value == 1
    assert "its batch is fixed to 1" in caplog.text
    asked = convert("net", tmp_path / "b.onnx", framework=export, dynamic_batch=False)
    assert first(asked).dim_value == 1
    assert first(convert("net", tmp_path / "c.onnx", framework=export)).dim_param == "batch"


def test_every_input_is_made_up(tmp_path: Path) -> None:
    text = """<ir_version: 9, opset_import: ["": 17]>
    g (float[N,2] x, int64[M,3] k, bool[N,K] b) => (float[N,2] y, int64[M,3] z, bool[N,K] c) {
        y = Neg (x)
        z = Neg (k)
        c = Not (b)
    }"""
    seen = []

    def several(source: str, options: Any) -> Export:
        def run(x: Any, k: Any, b: Any) -> list[Any]:
            seen.extend([x, k, b])
            return [-x, -k, ~b] if source == "right" else [-x, k, ~b]

        return Export(onnx.parser.parse_model(text), run, (2,))

    path = convert("right", tmp_path / "net.onnx", framework=several)
    assert [(one.shape, one.dtype.kind) for one in seen] == [
        ((3, 2), "f"),
        ((3, 3), "i"),
        ((3, 4), "b"),
    ]
    firsts = [one.type.tensor_type.shape.dim[0] for one in onnx.load(path).graph.input]
    assert [dim.dim_param for dim in firsts] == ["batch"] * 3
    message = refusal(convert, "wrong", tmp_path / "net.onnx", framework=several)
    assert "output 'z' of the exported model differs" in message


def test_outputs_that_are_only_numbered_get_names(tmp_path: Path) -> None:
    def numbered(source: str, options: Any) -> Export:
        made = export(source, options)
        graph = made.model.graph
        graph.node[-1].output[0] = graph.output[0].name = "32"
        return made

    path = convert("net", tmp_path / "net.onnx", framework=numbered)
    graph = onnx.load(path).graph
    assert graph.output[0].name == graph.node[-1].output[0] == "output"


def test_outputs_that_are_missing_are_noticed(tmp_path: Path) -> None:
    def more(source: str, options: Any) -> Export:
        made = export(source, options)
        return Export(made.model, lambda x: [*made.run(x), x], made.sample_shape)

    message = refusal(convert, "net", tmp_path / "net.onnx", framework=more)
    assert "has 1 outputs, expected 2" in message
