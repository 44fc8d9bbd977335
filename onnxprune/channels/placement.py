"""Where labels come to lie that a node has moved: the choice of the axis to cut a tensor along.

A tensor stays a box: it is cut along an axis, so labels that lie in one slice go together. These
functions say what each choice of an axis would tie. They look at an image-sized array of labels
through a view that takes one position of every axis along which nothing changes.
"""

from typing import Any

import numpy as np

from onnxprune.arrays import IntArray, united
from onnxprune.channels.labels import KEPT
from onnxprune.ops import FREE, Shape


def spread(labels: IntArray | None, axis: int, shape: Shape | None) -> IntArray:
    """Return the labels of one axis (None: KEPT) as an array with stride 0 along the others.

    Shapes: labels `[shape[axis]]` -> `shape`.
    """
    assert shape is not None
    if labels is None:
        return np.broadcast_to(np.int64(KEPT), shape)
    column = [-1 if k == axis else 1 for k in range(len(shape))]
    return np.broadcast_to(labels.reshape(column), shape)


def thin(array: Any) -> tuple[slice, ...]:
    """Return the index that takes one position of every axis along which nothing changes."""
    return tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)


def is_padding(array: IntArray) -> bool:
    """Say whether padding, or nothing, has taken the place of every label. Shapes: any."""
    few = array[thin(array)]
    return not few.size or bool((few == FREE).any() and not (few > KEPT).any())


def rows_of(array: IntArray, axis: int) -> IntArray:
    """Return one row for each position of `axis`, holding the labels found there.

    Shapes: `[n, m]`, where the axis has n positions.
    """
    keep = tuple(s if k != axis else slice(None) for k, s in enumerate(thin(array)))
    return np.moveaxis(array[keep], axis, 0).reshape(array.shape[axis], -1)


def varying_axes(array: IntArray) -> list[int]:
    """Return the axes along which not all positions are alike. Shapes: any."""
    return [k for k in range(array.ndim) if (array != array.take([0], k)).any()]


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


def count_classes(rows: IntArray) -> int:
    """Return how many classes remain when all labels within each row are tied.

    Shapes: rows `[n, m]`.
    """
    if (rows == rows[:1]).all():
        return 1
    names, index = np.unique(rows, return_inverse=True)
    index = index.reshape(rows.shape)
    first = np.repeat(index[:, 0], rows.shape[1])
    return int(united(first, index.ravel(), names.size).max()) + 1
