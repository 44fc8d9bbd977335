"""Writes the graphs that JAX exports: flax networks, through jax2onnx at its own opset.

    python -m tests.exporters.make_jax          # jax_*.onnxtxt

Made with jax 0.10.2, flax 0.12.8, jax2onnx 0.17.1.
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import flax.linen as nn
import jax
import jax.numpy as jnp
import jax2onnx
import numpy as np
from flax import nnx

from tests.exporters.text import save

SIZE = 20


def norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(width, use_running_average=True, rngs=rngs)


class Residual(nnx.Module):
    def __init__(self, width: int, out: int, strides: int, rngs: nnx.Rngs) -> None:
        self.a = nnx.Conv(width, out, (3, 3), strides=strides, use_bias=False, rngs=rngs)
        self.b = nnx.Conv(out, out, (3, 3), use_bias=False, rngs=rngs)
        self.norms = nnx.List([norm(out, rngs), norm(out, rngs)])
        self.skip = nnx.Conv(width, out, (1, 1), strides=strides, rngs=rngs)
        self.same = width == out and strides == 1

    def __call__(self, x: Any) -> Any:
        y = nnx.relu(self.norms[0](self.a(x)))
        y = self.norms[1](self.b(y))
        return nnx.relu(y + (x if self.same else self.skip(x)))


class ResNet(nnx.Module):
    """A stem with a pool, four residual units, and a Flatten."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = norm(8, rngs)
        self.units = nnx.List(
            [
                Residual(8, 8, 1, rngs),
                Residual(8, 12, 2, rngs),
                Residual(12, 12, 1, rngs),
                Residual(12, 16, 2, rngs),
            ]
        )
        self.head = nnx.Linear(16 * 4, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.max_pool(
            nnx.relu(self.stem(x)), window_shape=(3, 3), strides=(2, 2), padding="SAME"
        )
        for unit in self.units:
            x = unit(x)
        return self.head(x.reshape(x.shape[0], -1))


class Inverted(nnx.Module):
    """Expand, depthwise, squeeze and excite, project."""

    def __init__(self, width: int, out: int, strides: int, rngs: nnx.Rngs) -> None:
        wide = 3 * width
        self.same = width == out and strides == 1
        self.expand = nnx.Conv(width, wide, (1, 1), use_bias=False, rngs=rngs)
        self.depthwise = nnx.Conv(
            wide, wide, (3, 3), strides=strides, feature_group_count=wide, rngs=rngs
        )
        self.project = nnx.Conv(wide, out, (1, 1), use_bias=False, rngs=rngs)
        self.norms = nnx.List([norm(wide, rngs), norm(wide, rngs), norm(out, rngs)])
        self.squeeze = nnx.Conv(wide, 4, (1, 1), rngs=rngs)
        self.excite = nnx.Conv(4, wide, (1, 1), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        y = nnx.relu6(self.norms[0](self.expand(x)))
        y = nnx.relu6(self.norms[1](self.depthwise(y)))
        gate = nnx.relu(self.squeeze(y.mean((1, 2), keepdims=True)))
        y = self.norms[2](self.project(y * nnx.hard_sigmoid(self.excite(gate))))
        return x + y if self.same else y


class MobileNet(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, use_bias=False, rngs=rngs)
        self.norm = norm(8, rngs)
        self.units = nnx.List([Inverted(8, 8, 1, rngs), Inverted(8, 12, 2, rngs)])
        self.head = nnx.Linear(12, 10, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.swish(self.norm(self.stem(x)))
        for unit in self.units:
            x = unit(x)
        return self.head(x.mean((1, 2)))


class Dense(nn.Module):
    """flax linen: dense connections and a pool before a Flatten."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        for _ in range(3):
            y = nn.gelu(nn.BatchNorm(use_running_average=True)(x))
            x = jnp.concatenate([x, nn.Conv(6, (3, 3))(y)], -1)
        x = nn.leaky_relu(nn.Conv(8, (1, 1))(x))
        x = nn.avg_pool(x, (4, 4), (4, 4))
        return nn.Dense(10)(x.reshape((x.shape[0], -1)))


def of_linen(net: nn.Module) -> Any:
    variables = net.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 3)))
    rng = np.random.default_rng(0)
    statistics = jax.tree.map(
        lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape), jnp.float32), variables["batch_stats"]
    )
    return lambda x: net.apply({**variables, "batch_stats": statistics}, x)


def of_nnx(net: nnx.Module) -> Any:
    rng = np.random.default_rng(0)
    for _, layer in nnx.iter_graph(net):
        if isinstance(layer, nnx.BatchNorm):
            shape = layer.mean.shape
            layer.mean[...] = jnp.asarray(rng.normal(0, 0.1, shape), jnp.float32)
            layer.var[...] = jnp.asarray(rng.uniform(0.5, 1.5, shape), jnp.float32)
    net.eval()
    return net


NETS = {
    "residual": lambda: of_nnx(ResNet(nnx.Rngs(0))),
    "mobilenet": lambda: of_nnx(MobileNet(nnx.Rngs(0))),
    "dense": lambda: of_linen(Dense()),
}

if __name__ == "__main__":
    for name, build in NETS.items():
        save(
            jax2onnx.to_onnx(build(), [("N", SIZE, SIZE, 3)]),
            f"jax_{name}",
            f"JAX {jax.__version__}, by jax2onnx {version('jax2onnx')}; make_jax.py",
            declared=True,
        )
