"""Labels of a whole tensor, as a move leaves them, seen along each axis.

A tensor must stay a box, so a slice goes as a whole. Labels come as views with stride 0 along every
axis along which they do not change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.labels import FREE, KEPT, IntArray, count_classes


def thin(array: Any) -> tuple[slice, ...]:
    """Return the index that takes one position of every axis along which nothing changes."""
    return tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)


def rows_of(array: IntArray, axis: int) -> IntArray:
    """Return one row for each position of `axis`, holding the labels found there.

    Shapes: `[n, m]`, where the axis has n positions.
    """
    keep = tuple(s if k != axis else slice(None) for k, s in enumerate(thin(array)))
    return np.moveaxis(array[keep], axis, 0).reshape(array.shape[axis], -1)


def melts(labels: IntArray, moved: IntArray) -> bool:
    """Say whether several labels became one, so that nothing of them may go.

    Shapes: labels `[n]`, one for each position of an axis; moved, of the whole tensor.
    """
    return _distinct(labels) == 1 < _distinct(moved[thin(moved)])


def _distinct(labels: IntArray) -> int:
    return int(np.unique(labels[labels > KEPT]).size)


def freedom(rows: IntArray) -> int:
    """Return how many classes a cut with these rows leaves. Shapes: rows `[n, m]`."""
    if (rows == rows[:, :1]).all():
        return int(np.unique(rows[:, 0]).size)
    low = np.where(rows == FREE, rows.max(axis=1, keepdims=True), rows)
    return count_classes(low)
