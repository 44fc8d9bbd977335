"""Convolutions and products of integers, as integer-only devices run them.

Channels: as those of real numbers; scales and zero points of each channel go with it.
Relevance: that of the real numbers that integers stand for. LRP refuses ConvInteger and
MatMulInteger behind a QuantizeLinear.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes, How
from onnxprune.ops.linear import UNKNOWN, conv_operands, convolve, restate_group
from onnxprune.ops.product import SUMS, columns, matmul_operands
from onnxprune.ops.quantise import centred, each, round_to
from onnxprune.ops.site import Ints, Site
from onnxprune.ops.window import Window, windowed

if TYPE_CHECKING:
    from torch import Tensor

_of_integers = partial(op, relevance=Relevance.REAL)


def _qlinear_conv_channels(site: Site) -> How:
    found = conv_operands(site, 3)
    if found is None:
        return UNKNOWN
    scale, zero = each(site, 4, found.b), each(site, 5, found.b)
    inputs = f"{found.x}, *, *, {found.w}, {scale}, {zero}, *, *, {found.b}"
    return Axes(f"{inputs} -> {found.y}", sizes=found.sizes)


def _columns(values: Tensor, x: Tensor) -> Tensor:
    """One value for each channel, shaped to broadcast with a map `x` `[N, C, *]`."""
    return values.reshape(-1, *(1,) * (x.ndim - 2)) if values.ndim else values


@_of_integers(
    "QLinearConv",
    _qlinear_conv_channels,
    since=(10,),
    restate=partial(restate_group, weight=3),
    weights=(3,),
    biases=(8,),
    filters=True,
    zero_points={3: 5, 8: None},
    scales={3: 4},
    quantises=(6, 7),
)
@windowed
def qlinear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero_point: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor,
    b: Tensor | None = None,
    /,
    *,
    group: int = 1,
    kernel_shape: Ints | None = None,
    window: Window,
) -> Tensor:
    """Convolve integers; the sums are scaled and rounded to the output's integers.

    Shapes: as Conv; w's scale and zero point `[]` or `[M]`, the others `[]`.
    Source: ONNX operator QLinearConv-10.
    """
    weight = centred(w, w_zero_point.reshape(-1, *(1,) * (w.ndim - 1)))
    bias = None if b is None else b.double()
    sums = convolve(centred(x, x_zero_point), weight, bias, group, window)
    scale = _columns(x_scale * w_scale / y_scale, sums)
    return round_to(sums.to(scale.dtype) * scale, y_zero_point, y_zero_point.dtype)


def _conv_integer_channels(site: Site) -> How:
    found = conv_operands(site)
    if found is None:
        return UNKNOWN
    inputs = f"{found.x}, {found.w}, *, {each(site, 3, found.b)}"
    return Axes(f"{inputs} -> {found.y}", sizes=found.sizes)


@_of_integers(
    "ConvInteger",
    _conv_integer_channels,
    since=(10,),
    restate=restate_group,
    weights=(1,),
    filters=True,
    zero_points={1: 3},
)
@windowed
def conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero_point: Tensor | None = None,
    w_zero_point: Tensor | None = None,
    /,
    *,
    group: int = 1,
    kernel_shape: Ints | None = None,
    window: Window,
) -> Tensor:
    """Convolve integers to integers of 32 bits. Source: ONNX operator ConvInteger-10."""
    zero = w_zero_point
    zero = None if zero is None else zero.reshape(-1, *(1,) * (w.ndim - 1))
    sums = convolve(centred(x, x_zero_point), centred(w, zero), None, group, window)
    return sums.to(torch.int32)


def _matmul_channels(site: Site, right: int, own: tuple[Ints, Ints], inputs: int) -> How:
    """How channels cross a product; `own` are the scales and zero points of each operand."""
    found = matmul_operands(site, 0, right)
    if found is None:
        return UNKNOWN
    left_axes, right_axes, product = found
    axes = ["*"] * inputs
    axes[0], axes[right] = left_axes, right_axes
    for names, letter, places in zip((left_axes, right_axes), "xy", own, strict=True):
        for k in places:
            shape = site.shapes[k] if k < len(site.shapes) else None
            if shape and len(shape) > 1:
                sized = zip(names.split()[-len(shape) :], shape, strict=True)
                axes[k] = " ".join("1" if n == 1 else name for name, n in sized)
            else:
                axes[k] = each(site, k, letter)
    return Axes(f"{', '.join(axes)} -> {product}", why=SUMS)


def _rows(values: Tensor) -> Tensor:
    """One value for each row of the left operand."""
    return values[:, None] if values.ndim == 1 and values.numel() > 1 else values


@_of_integers(
    "QLinearMatMul",
    partial(_matmul_channels, right=3, own=((1, 2), (4, 5)), inputs=8),
    since=(10, 21),
    weights=(3,),
    zero_points={0: 2, 3: 5},
    scales={0: 1, 3: 4},
    quantises=(6, 7),
    columns_along=partial(columns, weight=3),
)
def qlinear_matmul(
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
    """Multiply matrices of integers; the sums are scaled and rounded to the output's integers.

    Shapes: as MatMul; a's scale and zero point `[]` or one for each row, b's for each column.
    Source: ONNX operator QLinearMatMul-21.
    """
    sums = centred(a, _rows(a_zero_point)) @ centred(b, b_zero_point)
    scale = _rows(a_scale) * b_scale / y_scale
    return round_to(sums.to(scale.dtype) * scale, y_zero_point, y_zero_point.dtype)


@_of_integers(
    "MatMulInteger",
    partial(_matmul_channels, right=1, own=((2,), (3,)), inputs=4),
    since=(10,),
    weights=(1,),
    zero_points={0: 2, 1: 3},
    columns_along=columns,
)
def matmul_integer(
    a: Tensor,
    b: Tensor,
    a_zero_point: Tensor | None = None,
    b_zero_point: Tensor | None = None,
    /,
) -> Tensor:
    """Multiply matrices of integers to integers of 32 bits.

    Source: ONNX operator MatMulInteger-10.
    """
    rows = None if a_zero_point is None else _rows(a_zero_point)
    return (centred(a, rows) @ centred(b, b_zero_point)).to(torch.int32)
