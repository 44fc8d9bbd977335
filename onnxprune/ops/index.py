"""Operators that read at places given by index, and that sort or sum along an axis.

Channels: they may go on an axis that no index names. Where `GatherND` names channels by constant
indices, it moves elements, as the operators of `onnxprune.ops.select` do, and its indices are
restated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import Kept
from onnxprune.ops._op import Indices, Relevance, op, without
from onnxprune.ops._torch import torch
from onnxprune.ops.activate import FLOATS, WHOLE
from onnxprune.ops.array import reshape, take
from onnxprune.ops.channels import MOVES, Axes, How, Pins, mixed
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.pattern import letters, other_letters
from onnxprune.ops.site import Edit, Ints, PrunedSite, Site

if TYPE_CHECKING:
    from torch import Tensor

INDEXED = "whose indices name these channels"


def _gather_nd_channels(site: Site) -> How:
    """Known indices move; of others, only the axes that they do not name may shrink."""
    data, indices = site.shapes[0], site.shapes[1]
    if data is None or indices is None:
        return UNKNOWN
    batch = site.attribute("batch_dims", 0)
    if site.values[1] is not None and not batch:
        return MOVES
    count = batch + indices[-1]
    names = letters(len(data), range(count))
    return Axes(f"{names}, * -> * {' '.join(names.split()[count:])}", why=INDEXED)


def restate_coordinates(site: PrunedSite, rows: Kept) -> Edit | None:
    """Indices into a cut axis become the ranks of the positions they name.

    `rows` says which of them are left, by the axes of the indices.
    """
    before = site.before.values[1]
    if before is None:
        return None
    indices = before
    for axis in range(indices.ndim - 1):
        left = rows.get(axis)
        indices = indices if left is None else np.compress(left, indices, axis)
    new = indices.copy()
    for column in range(indices.shape[-1]):
        alive = site.kept[0].get(column)
        if alive is not None:
            new[..., column] = (np.cumsum(alive) - 1)[indices[..., column] % alive.size]
    now = site.values[1]
    return None if now is not None and np.array_equal(new, now) else Edit(inputs={1: new})


def _restate_gather_nd(site: PrunedSite) -> Edit | None:
    return restate_coordinates(site, site.output_kept[0])


@op(
    "GatherND",
    _gather_nd_channels,
    since=(11, 12, 13),
    relevance=Relevance.COPY,
    restate=_restate_gather_nd,
)
def gather_nd(data: Tensor, indices: Indices, /, *, batch_dims: int = 0) -> Tensor:
    """Take what stands at the places whose coordinates are the rows of `indices`.

    Shapes: data `[*b, *s, *rest]`, indices `[*b, .., k]` with k sizes s -> `[*b, .., *rest]`.
    Source: ONNX operator GatherND-13.
    """
    whole: Any = indices
    count = batch_dims + whole.shape[-1]
    places: Any = 0
    for axis in range(batch_dims):
        ramp: Any = np.arange(data.shape[axis]).reshape([-1] + [1] * (whole.ndim - 2 - axis))
        ramp = ramp if isinstance(data, np.ndarray) else torch.as_tensor(ramp, device=data.device)
        places = places * data.shape[axis] + ramp
    for column, size in enumerate(data.shape[batch_dims:count]):
        places = places * size + whole[..., column] % size
    rows = reshape(data, (int(np.prod(data.shape[:count])), *data.shape[count:]))
    return take(rows, places, 0)


def beside(site: Site, *operands: int) -> How:
    """Return how channels cross: they go on axes but `axis` where all operands are as long."""
    shapes = [site.shapes[k] for k in (0, *operands)]
    data = shapes[0]
    if data is None or None in shapes:
        return UNKNOWN
    axis = site.attribute("axis", 0) % len(data)
    whole = [k for k in range(len(data)) if len({s[k] for s in shapes if s is not None}) > 1]
    names, others = letters(len(data), {axis, *whole}), other_letters(len(data), {axis, *whole})
    inputs = ", ".join([names, *[others] * len(operands)])
    return Axes(f"{inputs} -> {names if len(operands) > 1 else others}", why=INDEXED)


def _gather_beside(site: Site) -> How:
    return beside(site, 1)


@op("GatherElements", _gather_beside, since=(11, 13), relevance=Relevance.COPY)
def gather_elements(data: Tensor, indices: Tensor, /, *, axis: int = 0) -> Tensor:
    """Take from each line along `axis` the elements that `indices` names.

    Shapes: data and indices of one rank -> as indices.
    Source: ONNX operator GatherElements-13.
    """
    return torch.gather(data, axis, indices.long() % data.shape[axis])


def _sorted_channels(site: Site) -> How:
    rank = site.rank()
    if rank == 0:
        return UNKNOWN
    axis = [site.attribute("axis", -1) % rank]
    some = other_letters(rank, axis)
    why = "which compares these channels with each other"
    return Axes(f"{letters(rank, axis)}, * -> {some}, {some}", why)


@op("TopK", _sorted_channels, since=(11, 24), relevance=Relevance.COPY)
def top_k(
    x: Tensor, k: Ints, /, *, axis: int = -1, largest: int = 1, sorted: int = 1
) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) elements of each line along `axis`, and their places.

    They are sorted, asked for or not; of equals the first comes first.
    Source: ONNX operator TopK-24.
    """
    values, places = torch.sort(x, dim=axis, descending=bool(largest), stable=True)
    return values.narrow(axis, 0, k[0]), places.narrow(axis, 0, k[0])


_by_input = op("TopK", _sorted_channels, since=(10,), relevance=Relevance.COPY)
_by_input(without(top_k, "largest", "sorted"))


@op("TopK", _sorted_channels, since=(1,), relevance=Relevance.COPY)
def top_k_1(x: Tensor, /, *, axis: int = -1, k: int) -> tuple[Tensor, Tensor]:
    """The k largest elements of each line along `axis`. Source: ONNX operator TopK-1."""
    return top_k(x, (k,), axis=axis)


def _running_channels(site: Site) -> How:
    rank, axis = site.rank(), site.ints(1)
    if site.shapes[0] is None or axis is None:
        return UNKNOWN
    return mixed(rank, [axis[0] % rank], "which accumulates over these channels")


def _running(x: Tensor, axis: int, run: Callable[..., Tensor], first: int | None) -> Tensor:
    """Accumulate along an axis; with `first`, start from it and leave each element itself out."""
    found = run(x, axis, dtype=x.dtype)
    if first is None:
        return found
    start = torch.full_like(x.narrow(axis, 0, 1), first)
    return torch.cat((start, found.narrow(axis, 0, x.shape[axis] - 1)), axis)


@op("CumSum", _running_channels, since=(11, 14), relevance=Relevance.LINEAR)
def cum_sum(x: Tensor, axis: Ints, /, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """The sum of the elements of a line up to each one; with `exclusive`, without that one.

    Source: ONNX operator CumSum-14.
    """
    sums = _running(x.flip(axis) if reverse else x, axis[0], torch.cumsum, 0 if exclusive else None)
    return sums.flip(axis) if reverse else sums


@op("CumProd", _running_channels, since=(26,), relevance=Relevance.SLOPE)
def cum_prod(x: Tensor, axis: Ints, /, *, exclusive: int = 0, reverse: int = 0) -> Tensor:
    """The product of the elements of a line up to each one; with `exclusive`, without that one.

    Source: ONNX operator CumProd-26.
    """
    line = x.flip(axis) if reverse else x
    products = _running(line, axis[0], torch.cumprod, 1 if exclusive else None)
    return products.flip(axis) if reverse else products


def _triangle_channels(site: Site) -> How:
    rank = site.rank()
    names = letters(rank, (rank - 2, rank - 1))
    return Axes(f"{names}, * -> {names}", why="which keeps a triangle of rows and columns")


@op("Trilu", _triangle_channels, since=(14,), relevance=Relevance.COPY)
def trilu(x: Tensor, k: Ints | None = None, /, *, upper: int = 1) -> Tensor:
    """Matrices with zeros below (or above) the k-th diagonal. Source: ONNX operator Trilu-14."""
    return (torch.triu if upper else torch.tril)(x, k[0] if k else 0)


EYE = Pins("whose output has the size of its input")


@op("EyeLike", EYE, since=(9, 22))
def eye_like(x: Tensor, /, *, dtype: int | None = None, k: int = 0) -> Tensor:
    """A matrix of the sizes of x with 1 on its k-th diagonal. Source: ONNX operator EyeLike-22."""
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape)
    found = rows[:, None] + k == columns
    return found.to(x.dtype if dtype is None else getattr(torch, (FLOATS | WHOLE)[dtype]))


def _one_hot_channels(site: Site) -> How:
    rank = site.rank()
    if site.shapes[0] is None:
        return UNKNOWN
    names = letters(rank, ()).split()
    axis = site.attribute("axis", -1) % (rank + 1)
    return Axes(f"{' '.join(names)}, *, * -> {' '.join([*names[:axis], 'S', *names[axis:]])}")


@op("OneHot", _one_hot_channels, since=(9, 11, 28))
def one_hot(indices: Tensor, depth: Tensor, values: Tensor, /, *, axis: int = -1) -> Tensor:
    """A new axis with the second of two values at the place that an index names, else the first.

    Shapes: indices `[*]`, depth one number, values `[2]` -> `[.., depth, ..]`.
    Source: ONNX operator OneHot-28.
    """
    size = int(depth)
    named = torch.where(indices < 0, indices + size, indices).unsqueeze(axis)
    line = torch.arange(size, device=indices.device)
    shape = [1] * named.ndim
    shape[axis] = size
    return torch.where(named == line.reshape(shape), values[1], values[0])


def _reversed_channels(site: Site) -> How:
    if site.shapes[0] is None:
        return UNKNOWN
    axes = site.attribute("time_axis", 0), site.attribute("batch_axis", 1)
    names = letters(site.rank(), axes)
    return Axes(f"{names}, * -> {names}", why="which reverses the order of these channels")


@op("ReverseSequence", _reversed_channels, since=(10, 28), relevance=Relevance.COPY)
def reverse_sequence(
    x: Tensor, sequence_lens: Tensor, /, *, batch_axis: int = 1, time_axis: int = 0
) -> Tensor:
    """The first steps of each sequence in reverse order, as many as it has.

    Source: ONNX operator ReverseSequence-28.
    """
    steps = torch.arange(x.shape[time_axis], device=x.device)
    lengths = sequence_lens[:, None]
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    lines = x.movedim((batch_axis, time_axis), (0, 1))
    rows = torch.arange(len(lengths), device=x.device)[:, None]
    return lines[rows, places].movedim((0, 1), (batch_axis, time_axis))
