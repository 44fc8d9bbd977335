"""Reductions: axes that become one number, or vanish.

Channels: they may go on an axis that remains, and stay on an axis that is reduced.
Relevance: a mean and a sum are weighted sums; a maximum or minimum gives all to the winner.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import Ints, Site

if TYPE_CHECKING:
    from torch import Tensor

    Reduction = Callable[[Tensor, Ints, bool], Tensor]

REDUCES = "which reduces over these channels"


def _reduced(rank: int, axes: set[int], keepdims: int, *, loose: bool = True) -> Axes:
    names, free = letters(rank, axes), letters(rank, ())
    left = ["1" if k in axes else name for k, name in enumerate(names.split())]
    right = " ".join(name for name in left if keepdims or name != "1")
    return Axes(f"{names} -> {right}", REDUCES, f"{free} -> {right}" if loose else "")


def _reduce_channels(site: Site) -> How:
    """The axes stand in an attribute or in an input; none means all of them."""
    rank = site.rank()
    by_input = len(site.node.inputs) > 1 and site.node.inputs[1] != ""
    axes = site.ints(1) if by_input else site.attribute("axes", ())
    if site.shapes[0] is None or axes is None:
        return Pins("whose axes are known only at run time")
    if not axes and site.attribute("noop_with_empty_axes", 0):
        return Axes(f"{letters(rank, ())} -> {letters(rank, ())}")
    return _reduced(rank, {a % rank for a in axes or range(rank)}, site.attribute("keepdims", 1))


def _describe(
    name: str,
    compute: Reduction,
    *,
    by_attribute: Ints,
    by_input: Ints,
    relevance: Relevance = Relevance.SLOPE,
) -> None:
    """Register both forms of a reduction: axes in an attribute, axes in an input."""

    @op(name, _reduce_channels, since=by_input, relevance=relevance)
    def reduce(
        x: Tensor,
        axes: Ints | None = None,
        /,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        if not axes and noop_with_empty_axes:
            return compute(x[None], (0,), False)
        return compute(x, axes or tuple(range(x.ndim)), bool(keepdims))

    @op(name, _reduce_channels, since=by_attribute, relevance=relevance)
    def reduce_by_attribute(x: Tensor, /, *, axes: Ints | None = None, keepdims: int = 1) -> Tensor:
        return reduce(x, axes, keepdims=keepdims)


def _mean(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return x.mean(axes, keepdim=keepdims)


def _sum(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return x.sum(axes, keepdim=keepdims, dtype=x.dtype)


def _max(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return x.amax(axes, keepdim=keepdims)


def _min(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return x.amin(axes, keepdim=keepdims)


def _prod(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    for axis in sorted((a % x.ndim for a in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdims, dtype=x.dtype)
    return x


def _l1(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return _sum(x.abs(), axes, keepdims)


def _l2(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return _sum(x * x, axes, keepdims).sqrt().to(x.dtype)


def _sum_square(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return _sum(x * x, axes, keepdims)


def _log_sum(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return _sum(x, axes, keepdims).log()


def _log_sum_exp(x: Tensor, axes: Ints, keepdims: bool) -> Tensor:
    return torch.logsumexp(x, axes, keepdim=keepdims)


MOST: Ints = (1, 11, 13)
EXTREME: Ints = (1, 11, 12, 13)

_describe("ReduceMean", _mean, by_attribute=MOST, by_input=(18,), relevance=Relevance.LINEAR)
_describe("ReduceSum", _sum, by_attribute=(1, 11), by_input=(13,), relevance=Relevance.LINEAR)
_describe("ReduceMax", _max, by_attribute=EXTREME, by_input=(18, 20), relevance=Relevance.COPY)
_describe("ReduceMin", _min, by_attribute=EXTREME, by_input=(18, 20), relevance=Relevance.COPY)
_describe("ReduceProd", _prod, by_attribute=MOST, by_input=(18,))
_describe("ReduceL1", _l1, by_attribute=MOST, by_input=(18,))
_describe("ReduceL2", _l2, by_attribute=MOST, by_input=(18,))
_describe("ReduceSumSquare", _sum_square, by_attribute=MOST, by_input=(18,))
_describe("ReduceLogSum", _log_sum, by_attribute=MOST, by_input=(18, 28))
_describe("ReduceLogSumExp", _log_sum_exp, by_attribute=MOST, by_input=(18, 28))


def _arg_channels(site: Site) -> How:
    rank = site.rank()
    if rank == 0:
        return Pins("whose input shape is not known")
    axes = {site.attribute("axis", 0) % rank}
    return _reduced(rank, axes, site.attribute("keepdims", 1), loose=False)


@op("ArgMax", _arg_channels, since=(1, 11, 12, 13))
def arg_max(
    x: Tensor, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """The place of the largest element of an axis. Source: ONNX operator ArgMax-13."""
    if select_last_index:
        last = x.flip(axis).argmax(axis, keepdim=bool(keepdims))
        return x.shape[axis] - 1 - last
    return x.argmax(axis, keepdim=bool(keepdims))


@op("ArgMin", _arg_channels, since=(1, 11, 12, 13))
def arg_min(
    x: Tensor, /, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0
) -> Tensor:
    """The place of the smallest element of an axis. Source: ONNX operator ArgMin-13."""
    return arg_max(-x, axis=axis, keepdims=keepdims, select_last_index=select_last_index)


def _det_channels(site: Site) -> How:
    rank = site.rank()
    return (
        _reduced(rank, {rank - 2, rank - 1}, 0, loose=False)
        if rank > 1
        else Pins("whose input shape is not known")
    )


@op("Det", _det_channels, since=(11, 22), relevance=Relevance.SLOPE)
def det(x: Tensor, /) -> Tensor:
    """The determinant of each matrix.

    Shapes: x `[.., M, M]` -> `[..]`.
    Source: ONNX operator Det-22.
    """
    return torch.det(x)
