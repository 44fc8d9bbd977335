"""Which preset the pixels of image files need: what the model says, and what it is held against."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.data.presets import PRESETS
from onnxprune.errors import DataError
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import open_model, open_unlabelled
from onnxprune.search.scaling import class_names, find_scaling
from onnxprune.search.settings import Settings
from tests.support.coloured import NAMES, folder, network
from tests.support.models import model

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
CAFFE = np.array([103.939, 116.779, 123.68])


def beginning(*lines: str, image: str = "float[N,3,8,8]", **constants: Any) -> ModelProto:
    """A network behind nodes that write `s` of the image `x`."""
    found = (
        model(f"""
    g ({image} x) => (float[N,4,8,8] y) <float[4,3,1,1] w> {{
      {" ".join(lines)}
      y = Conv(s, w)
    }}
    """)
        if not constants
        else None
    )
    if found is not None:
        return found
    text = f"""<ir_version: 8, opset_import: ["": 17]>
    g ({image} x) => (float[N,4,8,8] y) {{
      {" ".join(lines)}
      y = Conv(s, w)
    }}
    """
    parsed = onnx.parser.parse_model(text)
    for name, value in {"w": np.ones((4, 3, 1, 1)), **constants}.items():
        array = np.asarray(value, np.float32)
        parsed.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(parsed, full_check=True)
    return parsed


def per_channel(values: Any) -> Any:
    return np.asarray(values).reshape(1, 3, 1, 1)


def said_of(proto: ModelProto) -> tuple[str, str]:
    found = find_scaling(Graph(proto))
    return found.preset, found.why


@pytest.mark.parametrize(
    ("lines", "constants", "preset"),
    [
        (("d = Div(x, a)", "s = Sub(d, b)"), {"a": 127.5, "b": 1.0}, "raw"),
        (("d = Mul(x, a)", "s = Add(d, b)"), {"a": 1 / 127.5, "b": -1.0}, "raw"),
        (("d = Sub(x, b)", "s = Div(d, a)"), {"a": 128.0, "b": 127.5}, "raw"),
        (("d = Sub(x, b)", "s = Mul(d, a)"), {"a": 0.0078125, "b": 127.5}, "raw"),
        (("s = Div(x, a)",), {"a": 255.0}, "raw"),
        (("s = Sub(x, b)",), {"b": per_channel(CAFFE)}, "raw"),
        (
            ("d = Sub(x, b)", "s = Div(d, a)"),
            {"b": per_channel(255 * MEAN), "a": per_channel(255 * STD)},
            "raw",
        ),
        (
            ("e = Div(x, c)", "d = Sub(e, b)", "s = Div(d, a)"),
            {"c": 255.0, "b": per_channel(MEAN), "a": per_channel(STD)},
            "raw",
        ),
        (
            ("d = Sub(x, b)", "s = Div(d, a)"),
            {"b": per_channel(MEAN), "a": per_channel(STD)},
            "unit",
        ),
        (("d = Mul(x, a)", "s = Sub(d, b)"), {"a": 2.0, "b": 1.0}, "unit"),
        (("d = Sub(b, x)", "s = Mul(d, a)"), {"a": 2.0, "b": 0.5}, "unit"),
        (
            ("e = Sub(c, x)", "d = Mul(e, a)", "s = Sub(d, b)"),
            {"c": 1.0, "a": 2.0, "b": 1.0},
            "unit",
        ),
        (("d = Mul(x, a)", "s = Add(d, b)"), {"a": 0.5, "b": 0.5}, "tf"),
        (
            ("s = BatchNormalization(x, g, b, m, v)",),
            {"g": np.ones(3), "b": np.zeros(3), "m": 255 * MEAN, "v": (255 * STD) ** 2},
            "raw",
        ),
        (
            ("s = BatchNormalization(x, g, b, m, v)",),
            {"g": np.ones(3), "b": np.zeros(3), "m": MEAN, "v": STD**2},
            "unit",
        ),
    ],
)
def test_a_normalisation_in_front_says_what_it_takes(
    lines: tuple[str, ...], constants: dict[str, Any], preset: str
) -> None:
    found, why = said_of(beginning(*lines, **constants))
    assert found == preset
    assert why.startswith("as the graph itself normalises its pixels (")


def test_channels_last_are_followed_through_a_transpose() -> None:
    proto = beginning(
        "d = Sub(x, b)", "t = Transpose<perm=[0,3,1,2]>(d)", "s = Div(t, a)",
        image="float[N,8,8,3]", b=255 * MEAN, a=per_channel(255 * STD),
    )  # fmt: skip
    assert said_of(proto)[0] == "raw"


def test_bytes_are_taken_raw() -> None:
    proto = beginning("c = Cast<to=1>(x)", "s = Div(c, a)", image="uint8[N,3,8,8]", a=255.0)
    assert said_of(proto) == ("raw", "as the model takes uint8")


@pytest.mark.parametrize(
    ("lines", "constants"),
    [
        (("s = Relu(x)",), {}),
        (("s = Identity(x)",), {}),
        (("s = Mul(x, a)",), {"a": 1e-6}),
        (("s = Add(x, a)",), {"a": 0.01}),
    ],
)
def test_what_says_nothing_leaves_the_usual_preset(
    lines: tuple[str, ...], constants: dict[str, Any]
) -> None:
    assert said_of(beginning(*lines, **constants)) == ("imagenet", "")


def test_an_image_that_others_read_too_says_nothing() -> None:
    proto = beginning("d = Div(x, a)", "s = Add(d, x)", a=255.0)
    assert said_of(proto) == ("imagenet", "")


def told(proto: ModelProto, **said: str) -> ModelProto:
    for key, value in said.items():
        proto.metadata_props.add(key=key.replace("__", "."), value=value)
    return proto


@pytest.mark.parametrize(
    ("said", "preset"),
    [
        ({"onnxprune__preprocess": "caffe"}, "caffe"),
        ({"Image__NominalPixelRange": "NominalRange_0_255"}, "raw"),
        (
            {"Image__NominalPixelRange": "Normalized_0_1", "Image__BitmapPixelFormat": "Rgb8"},
            "unit",
        ),
        (
            {"Image__NominalPixelRange": "NominalRange_0_255", "Image__BitmapPixelFormat": "Bgr8"},
            "bgr",
        ),
        ({"Image__NominalPixelRange": "Normalized_1_1"}, "tf"),
        ({"author": "Ultralytics", "task": "classify"}, "unit"),
    ],
)
def test_metadata_says_what_the_model_takes(said: dict[str, str], preset: str) -> None:
    found, why = said_of(told(beginning("s = Relu(x)"), **said))
    assert found == preset and why


def test_an_order_of_channels_that_no_preset_gives_is_refused(tmp_path: Path) -> None:
    said = {"Image__NominalPixelRange": "Normalized_0_1", "Image__BitmapPixelFormat": "Bgr8"}
    proto, place = told(network("raw"), **said), folder(tmp_path / "set")
    with pytest.raises(DataError, match="takes Bgr8 pixels, which no preset gives; give"):
        open_model(proto, place, Settings.of())
    assert open_model(proto, place, Settings.of(preprocess="raw"))[1] is not None


# What auto does


def opened(proto: ModelProto, place: Path, **options: Any) -> Any:
    return open_model(proto, place, Settings.of(threads=1, device="cpu", **options))[1]


def test_auto_says_what_it_chose_and_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    proto = told(network("tf"), onnxprune__preprocess="tf")
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        data = opened(proto, folder(tmp_path / "set"))
    assert data.preprocess == "tf"
    assert caplog.messages == [
        "preprocess: 'tf', as the model's metadata says (onnxprune.preprocess)"
    ]


@pytest.mark.parametrize("preset", ["unit", "raw", "caffe"])
def test_a_guess_is_held_against_the_other_presets(
    preset: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = opened(network(preset), folder(tmp_path / "set"))
    assert data.preprocess == preset
    assert f"preprocess: '{preset}', by which the model is right for 36 of 36" in caplog.text
    expected = PRESETS[preset](np.zeros((1, 1, 3), np.uint8)).ravel()
    assert data.x.shape == (36, 3, 8, 8) and (data.x.min((0, 2, 3)) >= expected - 1e-5).all()


def test_a_guess_that_fits_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert opened(network("imagenet"), folder(tmp_path / "set")).preprocess == "imagenet"
    assert caplog.messages == []


def test_images_without_labels_are_scaled_alike(tmp_path: Path) -> None:
    place = folder(tmp_path / "set")
    settings = Settings.of(threads=1, unlabelled=str(place), compensate="least-squares")
    graph, data = open_model(network("unit"), place, settings)
    more = open_unlabelled(graph, data, settings)
    assert data is not None and more is not None and data.preprocess == "unit"
    np.testing.assert_array_equal(more.x, data.x)


def test_a_run_with_auto_is_that_with_the_preset(tmp_path: Path) -> None:
    place = folder(tmp_path / "set")
    ask: dict[str, Any] = {"rate": 0.3, "control": "one-shot", "threads": 1}
    found = [
        onnxprune.prune(network("unit"), place, preprocess=name, **ask).model
        for name in ("auto", "unit")
    ]
    assert found[0] == found[1]
    assert onnxprune.compare(network("unit"), found[0], place, threads=1)["samples"] == 36


def test_a_preset_against_what_the_model_says_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proto = told(network("unit"), onnxprune__preprocess="unit")
    opened(proto, folder(tmp_path / "set"), preprocess="imagenet")
    assert "preprocess: 'imagenet' is given, but 'unit' seems right, as the model's" in caplog.text


# The names of the classes


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("names", str(dict(enumerate(NAMES)))),
        ("names", json.dumps(NAMES)),
        ("classes", ", ".join(NAMES)),
        ("labels", "\n".join(NAMES) + "\n"),
        ("class_names", json.dumps({str(k): name for k, name in enumerate(NAMES)})),
    ],
)
def test_names_of_classes_are_read(key: str, text: str) -> None:
    assert class_names(Graph(told(network(), **{key: text}))) == NAMES


@pytest.mark.parametrize("text", ["", "{}", "{1: 'a'}", "cat", "[1, 2", "{'a': 'b'}", "a,b,c"])
def test_what_is_no_list_of_its_classes_is_left(text: str) -> None:
    assert class_names(Graph(told(network(), names=text))) == ()


def test_class_folders_are_numbered_by_the_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Their sorted names are in another order."""
    proto = told(network("unit"), names=json.dumps([name.title() for name in NAMES]))
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        data = opened(proto, folder(tmp_path / "set", names=NAMES), preprocess="unit")
    assert "the classes are numbered by their names" in caplog.text
    assert data.classes == tuple(name.title() for name in NAMES)
    assert onnxprune.compare(proto, proto, data, threads=1)["before"]["accuracy"]["mean"] == 1


def test_a_class_folder_of_another_name_is_refused(tmp_path: Path) -> None:
    proto = told(network("unit"), names=json.dumps(NAMES))
    place = folder(tmp_path / "set", names=(*NAMES[:5], "violett"))
    with pytest.raises(
        DataError, match=r"class folder 'violett' is none of .* \(nearest: violet\)"
    ):
        opened(proto, place, preprocess="unit")


def test_names_of_another_kind_leave_the_order_of_folders(tmp_path: Path) -> None:
    proto = told(network("unit"), names=json.dumps([f"n{k:08}" for k in range(6)]))
    data = opened(proto, folder(tmp_path / "set"), preprocess="unit")
    assert data.y.tolist() == sorted(data.y.tolist()) and data.classes[0] == "0_blue"
