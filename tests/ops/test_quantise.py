"""A network quantised by onnxruntime's own quantiser: pruned, and explained by relevance."""

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel
from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import RULES
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.ops.sandwich import elements, half, run
from tests.support.models import images, model

NET = """
g (float[N, 3, 16, 16] x) => (float[N, 10] y)
<float[12,3,3,3] w1, float[12] b1, float[12,1,3,3] w2, float[12] b2, float[12,12,1,1] w3,
 float[12] b3, float[8,6,1,1] w4, float[8] b4, float[20,10] w5, float[10] b5> {
  a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
  ar = Relu(a)
  p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(ar)
  d = Conv<pads=[1, 1, 1, 1], group=12>(p, w2, b2)
  dr = Relu(d)
  e = Conv(dr, w3, b3)
  s = Add(e, p)
  sr = Relu(s)
  k = Conv<group=2>(sr, w4, b4)
  kr = Relu(k)
  c = Concat<axis=1>(kr, sr)
  m = GlobalAveragePool(c)
  f = Flatten(m)
  y = Gemm(f, w5, b5)
}
"""
FORMATS = {"qdq": QuantFormat.QDQ, "integer": QuantFormat.QOperator}
WEIGHTS = {"symmetric": QuantType.QInt8, "asymmetric": QuantType.QUInt8}

SIXTEEN_BITS = 1e-2
"""Of the largest relevance; a step of 2^-16 of the range, through seven layers."""


class Samples(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, proto: ModelProto) -> None:
        self._batches = iter([{"x": images(proto, 4, seed)} for seed in range(3)])

    def get_next(self) -> Any:
        return next(self._batches, None)


def quantised(folder: Path, proto: ModelProto, **options: Any) -> ModelProto:
    onnx.save(proto, folder / "net.onnx")
    quantize_static(folder / "net.onnx", folder / "small.onnx", Samples(proto), **options)
    return onnx.load(folder / "small.onnx")


def types(proto: ModelProto) -> list[int]:
    return [tensor.data_type for tensor in proto.graph.initializer]


@pytest.mark.parametrize(
    ("form", "weights", "per_channel"),
    list(product(FORMATS, WEIGHTS, (False, True))),
    ids=lambda part: str(part),
)
def test_half_of_a_quantised_network_can_go(
    form: str, weights: str, per_channel: bool, tmp_path: Path
) -> None:
    """Sums of integers are exact, and a weight at its zero point adds 0: there is no tolerance."""
    proto = quantised(
        tmp_path,
        model(NET),
        quant_format=FORMATS[form],
        weight_type=WEIGHTS[weights],
        activation_type=QuantType.QUInt8,
        per_channel=per_channel,
        # Weights of 7 bits: without VNNI the kernels add products in pairs, which saturate.
        reduce_range=True,
        extra_options={"WeightSymmetric": weights == "symmetric"},
    )
    graph = Graph(proto)
    groups = find_groups(graph)
    assert len(groups) > 0
    assert not groups.reasons
    for seed in range(2):
        dead = half(groups, seed)
        assert dead.any()
        small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
        onnx.checker.check_model(small, full_check=True)
        assert types(small) == types(zeroed) == types(proto)
        assert elements(small) < 0.75 * elements(proto)
        for batch in (1, 3):
            feeds = {"x": images(proto, batch, seed)}
            (found,), (expected,) = run(small, feeds), run(zeroed, feeds)
            assert np.abs(expected).max() > 0
            np.testing.assert_array_equal(found, expected)


def test_ranges_found_at_run_time_let_channels_go(tmp_path: Path) -> None:
    """They always include 0, which is what a masked channel holds."""
    onnx.save(model(NET), tmp_path / "net.onnx")
    quantize_dynamic(tmp_path / "net.onnx", tmp_path / "small.onnx")
    graph = Graph.load(tmp_path / "small.onnx")
    groups = find_groups(graph)
    dead = half(groups, 0)
    assert dead.any()
    feeds = {"x": images(graph.model, 3, 0)}
    (found,), (expected,) = (
        run(change(graph, groups, dead), feeds) for change in (remove_channels, mask)
    )
    assert np.abs(expected).max() > 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_relevance_crosses_quantisation(rule: str, tmp_path: Path) -> None:
    """Finer and finer integers give the relevance of real numbers."""
    proto = model(NET, header='<ir_version: 10, opset_import: ["": 21]>')
    x, y = images(proto, 4), np.array([0, 3, 9, 3])
    fine = quantised(
        tmp_path, proto, weight_type=QuantType.QInt16, activation_type=QuantType.QInt16
    )
    pairs = zip(explained(fine, x, y, rule), explained(proto, x, y, rule), strict=True)
    for found, expected in pairs:
        scale = float(expected.abs().max())
        assert scale > 0
        np.testing.assert_allclose(found, expected, rtol=0, atol=SIXTEEN_BITS * scale)


def explained(proto: ModelProto, x: Any, y: Any, rule: str) -> list[torch.Tensor]:
    """Relevance of the outputs of the convolutions, in their order."""
    mirror = folded(Mirror(Graph(proto), device="cpu", dtype=torch.float64))
    names = [node.output[0] for node in proto.graph.node if node.op_type == "Conv"]
    found = relevance(mirror, x, y, RULES[rule], names)
    return [found[name] for name in names]


def test_weights_stay_integers_and_real_values_stay(tmp_path: Path) -> None:
    """What is left of a weight are the integers it had, with the scales they had."""
    proto = quantised(tmp_path, model(NET), per_channel=True, weight_type=QuantType.QInt8)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = half(groups, 0)
    small = remove_channels(graph, groups, dead)
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in m.graph.initializer} for m in (proto, small)
    )
    alive = ~dead[groups.cuts["w1_quantized"][0]]
    np.testing.assert_array_equal(after["w1_quantized"], before["w1_quantized"][alive])
    np.testing.assert_array_equal(after["w1_scale"], before["w1_scale"][alive])
    assert after["w1_quantized"].dtype == np.int8


@pytest.mark.parametrize("count", [1, 2, 4])
def test_zero_points_are_one_or_one_for_each_channel(count: int) -> None:
    net = f"""
    g (float[N,3,4,4] x) => (float[N,2,4,4] y)
    <float[4,3,1,1] w, float s = {{0.1}}, uint8[{count}] z = {{{",".join(["120"] * count)}}},
     float[2,4,1,1] v> {{
      c = Conv(x, w)
      q = QuantizeLinear(c, s, z)
      d = DequantizeLinear(q, s, z)
      y = Conv(d, v)
    }}
    """
    graph = Graph(model(net))
    if count == 2:
        with pytest.raises(InvalidModel, match="2 positions where others have 4"):
            find_groups(graph)
    else:
        assert find_groups(graph).removable.sum() == 4
