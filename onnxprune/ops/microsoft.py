"""Integer operators of onnxruntime, which its quantiser writes beside those of ONNX.

Channels: as those of the operators of ONNX that they stand for; scales are scalars.
Relevance: as for `onnxprune.ops.integer`.
Source: onnxruntime, contrib operators of domain com.microsoft, version 1.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op, without
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.activate import MIXES
from onnxprune.ops.array import concat
from onnxprune.ops.channels import ALIGNS, MOVES, Axes, How
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.pattern import letters
from onnxprune.ops.pool import average_pool
from onnxprune.ops.product import SUMS, broadcast_letters, summed
from onnxprune.ops.quantise import centred, each, round_to
from onnxprune.ops.site import Ints, Site
from onnxprune.ops.window import Window, windowed

if TYPE_CHECKING:
    from torch import Tensor

_microsoft = partial(op, since=(1,), relevance=Relevance.REAL, domain="com.microsoft")


def _real(x: Tensor, scale: Tensor, zero_point: Tensor | None) -> Tensor:
    return centred(x, zero_point).to(scale.dtype) * scale


def _pair(name: str, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Register an elementwise operation of two quantised tensors."""

    @_microsoft(name, ALIGNS)
    def of_two(
        a: Tensor,
        a_scale: Tensor,
        a_zero_point: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero_point: Tensor | None,
        c_scale: Tensor,
        c_zero_point: Tensor | None = None,
        /,
    ) -> Tensor:
        real = compute(_real(a, a_scale, a_zero_point), _real(b, b_scale, b_zero_point))
        return round_to(real / c_scale, c_zero_point, a.dtype)


_pair("QLinearAdd", lambda a, b: a + b)
_pair("QLinearMul", lambda a, b: a * b)


@_microsoft("QLinearSigmoid", ALIGNS)
def qlinear_sigmoid(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    /,
) -> Tensor:
    """The sigmoid of a quantised tensor, quantised."""
    real = torch.sigmoid(_real(x, x_scale, x_zero_point))
    return round_to(real / y_scale, y_zero_point, x.dtype)


@_microsoft("QLinearLeakyRelu", ALIGNS)
def qlinear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    /,
    *,
    alpha: float = 0.01,
) -> Tensor:
    """Negative values times `alpha`, of a quantised tensor, quantised."""
    real = functional.leaky_relu(_real(x, x_scale, x_zero_point), alpha)
    return round_to(real / y_scale, y_zero_point, x.dtype)


def _softmax_channels(site: Site) -> How:
    """One axis is mixed; until opset 12, all axes from there on."""
    rank = site.rank()
    if site.shapes[0] is None:
        return UNKNOWN
    axis = site.attribute("axis", -1) % rank
    mixed_axes = [axis] if site.attribute("opset") >= 13 else range(axis, rank)
    names, free = letters(rank, mixed_axes), letters(rank, ())
    others = ", *, *, *, *"
    return Axes(f"{names}{others} -> {names}", MIXES, f"{free}{others} -> {free}")


@_microsoft("QLinearSoftmax", _softmax_channels)
def qlinear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor,
    /,
    *,
    axis: int = -1,
    opset: int,
) -> Tensor:
    """The softmax of a quantised tensor, quantised."""
    real = _real(x, x_scale, x_zero_point)
    rows = real if opset >= 13 else real.flatten(axis)
    found = torch.softmax(rows, axis if opset >= 13 else -1).reshape(x.shape)
    return round_to(found / y_scale, y_zero_point, x.dtype)


@_microsoft("QLinearWhere", ALIGNS)
def qlinear_where(
    condition: Tensor,
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    /,
) -> Tensor:
    """`a` where the condition holds, else `b`, of quantised tensors, quantised."""
    real = torch.where(condition, _real(a, a_scale, a_zero_point), _real(b, b_scale, b_zero_point))
    return round_to(real / y_scale, y_zero_point, a.dtype)


@_microsoft("QLinearConcat", MOVES)
def qlinear_concat(y_scale: Tensor, y_zero_point: Tensor, /, *inputs: Tensor, axis: int) -> Tensor:
    """Join quantised tensors along an axis and quantise them to one scale.

    Shapes: inputs come in threes: a tensor, its scale and its zero point, `[]` each.
    """
    if isinstance(inputs[0], np.ndarray):  # labels
        return concat(inputs[::3], axis)
    threes = zip(inputs[::3], inputs[1::3], inputs[2::3], strict=True)
    parts = [
        round_to(_real(*three) / y_scale, y_zero_point, y_zero_point.dtype) for three in threes
    ]
    return concat(parts, axis)


def _pool_channels(site: Site) -> How:
    x = "n * c" if site.attribute("channels_last", 0) else "n c *"
    return Axes(f"{x}, *, *, *, * -> {x}")


def _refuse_last(channels_last: int) -> None:
    if channels_last:
        raise UnsupportedAttribute("channels_last=1; expected 0")


@_microsoft("QLinearGlobalAveragePool", _pool_channels)
def qlinear_global_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    /,
    *,
    channels_last: int = 0,
) -> Tensor:
    """The mean over all of space. Shapes: x `[N, C, *size]` -> `[N, C, 1, ..]`."""
    _refuse_last(channels_last)
    mean = _real(x, x_scale, x_zero_point).mean(tuple(range(2, x.ndim)), keepdim=True)
    return round_to(mean / y_scale, y_zero_point, x.dtype)


@windowed
def qlinear_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    /,
    *,
    ceil_mode: int = 0,
    channels_last: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Ints,
    window: Window,
) -> Tensor:
    """The mean of each window. Shapes: x `[N, C, *size]` -> `[N, C, *]`."""
    _refuse_last(channels_last)
    means = average_pool(
        _real(x, x_scale, x_zero_point),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        kernel_shape=kernel_shape,
        **window.attributes,
    )
    return round_to(means / y_scale, y_zero_point, x.dtype)


_microsoft("QLinearAveragePool", _pool_channels)(without(qlinear_average_pool, "dilations"))


def _gemm_channels(site: Site) -> Axes:
    i = summed(site, 0, 3)
    left = f"{i} n" if site.attribute("transA", 0) else f"n {i}"
    right = f"o {i}" if site.attribute("transB", 0) else f"{i} o"
    scales = f"{each(site, 4, 'o')}, {each(site, 5, 'o')}"
    bias = broadcast_letters(site, 6, "n o")
    return Axes(f"{left}, *, *, {right}, {scales}, {bias}, *, * -> n o", why=SUMS)


@_microsoft(
    "QGemm", _gemm_channels, weights=(3,), zero_points={0: 2, 3: 5, 6: None}, scales={0: 1, 3: 4}
)
def qgemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero_point: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero_point: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero_point: Tensor | None = None,
    /,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Multiply matrices of integers and add a bias; real numbers unless `y_scale` is given.

    Shapes: a `[N, I]`, b `[I, O]` (either transposed on request), c broadcast to `[N, O]`.
    """
    left = centred(a.T if transA else a, a_zero_point)
    sums = left @ centred(b.T if transB else b, b_zero_point)
    sums = sums if c is None else sums + c.double()
    real = sums.to(a_scale.dtype) * (alpha * a_scale * b_scale)
    return real if y_scale is None else round_to(real / y_scale, y_zero_point, a.dtype)
