"""Comparison, logic and bits: operands broadcast against each other, position by position.

Channels align. Relevance: none, because what comes out is no amount that could be shared.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.activate import FLOATS, WHOLE
from onnxprune.ops.channels import ALIGNS

if TYPE_CHECKING:
    from torch import Tensor

_decides = partial(op, how=ALIGNS, relevance=Relevance.NONE)


@_decides("Equal", since=(7, 11, 13, 19))
def equal(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether `a = b`. Source: ONNX operator Equal-19."""
    return a == b


@_decides("Greater", since=(7, 9, 13))
def greater(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether `a > b`. Source: ONNX operator Greater-13."""
    return a > b


@_decides("GreaterOrEqual", since=(12, 16))
def greater_or_equal(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether `a >= b`. Source: ONNX operator GreaterOrEqual-16."""
    return a >= b


@_decides("Less", since=(7, 9, 13))
def less(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether `a < b`. Source: ONNX operator Less-13."""
    return a < b


@_decides("LessOrEqual", since=(12, 16))
def less_or_equal(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether `a <= b`. Source: ONNX operator LessOrEqual-16."""
    return a <= b


@_decides("And", since=(7,))
def and_(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether both hold. Source: ONNX operator And-7."""
    return torch.logical_and(a, b)


@_decides("Or", since=(7,))
def or_(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether one holds. Source: ONNX operator Or-7."""
    return torch.logical_or(a, b)


@_decides("Not", since=(1,))
def not_(x: Tensor, /) -> Tensor:
    """Whether it does not hold. Source: ONNX operator Not-1."""
    return torch.logical_not(x)


@_decides("Xor", since=(7,))
def xor(a: Tensor, b: Tensor, /) -> Tensor:
    """Whether exactly one holds. Source: ONNX operator Xor-7."""
    return torch.logical_xor(a, b)


@_decides("IsNaN", since=(9, 13, 20))
def is_nan(x: Tensor, /) -> Tensor:
    """Whether x is not a number. Source: ONNX operator IsNaN-20."""
    return torch.isnan(x)


@_decides("IsInf", since=(10, 20))
def is_inf(x: Tensor, /, *, detect_negative: int = 1, detect_positive: int = 1) -> Tensor:
    """Whether x is infinite, with one of the signs that are asked for.

    Source: ONNX operator IsInf-20.
    """
    negative, positive = torch.isneginf(x), torch.isposinf(x)
    return (negative & bool(detect_negative)) | (positive & bool(detect_positive))


@_decides("BitwiseAnd", since=(18,))
def bitwise_and(a: Tensor, b: Tensor, /) -> Tensor:
    """The bits that both have. Source: ONNX operator BitwiseAnd-18."""
    return torch.bitwise_and(a, b)


@_decides("BitwiseOr", since=(18,))
def bitwise_or(a: Tensor, b: Tensor, /) -> Tensor:
    """The bits that one of them has. Source: ONNX operator BitwiseOr-18."""
    return torch.bitwise_or(a, b)


@_decides("BitwiseXor", since=(18,))
def bitwise_xor(a: Tensor, b: Tensor, /) -> Tensor:
    """The bits that exactly one of them has. Source: ONNX operator BitwiseXor-18."""
    return torch.bitwise_xor(a, b)


@_decides("BitwiseNot", since=(18,))
def bitwise_not(x: Tensor, /) -> Tensor:
    """The bits that x does not have. Source: ONNX operator BitwiseNot-18."""
    return torch.bitwise_not(x)


@_decides("BitShift", since=(11, 28))
def bit_shift(x: Tensor, places: Tensor, /, *, direction: str) -> Tensor:
    """The bits of x moved to the left or to the right. Source: ONNX operator BitShift-28."""
    move = torch.bitwise_left_shift if direction == "LEFT" else torch.bitwise_right_shift
    return move(x, places)


@_decides("BitCast", since=(26,))
def bit_cast(x: Tensor, /, *, to: int) -> Tensor:
    """The bits of x read as another type of the same width.

    Source: ONNX operator BitCast-26.
    Raises: UnsupportedAttribute for another width; floats have that of the mirror.
    """
    target = getattr(torch, (FLOATS | WHOLE).get(to, ""), None)
    if target is None or target.itemsize != x.element_size():
        raise UnsupportedAttribute(f"to={to}; expected a type as wide as {x.dtype}")
    return x.view(target)
