"""Operators that onnxruntime's optimiser writes in place of several of ONNX.

Channels: as those of the operators that they stand for.
Relevance: activations pass it on, and a product shares it. It is not defined for a layer that ends
in an activation of its own: LRP looks at a layer and at its activation one after the other.
Source: onnxruntime, contrib operators of domain com.microsoft, version 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.activate import gelu, hard_sigmoid, leaky_relu, swish
from onnxprune.ops.channels import ALIGNS, Axes, How
from onnxprune.ops.linear import UNKNOWN, conv_operands, convolve, restate_group
from onnxprune.ops.normalise import SHARES, layer_normalization
from onnxprune.ops.pattern import letters
from onnxprune.ops.product import columns, gemm, gemm_channels, matmul_operands, product
from onnxprune.ops.site import Ints, Site
from onnxprune.ops.window import Window, windowed

if TYPE_CHECKING:
    from torch import Tensor

Floats = tuple[float, ...]
T = TypeVar("T")

_fused = partial(op, since=(1,), domain="com.microsoft")

ACTIVATIONS: Mapping[str, Callable[..., Any]] = {
    "": lambda x: x,
    "Relu": lambda x: torch.relu(x),
    "Sigmoid": lambda x: torch.sigmoid(x),
    "Tanh": lambda x: torch.tanh(x),
    "LeakyRelu": lambda x, alpha=0.01: leaky_relu(x, alpha=alpha),
    "HardSigmoid": lambda x, alpha=0.2, beta=0.5: hard_sigmoid(x, alpha=alpha, beta=beta),
    "Clip": lambda x, low, high: torch.clamp(x, low, high),
}
"""What a layer ends in, with its parameters in the order in which a node states them."""


def _activate(x: Tensor, name: str | None, *numbers: float | None) -> Tensor:
    compute = ACTIVATIONS.get(name or "")
    if compute is None:
        raise UnsupportedAttribute(f"activation={name!r}; expected one of {', '.join(ACTIVATIONS)}")
    result: Tensor = compute(x, *(number for number in numbers if number is not None))
    return result


def _conv_channels(site: Site) -> How:
    found = conv_operands(site)
    if found is None:
        return UNKNOWN
    return Axes(f"{found.x}, {found.w}, {found.b}, {found.y} -> {found.y}", sizes=found.sizes)


@_fused(
    "FusedConv",
    _conv_channels,
    relevance=Relevance.SLOPE,
    restate=restate_group,
    weights=(1,),
    biases=(2,),
    filters=True,
)
@windowed
def fused_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    /,
    *,
    activation: str | None = None,
    activation_params: Floats | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    window: Window,
) -> Tensor:
    """Convolve, add `z`, and activate. Shapes: as Conv, z as the output."""
    y = convolve(x, w, b, group, window)
    return _activate(y if z is None else y + z, activation, *(activation_params or ()))


@_fused(
    "FusedGemm",
    gemm_channels,
    relevance=Relevance.SLOPE,
    weights=(1,),
    biases=(2,),
    columns_along=columns,
)
def fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    /,
    *,
    activation: str | None = None,
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Multiply matrices, add, and activate. Shapes: as Gemm."""
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    return _activate(y, activation, activation_alpha, activation_beta, activation_gamma)


def _turned(axes: Sequence[T], turn: int) -> tuple[T, ...]:
    """The axes of a matrix, or of many, transposed on request."""
    return (*axes[:-2], axes[-1], axes[-2]) if turn else tuple(axes)


def _matmul_channels(site: Site) -> How:
    turns = [site.attribute(name, 0) for name in ("transA", "transB")]
    shapes = [_turned(shape or (), turn) for shape, turn in zip(site.shapes, turns, strict=True)]
    found = matmul_operands(replace(site, shapes=shapes))
    if found is None:
        return UNKNOWN
    a, b = (" ".join(_turned(axes.split(), turn)) for axes, turn in zip(found, turns, strict=False))
    return product(f"{a}, {b} -> {found[2]}")


@_fused(
    "FusedMatMul",
    _matmul_channels,
    relevance=Relevance.LINEAR,
    weights=(1,),
    columns_along=columns,
)
def fused_matmul(
    a: Tensor,
    b: Tensor,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Tensor:
    """`alpha a b`, with the matrices transposed on request. Shapes: as MatMul."""
    if transBatchA or transBatchB:
        raise UnsupportedAttribute("transBatchA or transBatchB is 1; expected 0")
    a, b = (a.mT if transA else a), (b.mT if transB else b)
    return alpha * (a @ b)


@_fused("Gelu", ALIGNS)
def gelu_(x: Tensor, /) -> Tensor:
    """x times the normal distribution up to x."""
    return functional.gelu(x)


@_fused("BiasGelu", ALIGNS)
def bias_gelu(x: Tensor, bias: Tensor, /) -> Tensor:
    """The gelu of `x + bias`."""
    return functional.gelu(x + bias)


@_fused("FastGelu", ALIGNS)
def fast_gelu(x: Tensor, bias: Tensor | None = None, /) -> Tensor:
    """The gelu of `x + bias` by a hyperbolic tangent."""
    return gelu(x if bias is None else x + bias, approximate="tanh")


@_fused("QuickGelu", ALIGNS)
def quick_gelu(x: Tensor, /, *, alpha: float = 1.702) -> Tensor:
    """x times `sigmoid(alpha x)`."""
    return swish(x, alpha=alpha)


def _skip_channels(site: Site) -> How:
    rank = site.rank()
    if rank == 0 or site.shapes[1] != site.shapes[0]:
        return UNKNOWN

    def pattern(fixed: Ints) -> str:
        names = letters(rank, fixed)
        last = names.split()[-1]
        return f"{names}, {names}, {last}, {last}, {last} -> {names}, *, *, {names}"

    return Axes(pattern((rank - 1,)), SHARES, pattern(()))


@_fused("SkipLayerNormalization", _skip_channels, relevance=Relevance.SLOPE)
def skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    shift: Tensor | None = None,
    bias: Tensor | None = None,
    /,
    *,
    epsilon: float = 9.999999960041972e-13,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalise the sum of a layer and its shortcut over the last axis; also return that sum."""
    total = x + skip if bias is None else x + skip + bias
    y, mean, inverse = layer_normalization(total, scale, shift, epsilon=epsilon)
    return y, mean, inverse, total
