"""Networks as dense matrices that follow the formulas of the papers."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import Tensor

from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import Composite, find_composite
from tests.support.models import model

STABILISERS = 1e-3
"""Relative: what all the stabilisers on the way take from a sum, in float64."""


WITH_BIAS = {"b1": ", b1", "b2": ", b2", "b3": ", b3"}


NORM = {"norm": "n = BatchNormalization(c, scale, shift, mean, var)"}


RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[6,3,3,3] w1, float[6,6,3,3] w2, float[6,6,1,1] w3, float[12,4] v,
 float[6] b1, float[6] b2, float[6] b3,
 float[6] scale, float[6] shift, float[6] mean, float[6] var> {{
  a = Conv(x, w1{b1})
  r = Relu(a)
  m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  c = Conv<pads=[1,1,1,1]>(m, w2{b2})
  d = Conv(m, w3{b3})
  {norm}
  s = Add(n, d)
  u = Relu(s)
  q = Concat<axis=1>(u, m)
  t = Transpose<perm=[0,2,3,1]>(q)
  p = ReduceMean<axes=[1,2], keepdims=0>(t)
  z = MatMul(p, v)
}}
"""


def residual(**parts: str) -> onnx.ModelProto:
    return model(RESIDUAL.format(**parts))


Array = npt.NDArray[np.float64]


EXACT = 1e-9
"""Relative, in float64: the replica sums in another order."""


EPS = 1e-6


def mirror_of(proto: onnx.ModelProto, *, fold: bool = True) -> Mirror:
    plain = Mirror(Graph(proto), device="cpu", dtype=torch.float64)
    return folded(plain) if fold else plain


def every(mirror: Mirror, x: Array, y: list[int], rule: str | Composite) -> dict[str, Tensor]:
    """The relevance of every tensor that has one."""
    names = {name for node, _ in mirror.steps for name in (*node.inputs, *node.outputs)}
    chosen = find_composite(rule) if isinstance(rule, str) else rule
    return relevance(mirror, x, np.array(y), chosen, names - mirror.constants.keys())


def sums(relevances: dict[str, Tensor], names: str) -> list[list[float]]:
    return [relevances[name].flatten(1).sum(1).tolist() for name in names.split()]


def safe(z: Array) -> Array:
    return z + np.where(z < 0, -EPS, EPS)


def replicate_epsilon(x: Array, W: Array, b: Array, R: Array) -> Array:
    return x * (W.T @ (R / safe(W @ x + b)))


def positive_share(x: Array, W: Array, b: Array, R: Array) -> Array:
    contributions = W * x
    above = np.maximum(contributions, 0)
    return (above / safe(above.sum(1) + np.maximum(b, 0))[:, None] * R[:, None]).sum(0)


def negative_share(x: Array, W: Array, b: Array, R: Array) -> Array:
    contributions = W * x
    below = np.minimum(contributions, 0)
    return (below / safe(below.sum(1) + np.minimum(b, 0))[:, None] * R[:, None]).sum(0)


def replicate_zplus(x: Array, W: Array, b: Array, R: Array) -> Array:
    return positive_share(x, W, 0 * b, R)


def replicate_alpha_beta(x: Array, W: Array, b: Array, R: Array) -> Array:
    return 2 * positive_share(x, W, b, R) - negative_share(x, W, b, R)


def replicate_gamma(x: Array, W: Array, b: Array, R: Array) -> Array:
    y, contributions = W @ x + b, W * x
    found = np.zeros_like(x)
    for k in range(len(y)):
        keep = np.maximum if y[k] > 0 else np.minimum
        row = contributions[k] + 0.25 * keep(contributions[k], 0)
        total = row.sum() + b[k] + 0.25 * keep(b[k], 0)
        found += row / safe(np.array([total]))[0] * R[k] if y[k] else 0
    return found


REPLICAS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "epsilon": replicate_epsilon,
    "zplus": replicate_zplus,
    "alpha-beta": replicate_alpha_beta,
    "gamma": replicate_gamma,
}


DEEP = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[5,3,3,3] w1, float[5] b1, float[6,5,3,3] w2, float[6] b2, float[7,6,3,3] w3, float[7] b3,
 float[7,4] v> {
  a = Conv(x, w1, b1)
  r = Relu(a)
  b = Conv(r, w2, b2)
  s = Relu(b)
  c = Conv(s, w3, b3)
  t = Relu(c)
  p = GlobalAveragePool(t)
  f = Flatten(p)
  z = MatMul(f, v)
}
"""
