"""Label maps: the class of every pixel, where a sample shows more than one.

Labels are `[n]`, a class for each sample, or maps `[n, H, W]`, a class for each pixel; every user
of labels takes both. A pixel labelled `IGNORED` does not count. The class scores of a pixel lie
along one axis of the output: `[n, K, H, W]`, or `[n, H, W, K]` as Keras exports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray

LabelArray = TypeVar("LabelArray", bound=Any)

IGNORED = 255
"""The label of pixels that do not count. Source: the PASCAL VOC and Cityscapes label maps."""


def class_axis(output: Sequence[int], maps: Sequence[int]) -> int:
    """Return the axis of the class scores: 1, or 3 where only then the others fit the maps.

    Shapes: output, the shape of the output; maps, that of the labels, `[n]` or `[n, H, W]`.

    >>> class_axis((8, 21, 32, 64), (8, 64, 128)), class_axis((8, 32, 64, 21), (8, 64, 128))
    (1, 3)
    """
    if len(output) != 4 or len(maps) != 3:
        return 1
    height, width = maps[1:]
    first = output[2] * width == output[3] * height
    last = output[1] * width == output[2] * height
    return 3 if last and not first else 1


def resize(labels: LabelArray, size: Sequence[int]) -> LabelArray:
    """Resize maps of NumPy or torch by the nearest pixel; without a copy where they fit.

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
    taken: LabelArray = labels[..., rows[:, None], columns]
    return taken


def fit_labels(labels: LabelArray, output: Sequence[int]) -> LabelArray:
    """Resize label maps to the height and width of an output; labels of samples stay as they are.

    Shapes: labels `[n]` or `[n, H, W]`; output as in `class_axis`.
    """
    if len(labels.shape) != 3 or len(output) != 4:
        return labels
    axis = class_axis(output, labels.shape)
    return resize(labels, [size for k, size in enumerate(output) if k not in (0, axis)])


def counted(labels: IntArray) -> IntArray:
    """Return the labels of samples, or of pixels that are not ignored, in one row.

    Shapes: `[n]` or `[..., H, W]` -> `[m]`.
    """
    return labels if labels.ndim == 1 else labels[labels != IGNORED]


def class_shares(labels: IntArray, classes: int) -> npt.NDArray[np.float64]:
    """Return the share that each sample counts for each class: equal for all classes in it.

    Shapes: labels `[n]` or `[n, H, W]` -> `[n, classes]`.
    Units: shares that sum to 1 for each sample, or to 0 where no pixel counts.

    >>> class_shares(np.array([[[0, 2], [2, 255]]]), 3).tolist()
    [[0.5, 0.0, 0.5]]
    """
    counts = [np.bincount(counted(np.atleast_1d(one)), minlength=classes) for one in labels]
    rows = np.array(counts) > 0
    return np.asarray(rows / np.maximum(rows.sum(1, keepdims=True), 1))
