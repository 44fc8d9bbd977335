"""Quantised models are held against the masked ones by exact products."""

import logging

import numpy as np
import pytest
from onnx import numpy_helper

from tests.support.cuts import Cut
from tests.support.models import HEADER, model

BYTES = """
g (float[N,1,5,8] x) => (float[N,6,5,8] y)
<float[8,1,1,1] k, float t = {0.1}, uint8 p = {0}, float s = {0.005}, int8 z = {0}, float u = {1.0},
 int8[6,8,1,1] w> {
  a = Conv(x, k)
  q = QuantizeLinear(a, t, p)
  c = QLinearConv(q, t, p, w, s, z, u, p)
  y = DequantizeLinear(c, u, p)
}
"""


def test_sums_of_bytes_that_a_cpu_cuts_off_are_no_difference() -> None:
    """Without VNNI pairs of products are cut off at 16 bits; which make a pair is another thing."""
    proto = model(BYTES)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    large = np.random.default_rng(0).integers(90, 127, (6, 8, 1, 1), np.int8)
    constants["w"].CopyFrom(numpy_helper.from_array(large, "w"))
    constants["k"].CopyFrom(numpy_helper.from_array(np.ones((8, 1, 1, 1), np.float32), "k"))
    x = 20 + np.random.default_rng(1).random((3, 1, 5, 8)).astype(np.float32)
    cut = Cut(proto, samples=x)
    cut.proof(cut.pruned)


def test_a_zero_point_that_weights_share_does_not_hinder_the_check(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """onnxruntime cannot compute exact products then."""
    text = """
    g (float[N,3,1,5] x) => (float[5,2,N,3] y)
    <float[4,3,1,1] k, int64[1] two = {2}, int8[2,4,12] w, int8[2,3,12] r, float[2,24] b,
     float[2] u = {0.01, 0.02}, int8[2] z = {0, 0}> {
      a = Conv(x, k)
      s = Squeeze(a, two)
      t = Transpose<perm = [2, 0, 1]>(s)
      y = com.microsoft.DynamicQuantizeLSTM<direction = "bidirectional", hidden_size = 3>
        (t, w, r, b, , , , , u, z, u, z)
    }"""
    header = HEADER.replace("17]", '17, "com.microsoft": 1]')
    proto = model(text, header=header)
    for tensor in proto.graph.initializer:
        if tensor.name in ("w", "r"):
            large = np.zeros(list(tensor.dims), np.int8)
            large[:, 0, ::2] = 100
            tensor.CopyFrom(numpy_helper.from_array(large, tensor.name))
    cut = Cut(proto)
    with caplog.at_level(logging.INFO, logger="onnxprune"):
        cut.proof(cut.pruned)
    assert "the pruned model gives the outputs of the masked model (" in caplog.text
