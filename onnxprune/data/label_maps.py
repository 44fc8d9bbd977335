"""Label maps: the class of every pixel, where a sample has more than one.

Labels are `[n]`, a class for each sample, or maps `[n, H, W]`, a class for each pixel; who counts
labels, weighs by them or starts from them does so for both. A pixel labelled `IGNORED` counts for
nothing. The scores of a pixel's classes lie along one axis of the output: `[n, K, H, W]`, or
`[n, H, W, K]` as Keras exports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray

Labels = TypeVar("Labels", bound=Any)

IGNORED = 255
"""The label of pixels that do not count. Source: the PASCAL VOC and Cityscapes label maps."""


def class_axis(output: Sequence[int], maps: Sequence[int]) -> int:
    """Return the axis of the classes: the last where only so the other two are shaped as the maps.

    Shapes: `output` is that of the output, `maps` that of the labels, `[n]` or `[n, H, W]`.

    >>> class_axis((8, 21, 32, 64), (8, 64, 128)), class_axis((8, 32, 64, 21), (8, 64, 128))
    (1, 3)
    """
    if len(output) != 4 or len(maps) != 3:
        return 1
    height, width = maps[1:]
    first = output[2] * width == output[3] * height
    last = output[1] * width == output[2] * height
    return 3 if last and not first else 1


def resize(labels: Labels, size: Sequence[int]) -> Labels:
    """Resize maps to `size` by the nearest pixel, of NumPy or torch; no copy where it is theirs.

    Shapes: `[..., H, W]` -> `[..., *size]`.

    >>> resize(np.array([[1, 2], [3, 4]]), (1, 4)).tolist()
    [[3, 3, 4, 4]]
    """
    if tuple(labels.shape[-2:]) == tuple(size):
        return labels
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    taken: Labels = labels[..., rows[:, None], columns]
    return taken


def fit_labels(labels: Labels, output: Sequence[int]) -> Labels:
    """Resize label maps to an output's height and width; leave classes of samples as they are.

    Shapes: labels `[n]` or `[n, H, W]`, `output` as in `class_axis`.
    """
    if len(labels.shape) != 3 or len(output) != 4:
        return labels
    axis = class_axis(output, labels.shape)
    return resize(labels, [size for k, size in enumerate(output) if k not in (0, axis)])


def counted(labels: IntArray) -> IntArray:
    """Return the labels that count, in one row: those of samples, or of pixels not ignored.

    Shapes: `[n]` or `[..., H, W]` -> `[m]`.
    """
    return labels if labels.ndim == 1 else labels[labels != IGNORED]


def class_shares(labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Return how much each sample counts for each class: alike for all that are in it, 1 together.

    Shapes: `[n]` or `[n, H, W]` -> `[n, classes]`, 0 where nothing counts.

    >>> class_shares(np.array([[[0, 2], [2, 255]]]), 3).tolist()
    [[0.5, 0.0, 0.5]]
    """
    counts = [np.bincount(counted(np.atleast_1d(one)), minlength=classes) for one in labels]
    rows = np.array(counts) > 0
    return np.asarray(rows / np.maximum(rows.sum(1, keepdims=True), 1))
