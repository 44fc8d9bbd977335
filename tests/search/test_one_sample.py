"""One sample says nothing of others, and a user reads that."""

import logging

import numpy as np
import pytest

from onnxprune.data import Data
from onnxprune.search.assemble import open_model
from onnxprune.search.settings import Settings
from tests.support.models import model

TWO = """
net (float[1,3,8,8] image, float[1,4] extra) => (float[1,5] y)
<float[6,3,3,3] w, float[5,6] v, float[5,4] u> {
  a = Conv(image, w)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  one = Gemm<transB=1>(f, v)
  other = Gemm<transB=1>(extra, u)
  y = Add(one, other)
}
"""


def opened(count: int) -> Data:
    rng = np.random.default_rng(0)
    given = {
        "image": rng.random((count, 3, 8, 8), np.float32),
        "extra": rng.random((count, 4), np.float32),
    }
    data = open_model(model(TWO), given, Settings(threads=1, device="cpu"))[1]
    assert data is not None
    return data


def test_arrays_in_exactly_the_models_shapes_are_one_sample_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(opened(1)) == 1
    (said,) = (one.getMessage() for one in caplog.records if "in all" in one.getMessage())
    assert "\n" not in said
    assert "samples: 1 in all (image [1, 3, 8, 8], extra [1, 4])" in said
    assert "stack N along the first axis (image [N, 3, 8, 8], extra [N, 4])" in said


def test_more_than_one_sample_needs_no_word(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert len(opened(20)) == 20
    assert "in all" not in caplog.text
