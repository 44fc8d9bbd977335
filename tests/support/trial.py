"""Small nets with channels removed, and the regression that is to correct them, by numpy."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.compensate.methods import compensator
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.ops import OPS
from onnxprune.surgery.removal import remove_channels
from tests.support.halves import half
from tests.support.models import HEADER, images, model, relative_error, run

Array = npt.NDArray[Any]

SAME = 1e-4
"""Relative; single against double precision, through a linear system."""

CORRECTIONS = ("bias", "least-squares")
"""Every method of compensation that changes weights."""

RIDGE = 0.01
"""The ridge that trials are corrected with, as a share of the mean variance."""

CHAIN = """
g (float[N,3,8,8] x) => (float[N,4,6,6] y)
<float[6,3,1,1] w, float[6] b, float[4,6,3,3] v, float[4] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  y = Conv(r, v, c)
}
"""
NO_BIAS = CHAIN.replace("float[4,6,3,3] v, float[4] c", "float[4,6,3,3] v").replace("v, c", "v")
LINEAR = CHAIN.replace("r = Relu(a)", "r = Identity(a)")
WIDE = CHAIN.replace("8,8", "36,8").replace("6,6", "34,6")
TRANSPOSED = """
g (float[N,3,8,8] x) => (float[N,4,17,17] y)
<float[6,3,1,1] w, float[6] b, float[6,4,3,3] v, float[4] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  y = ConvTranspose<strides=[2,2]>(r, v, c)
}
"""
FLAT = """
g (float[N,3,4,4] x) => (float[N,5] y)
<float[6,3,3,3] w, float[6] b, float[24,5] v, float[5] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  f = Flatten(r)
  y = Gemm<alpha=0.5, beta=2.0>(f, v, c)
}
"""
FLAT_LAST = FLAT.replace("f = Flatten(r)", "t = Transpose<perm=[0,2,3,1]>(r)\n  f = Flatten(t)")
POOLED = """
g (float[N,3,6,6] x) => (float[N,5] y)
<float[6,3,3,3] w, float[6] b, float[5,6] v, float[5] c> {
  a = Conv(x, w, b)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  y = Gemm<transB=1>(f, v, c)
}
"""
PRODUCT = POOLED.replace("<transB=1>", "").replace("[5,6] v, float[5] c", "[6,5] v")
PRODUCT = PRODUCT.replace("Gemm(f, v, c)", "MatMul(f, v)")
MULTIPLIED = """
g (float[N,3,8,8] x) => (float[N,5] y)
<float[6,3,1,1] w, float[12,1,3,3] d, float[12,5] v> {
  a = Conv(x, w)
  e = Conv<group=6>(a, d)
  p = GlobalAveragePool(e)
  f = Flatten(p)
  y = MatMul(f, v)
}
"""
CNN = """
g (float[N,3,12,12] x) => (float[N,3] y)
<float[8,3,3,3] w1, float[8] s1, float[8] b1, float[8] m1, float[8] var1,
 float[8,8,3,3] w2, float[8,1,3,3] w3, float[10,8,1,1] w4, float[10] b4,
 float[90,3] w5, float[3] b5> {
  a1 = Conv<pads=[1,1,1,1]>(x, w1)
  n1 = BatchNormalization(a1, s1, b1, m1, var1)
  r1 = Relu(n1)
  a2 = Conv<pads=[1,1,1,1]>(r1, w2)
  s = Add(a2, r1)
  r2 = Relu(s)
  a3 = Conv<group=8, pads=[1,1,1,1]>(r2, w3)
  r3 = Relu(a3)
  a4 = Conv(r3, w4, b4)
  r4 = Relu(a4)
  p = MaxPool<kernel_shape=[4,4], strides=[4,4]>(r4)
  f = Flatten(p)
  y = Gemm(f, w5, b5)
}
"""

transposed = pytest.mark.skipif(
    ("", "ConvTranspose") not in OPS, reason="ConvTranspose is not described yet"
)


class Trial:
    """A model with random images, some channels of which are removed."""

    def __init__(
        self,
        text: str,
        dead: list[int] | None = None,
        *,
        change: Callable[[dict[str, Array]], Any] | None = None,
        samples: int = 12,
        header: str = HEADER,
    ) -> None:
        self.proto = model(text, header=header)
        if change is not None:
            arrays = {t.name: numpy_helper.to_array(t).copy() for t in self.proto.graph.initializer}
            change(arrays)
            for tensor in self.proto.graph.initializer:
                tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
        self.graph = Graph(self.proto)
        self.groups: ChannelGroups = find_groups(self.graph)
        self.x = images(self.proto, samples)
        self.data = Data(self.x, np.zeros(samples, np.int64), ("one",))
        self.dead: BoolArray = half(self.groups)
        if dead is not None:
            self.dead = np.isin(np.arange(len(self.groups)), dead)
        self.pruned = remove_channels(self.graph, self.groups, self.dead)

    def compensated(self, method: str = "least-squares", **options: Any) -> ModelProto:
        options = {"ridge": RIDGE, "device": "cpu", "batch_size": 5, **options}
        correct = compensator(self.graph, self.groups, self.data, method, **options)
        assert correct is not None
        changed = correct(self.pruned, self.dead)
        onnx.checker.check_model(changed, full_check=True)
        return changed

    def error(self, proto: ModelProto) -> float:
        return relative_error(run(proto, self.x)[0], run(self.proto, self.x)[0])

    def alive(self, name: str) -> BoolArray:
        """Which channels of a tensor survive."""
        return ~self.dead[self.groups.cuts[name][1]]

    def tensor(self, name: str, proto: ModelProto | None = None) -> Array:
        """A tensor inside the model, by onnxruntime; or a constant of `proto`."""
        if proto is not None:
            return constants(proto)[name]
        opened = ModelProto()
        opened.CopyFrom(self.proto)
        del opened.graph.output[:]
        opened.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
        return run(opened, self.x)[0]


def scaled_error(found: Array, expected: Array) -> float:
    """The error of a weight up to one factor: test_least_squares.py holds it."""
    factor = (found * expected).sum() / (expected * expected).sum()
    assert 1 / 3 <= factor <= 3
    return relative_error(found, factor * expected)


def constants(proto: ModelProto) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def ridge_by_lstsq(full: Array, kept: Array, alive: BoolArray, *, centre: bool = True) -> Array:
    """The ridge regression as a least-squares problem with extra rows, by numpy."""
    full, kept = full.astype(np.float64), kept.astype(np.float64)
    if centre:
        full, kept = (rows - rows.mean(1, keepdims=True) for rows in (full, kept))
    weight = RIDGE * (kept**2).sum(1).mean()
    stays = np.eye(len(full))[:, alive]
    left = np.vstack([kept.T, np.sqrt(weight) * np.eye(len(kept))])
    right = np.vstack([full.T, np.sqrt(weight) * stays.T])
    return np.linalg.lstsq(left, right, rcond=None)[0].T


def rows_of(x: Array) -> Array:
    return np.moveaxis(x, 1, 0).reshape(x.shape[1], -1)
