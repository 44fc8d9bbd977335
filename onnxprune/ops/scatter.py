"""Operators that write at places given by index into a copy of their first input.

Channels: where the indices are known, each element of the updates belongs to the position that it
is written to, and goes with it; the indices are restated. Where they are not, channels may go on an
axis that no index names.
Relevance: it follows the gradient, which is exact for a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from onnxprune.ops._op import Indices, Relevance, op, without
from onnxprune.ops.channels import Axes, How, Writes
from onnxprune.ops.index import INDEXED, beside, restate_coordinates
from onnxprune.ops.linear import UNKNOWN
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import Edit, PrunedSite, Site

if TYPE_CHECKING:
    from torch import Tensor

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}
"""How a written value is combined with the one in its place: ONNX's name, and torch's."""

BY_REDUCTION = {
    **dict.fromkeys(("none", "max", "min"), Relevance.COPY),
    "add": Relevance.SHARE,
    "mul": Relevance.NONE,
}
"""How relevance crosses a node that combines written values with those in their places."""


def _ramp(size: int, axis: int, rank: int) -> Indices:
    """The positions of an axis, along an axis of updates. Shapes: `[1, .., size, .., 1]`."""
    return np.arange(size).reshape([-1 if k == axis else 1 for k in range(rank)])


def _elements_channels(site: Site) -> How:
    data, updates, indices = site.shapes[0], site.shapes[2], site.values[1]
    if data is None or updates is None or indices is None:
        return beside(site, 1, 2)
    axis, rank = site.attribute("axis", 0) % len(data), len(data)
    ramps = [_ramp(n, k, rank) for k, n in enumerate(updates)]
    places = (*ramps[:axis], indices % data[axis], *ramps[axis + 1 :])
    return Writes(places, frozenset({axis}), rank)


def _restate_elements(site: PrunedSite) -> Edit | None:
    """Indices of updates that go are left out; those into a cut axis become ranks."""
    before, data = site.before.values[1], site.before.shapes[0]
    if before is None or data is None:
        return None
    indices, axis = before, site.attribute("axis", 0) % len(data)
    for k, left in site.kept[2].items():
        indices = np.compress(left, indices, k)
    alive = site.kept[0].get(axis)
    if alive is not None:
        indices = (np.cumsum(alive) - 1)[indices]
    now = site.values[1]
    return None if now is not None and np.array_equal(indices, now) else Edit(inputs={1: indices})


def _put(data: Tensor, axis: int, places: Tensor, updates: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return data.scatter(axis, places, updates)
    return data.scatter_reduce(axis, places, updates, REDUCTIONS[reduction])


def scatter_elements(
    data: Tensor,
    indices: Indices,
    updates: Tensor,
    /,
    *,
    axis: int = 0,
    reduction: str = "none",
) -> Tensor:
    """Write into each line along `axis` at the places that `indices` names.

    Shapes: all of one rank, indices as updates -> as data.
    Source: ONNX operator ScatterElements-18.
    """
    places: Tensor = indices.long() % data.shape[axis]  # type: ignore[attr-defined]
    return _put(data, axis, places, updates, reduction)


for _name, _since, _missing in (
    ("ScatterElements", (16, 18), ()),
    ("ScatterElements", (11, 13), ("reduction",)),
    ("Scatter", (9,), ("reduction",)),
):
    op(
        _name,
        _elements_channels,
        since=_since,
        relevance=BY_REDUCTION,
        restate=_restate_elements,
    )(without(scatter_elements, *_missing))


def _nd_channels(site: Site) -> How:
    data, shape, indices = site.shapes[0], site.shapes[1], site.values[1]
    if data is None or shape is None:
        return UNKNOWN
    count, lead = shape[-1], len(shape) - 1
    if indices is None:
        names = letters(len(data), range(count))
        return Axes(f"{names}, *, * {' '.join(names.split()[count:])} -> {names}", why=INDEXED)
    rank, rest = lead + len(data) - count, (1,) * (len(data) - count)
    named = [indices[..., k].reshape(*shape[:-1], *rest) % data[k] for k in range(count)]
    ramps = [_ramp(data[k], lead + k - count, rank) for k in range(count, len(data))]
    return Writes((*named, *ramps), frozenset(range(count)), lead)


def _restate_nd(site: PrunedSite) -> Edit | None:
    return restate_coordinates(site, site.kept[2])


def scatter_nd(
    data: Tensor, indices: Indices, updates: Tensor, /, *, reduction: str = "none"
) -> Tensor:
    """Write at the places whose coordinates are the rows of `indices`.

    Shapes: data `[*s, *rest]`, indices `[.., k]` with k sizes s, updates `[.., *rest]` -> as data.
    Source: ONNX operator ScatterND-18.
    """
    rows: Tensor = indices.long()  # type: ignore[attr-defined]
    count = rows.shape[-1]
    places = rows.new_zeros(rows.shape[:-1])
    for column, size in enumerate(data.shape[:count]):
        places = places * size + rows[..., column] % size
    lines = data.reshape(int(np.prod(data.shape[:count])), -1)
    where = places.reshape(-1, 1).expand(-1, lines.shape[1])
    return _put(lines, 0, where, updates.reshape(where.shape), reduction).reshape(data.shape)


for _since, _missing in (((16, 18), ()), ((11, 13), ("reduction",))):
    op(
        "ScatterND",
        _nd_channels,
        since=_since,
        relevance=BY_REDUCTION,
        restate=_restate_nd,
    )(without(scatter_nd, *_missing))
