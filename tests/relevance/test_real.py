"""Quantised networks have the relevance of the real numbers that they stand for."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from onnxprune.channels import find_groups
from onnxprune.data import Head
from onnxprune.graph import Graph
from onnxprune.relevance import Mirror, score
from onnxprune.relevance.fuse import folded
from onnxprune.search import Settings, open_model
from tests.support.models import images, model, run

NET = """
g (float[N,3,12,12] x) => (float[N,5] y)
<float[8,3,3,3] w, float[8] b, float[8,8,3,3] v, float[8] c, float[24,6] u, float[6] d,
 float[6,5] t> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  e = Conv<pads=[1,1,1,1]>(m, v, c)
  s = Add(e, m)
  l = LeakyRelu<alpha=0.2>(s)
  k = Mul(l, m)
  j = Concat<axis=1>(k, l, m)
  p = GlobalAveragePool(j)
  f = Flatten(p)
  g = Gemm(f, u, d)
  h = Sigmoid(g)
  y = MatMul(h, t)
}
"""
LIKE = 0.999


class Samples(CalibrationDataReader):
    """All samples at once."""

    def __init__(self, x: np.ndarray) -> None:
        """Hold samples. Shapes: x `[N, ...]`."""
        self.rest: Iterator[Mapping[str, Any]] = iter([{"x": x}])

    def get_next(self) -> Any:
        """Return them, and then nothing."""
        return next(self.rest, None)


def relevance(proto: ModelProto, x: np.ndarray) -> np.ndarray:
    graph, data = open_model(
        proto, x, Settings(threads=1, device="cpu", outputs=("y=classes",), trust_baseline=True)
    )
    return score(graph, find_groups(graph), data, "lrp", device="cpu").total()


@pytest.fixture(scope="module")
def usual() -> tuple[ModelProto, np.ndarray, np.ndarray]:
    proto = model(NET)
    x = (images(proto, 30) / 10).astype(np.float32)
    return proto, x, relevance(proto, x)


def quantised(folder: Path, proto: ModelProto, x: np.ndarray, how: str) -> ModelProto:
    before, after = folder / "float.onnx", folder / "whole.onnx"
    onnx.save(proto, before)
    if how.startswith("dynamic"):
        each = how.endswith("each")
        kind = QuantType.QInt8 if each else QuantType.QUInt8
        quantize_dynamic(
            before,
            after,
            op_types_to_quantize=["Conv", "MatMul"],
            per_channel=each,
            weight_type=kind,
        )
    else:
        quantize_static(
            before,
            after,
            Samples(x),
            quant_format=QuantFormat.QOperator,
            per_channel=how.endswith("each"),
        )
    return onnx.load(after)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", ["dynamic", "dynamic, each", "static", "static, each"])
def test_filters_are_worth_what_they_were_before(
    how: str, usual: tuple[ModelProto, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    proto, x, expected = usual
    whole = quantised(tmp_path, proto, x, how)
    kinds = {node.op_type for node in whole.graph.node}
    assert kinds & {"ConvInteger", "QLinearConv"}
    mirror = folded(Mirror(Graph(whole), device="cpu", heads=(Head("y"),)))
    assert not {step.op.name for step in mirror.steps} & {*kinds} & {"ConvInteger", "QLinearConv"}
    near = np.abs(mirror(x).numpy() - run(proto, x)[0]).max()
    assert near < 0.05 * np.abs(run(proto, x)[0]).max()
    found = relevance(whole, x)
    assert np.corrcoef(found, expected)[0, 1] > LIKE
