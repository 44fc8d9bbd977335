"""Quantisation: real numbers as integers, `real = scale (integer - zero point)`.

Channels: an axis with a scale for each of its positions shrinks together with its scales. Along an
axis with a scale for each block of positions, whole blocks go; where one scale serves all of it any
position may go, as a block may be shorter than its size. A weight stays quantised: `mask` writes
its zero point, which stands for 0.
Relevance: it passes unchanged through quantisation and its inverse, because rounding has no weight.
A quantised weight is a constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op, without
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes, How
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import Edit, PrunedSite, Site

if TYPE_CHECKING:
    from torch import Tensor

INTEGERS = {2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32"}
"""Integers that a tensor may be quantised to, by their number in ONNX's TensorProto."""


def each(site: Site, index: int, letter: str) -> str:
    """The axis of a scale or zero point: `letter` where it has one for each channel."""
    shape = site.shapes[index] if index < len(site.shapes) else None
    return letter if shape and len(shape) == 1 and shape[0] > 1 else "*"


def _scaled_channels(site: Site) -> How:
    """One scale serves all positions, or each position of `axis` has its own."""
    x, scale = site.shapes[0], site.shapes[1]
    if x is None or scale is None:
        return UNKNOWN
    names = letters(len(x), ())
    if (size := site.attribute("block_size", 0)) and len(scale) == len(x) > 0:
        return _blocks(x, scale, site.attribute("axis", 1) % len(x), size)
    letter = names.split()[site.attribute("axis", 1) % len(x)] if x else "*"
    return Axes(f"{names}, {each(site, 1, letter)}, {each(site, 2, letter)} -> {names}")


def _blocks(x: Sequence[int], scale: Sequence[int], axis: int, size: int) -> How:
    """Along `axis` a scale serves `size` positions, the last one perhaps fewer."""
    names = letters(len(x), ()).split()
    own, whole = list(names), names[axis].upper()
    if scale[axis] == 1:
        own[axis] = "1"
    elif x[axis] == scale[axis] * size:
        names[axis] = f"({own[axis]} {whole})"
    else:
        names[axis], own[axis] = whole, "1"
    read, told = " ".join(names), " ".join(own)
    return Axes(f"{read}, {told}, {told} -> {read}", "whose last block is shorter")


def _as_one(site: PrunedSite) -> Edit | None:
    """One scale that is left of a row's is one for all: onnxruntime takes no block of it."""
    if (
        site.attribute("block_size", 0)
        and site.shapes[1] == (1,)
        and len(site.shapes[0] or ()) == 1
    ):
        return Edit(drop=("block_size",))
    return None


def _spread(scale: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """A scale or zero point, shaped to broadcast with `x`."""
    if block and scale.ndim == x.ndim > 0:
        return scale.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    if scale.ndim == 1 and scale.numel() > 1:
        return scale.reshape([-1 if k == axis % x.ndim else 1 for k in range(x.ndim)])
    return scale


def centred(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """Return `x - zero_point` in float64, where sums of products of integers are exact."""
    return x.double() if zero_point is None else x.double() - zero_point.double()


def round_to(x: Tensor, zero_point: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Return `x + zero_point`, rounded half to even and held in the range of an integer type."""
    if dtype.is_floating_point:
        raise UnsupportedAttribute("a floating type of 8 bits or less; expected an integer")
    limits = torch.iinfo(dtype)
    shifted = torch.round(x) if zero_point is None else torch.round(x) + zero_point.to(x.dtype)
    return shifted.clamp(limits.min, limits.max).to(dtype)


def quantize_linear(
    x: Tensor,
    y_scale: Tensor,
    y_zero_point: Tensor | None = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Tensor:
    """`x / scale + zero point`, rounded half to even and saturated.

    `precision` is that of the division, `saturate` concerns floating types, which are refused.
    Shapes: scale and zero point `[]`, `[size of axis]`, or x's with one for each block.
    Source: ONNX operator QuantizeLinear-28.
    """
    scale = _spread(y_scale, x, axis, block_size)
    if y_zero_point is not None:
        return round_to(x / scale, _spread(y_zero_point, x, axis, block_size), y_zero_point.dtype)
    if (output_dtype or 2) not in INTEGERS:
        raise UnsupportedAttribute(f"output_dtype={output_dtype}; expected 8 or 16 bits, whole")
    return round_to(x / scale, None, getattr(torch, INTEGERS[output_dtype or 2]))


_quantize = partial(
    op,
    "QuantizeLinear",
    _scaled_channels,
    restate=_as_one,
    relevance=Relevance.PASS,
    zero_points={0: None},
)
_quantize(since=(23, 24, 25, 28))(quantize_linear)
_quantize(since=(21,))(without(quantize_linear, "precision"))
_quantize(since=(19,))(without(quantize_linear, "precision", "output_dtype", "block_size"))
_quantize(since=(13,))(
    without(quantize_linear, "precision", "output_dtype", "block_size", "saturate")
)
_quantize(since=(10,))(
    without(quantize_linear, "precision", "output_dtype", "block_size", "saturate", "axis")
)


def dequantize_linear(
    x: Tensor,
    x_scale: Tensor,
    x_zero_point: Tensor | None = None,
    /,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Tensor:
    """`(x - zero point) scale`.

    Shapes: scale and zero point `[]`, `[size of axis]`, or x's with one for each block.
    Source: ONNX operator DequantizeLinear-28.
    """
    if x.is_floating_point():
        raise UnsupportedAttribute("x is of a floating type of 8 bits or less; expected integers")
    zero = None if x_zero_point is None else _spread(x_zero_point, x, axis, block_size)
    return centred(x, zero).to(x_scale.dtype) * _spread(x_scale, x, axis, block_size)


_dequantize = partial(
    op,
    "DequantizeLinear",
    _scaled_channels,
    restate=_as_one,
    relevance=Relevance.PASS,
    zero_points={0: 2},
)
_dequantize(since=(23, 24, 25, 28))(dequantize_linear)
_dequantize(since=(21,))(without(dequantize_linear, "output_dtype"))
_dequantize(since=(13, 19))(without(dequantize_linear, "output_dtype", "block_size"))
_dequantize(since=(10,))(without(dequantize_linear, "output_dtype", "block_size", "axis"))


def _dynamic_channels(site: Site) -> How:
    """Channels may go: the range always includes 0, so that a channel of 0 does not change it."""
    if site.shapes[0] is None:
        return UNKNOWN
    names = letters(site.rank(), ())
    return Axes(f"{names} -> {names}, *, *")


@op("DynamicQuantizeLinear", _dynamic_channels, since=(11,), relevance=Relevance.PASS)
def dynamic_quantize_linear(x: Tensor, /) -> tuple[Tensor, Tensor, Tensor]:
    """x as integers of 8 bits, with the scale and the zero point of its own range.

    Source: ONNX operator DynamicQuantizeLinear-11.
    """
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = torch.where(high == low, torch.ones_like(low), (high - low) / 255)
    zero = torch.round(-low / scale).clamp(0, 255).to(torch.uint8)
    return round_to(x / scale, zero, torch.uint8), scale, zero
