"""Maps whose boxes nobody can read without anchors are judged as numbers, and that is said."""

import logging

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.search.assemble import open_model
from onnxprune.search.detectors import guess_detectors
from onnxprune.search.settings import Settings
from tests.support.models import model

CLASSES = 2
TEXT = """
net (float[N,3,64,64] image) => (float[N,21,8,8] fine, float[N,21,4,4] middle, float[N,21,2,2] top)
<float[8,3,8,8] w, float[21,8,1,1] a, float[21,8,1,1] b, float[21,8,1,1] c, float[21] bias> {
  x = Conv<strides=[8,8]>(image, w)
  h = Relu(x)
  i = AveragePool<kernel_shape=[2,2], strides=[2,2]>(h)
  j = AveragePool<kernel_shape=[2,2], strides=[2,2]>(i)
  fine = Conv(h, a, bias)
  middle = Conv(i, b, bias)
  top = Conv(j, c, bias)
}
"""


def maps(objects: float, **metadata: str) -> ModelProto:
    """Three levels of three boxes a cell, whose logits of an object are around a number."""
    proto = model(TEXT)
    bias = np.zeros((3, 5 + CLASSES), np.float32)
    bias[:, 4] = objects
    (tensor,) = (one for one in proto.graph.initializer if one.name == "bias")
    tensor.CopyFrom(numpy_helper.from_array(bias.ravel(), "bias"))
    helper.set_model_props(proto, metadata)
    return proto


def test_anchors_tell_whose_the_maps_are() -> None:
    """75 channels: 20 classes at each of three anchors, or 11 behind the shares of four sides."""
    proto = model(TEXT.replace("21", "75"))
    asked = Settings.of()
    assert [one.head for one in guess_detectors(Graph(proto), asked)] == ["yolov8-maps"]
    helper.set_model_props(proto, {"anchors": str(list(range(1, 19)))})
    (found,) = guess_detectors(Graph(proto), asked)
    assert (found.head, found.classes) == ("yolov5-maps", 20)


def opened(proto: ModelProto, **asked: object) -> Data:
    x = np.random.default_rng(0).random((12, 3, 64, 64), np.float32)
    settings = Settings.of(threads=1, device="cpu", **asked)
    data = open_model(proto, {"image": x}, settings)[1]
    assert data is not None
    return data


@pytest.mark.parametrize(
    ("metadata", "found"),
    [({}, "none"), ({"names": "['cat', 'dog']", "anchors": "[10, 13]"}, "2 numbers")],
    ids=["nothing", "too few"],
)
def test_what_would_make_them_boxes_is_said(
    metadata: dict[str, str], found: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert opened(maps(-20.0, **metadata)).detector is None
    (said,) = (one.getMessage() for one in caplog.records if "anchors" in one.getMessage())
    assert said == (
        "head 'yolov5-maps': reads fine [?, 21, 8, 8], middle [?, 21, 4, 4], top [?, 21, 2, 2] by "
        f"their anchors, and the model's metadata has {found}; write it 18 as 'anchors', widths "
        "and heights in pixels from the finest map on, or decode with --head file.py:decode; until "
        "then outputs are compared as numbers"
    )


@pytest.mark.parametrize(
    ("objects", "asked"),
    [(0.0, {}), (-20.0, {"outputs": ("fine=values",)})],
    ids=["maps of something else", "outputs that are named"],
)
def test_of_other_maps_nothing_is_said(
    objects: float, asked: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        opened(maps(objects), **asked)
    assert "anchors" not in caplog.text
