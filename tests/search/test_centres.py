"""Heads of maps and of cells are recognised by shapes and values, and judged by their boxes."""

import logging

import numpy as np
import onnx
import pytest

from onnxprune.data import Data
from onnxprune.search.assemble import open_model
from onnxprune.search.settings import Settings
from tests.support.models import model

TEXT = """
net (float[N,3,64,64] x) => (float[N,1,16,16] a, float[N,2,16,16] b, float[N,2,16,16] c)
<float[1,3,1,1] u = {20,0,0}, float[1] s = {-10},
 float[2,3,1,1] v = {0,4,0,0,3,0}, float[2] t = {2,3}, float[2,3,1,1] w = {0,0,1,0,0,1}> {
  p = MaxPool<kernel_shape=[4,4], strides=[4,4]>(x)
  h = Conv(p, u, s)
  a = Sigmoid(h)
  b = Conv(p, v, t)
  c = Conv(p, w)
}
"""


LEVELS = """
net (float[N,3,64,64] x)
 => (float[N,64,1] a, float[N,16,1] b, float[N,64,32] c, float[N,16,32] d)
<float[1,3,1,1] u = {20,0,0}, float[1] s = {-10}, float[32,3,1,1] v> {
  p = MaxPool<kernel_shape=[8,8], strides=[8,8]>(x)
  q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)
  one = Constant<value_ints=[0,1,-1]>()
  many = Constant<value_ints=[0,32,-1]>()
  ea = Conv(p, u, s)
  eb = Conv(q, u, s)
  ec = Conv(p, v)
  ed = Conv(q, v)
  ra = Reshape(ea, one)
  rb = Reshape(eb, one)
  rc = Reshape(ec, many)
  rd = Reshape(ed, many)
  sa = Sigmoid(ra)
  sb = Sigmoid(rb)
  a = Transpose<perm=[0,2,1]>(sa)
  b = Transpose<perm=[0,2,1]>(sb)
  c = Transpose<perm=[0,2,1]>(rc)
  d = Transpose<perm=[0,2,1]>(rd)
}
"""


def pictures(lights: int) -> np.ndarray:
    """Dark noise, with some places of which the red is bright."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 0.3, (12, 3, 64, 64)).astype(np.float32)
    for one in x:
        for row, column in rng.integers(0, 64, (lights, 2)):
            one[0, row, column] = 1
    return x


def opened(proto: onnx.ModelProto, x: np.ndarray, **asked: str) -> Data:
    data = open_model(proto, x, Settings(threads=1, device="cpu", **asked))[1]  # type: ignore[arg-type]
    assert data is not None
    return data


@pytest.mark.parametrize("ends", ["a = Sigmoid(h)", "a = Identity(h)"])
def test_centres_are_found_and_said(ends: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnxprune"):
        data = opened(model(TEXT.replace("a = Sigmoid(h)", ends)), pictures(5))
    assert "head 'centernet' of 1 classes (--head names another): the 60 boxes" in caplog.text
    assert data.detector is not None and data.reference is not None
    units = data.units(data.reference)  # type: ignore[misc]
    assert {name: one.shape for name, one in units.items()} == {
        name: data.reference[name].shape for name in "abc"
    }


def test_a_full_map_is_judged_by_its_numbers() -> None:
    proto = model(TEXT)
    assert opened(proto, pictures(300)).detector is None
    assert opened(proto, pictures(300), head="centernet").detector is not None


def test_levels_are_found_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "onnxprune"):
        data = opened(model(LEVELS), pictures(3))
    assert "head 'picodet' of 1 classes (--head names another)" in caplog.text
    assert data.detector is not None and data.reference is not None
    units = data.units(data.reference)  # type: ignore[misc]
    assert {*units} == {*"abcd"} and all(one.any() for one in (units["a"], units["c"]))
    assert opened(model(LEVELS), pictures(64)).detector is None


MAPS = """
net (float[N,3,64,64] x) => (float[N,65,8,8] a, float[N,65,4,4] b)
<float[64,3,1,1] v, float[1,3,1,1] u = {20,0,0}, float[1] s = {-10}> {
  p = MaxPool<kernel_shape=[8,8], strides=[8,8]>(x)
  q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)
  ea = Conv(p, u, s)
  eb = Conv(q, u, s)
  ec = Conv(p, v)
  ed = Conv(q, v)
  a = Concat<axis=1>(ec, ea)
  b = Concat<axis=1>(ed, eb)
}
"""

ROWS = """
net (float[N,3,64,64] x) => (float[N,85,33] y)
<float[32,3,1,1] v, float[1,3,1,1] u = {20,0,0}, float[1] s = {-10}> {
  p = MaxPool<kernel_shape=[8,8], strides=[8,8]>(x)
  q = AveragePool<kernel_shape=[2,2], strides=[2,2]>(p)
  r = AveragePool<kernel_shape=[2,2], strides=[2,2]>(q)
  t = AveragePool<kernel_shape=[2,2], strides=[2,2]>(r)
  shape = Constant<value_ints=[0,3,-1]>()
  pf = Reshape(p, shape)
  qf = Reshape(q, shape)
  rf = Reshape(r, shape)
  tf = Reshape(t, shape)
  all = Concat<axis=2>(pf, qf, rf, tf)
  last = Constant<value_ints=[3]>()
  flat = Unsqueeze(all, last)
  e = Conv(flat, u, s)
  g = Sigmoid(e)
  h = Conv(flat, v)
  z = Concat<axis=1>(g, h)
  w = Squeeze(z, last)
  y = Transpose<perm=[0,2,1]>(w)
}
"""


@pytest.mark.parametrize(("text", "head"), [(MAPS, "yolov8-maps"), (ROWS, "nanodet")])
def test_undecoded_levels_are_found_and_said(
    text: str, head: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows might be those of YOLOv8, turned, with 29 classes: the values tell."""
    with caplog.at_level(logging.INFO, "onnxprune"):
        data = opened(model(text), pictures(3))
    assert f"head '{head}' of 1 classes (--head names another)" in caplog.text
    assert data.detector is not None and data.reference is not None
    units = data.units(data.reference)  # type: ignore[misc]
    assert {name: one.shape for name, one in units.items()} == {
        name: data.reference[name].shape for name in units
    }
    assert all(one.any() for one in units.values())
    assert opened(model(text), pictures(64)).detector is None


def test_anchors_in_the_metadata_say_that_maps_are_of_anchors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """65 channels and one more are three boxes of 17 classes, or 64 shares and two classes."""
    proto = model(MAPS.replace("65", "66").replace("[64,3,1,1] v", "[65,3,1,1] v"))
    assert opened(proto, pictures(3)).detector is None
    onnx.helper.set_model_props(proto, {"anchors": str([[8, 8] * 3] * 2)})
    with caplog.at_level(logging.INFO, "onnxprune"):
        opened(proto, pictures(3))
    assert "head 'yolov5-maps'" in caplog.text
