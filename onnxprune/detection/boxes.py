"""Boxes: their form, their overlap, and the best of those that overlap.

A box is `x1, y1, x2, y2` in pixels of what the model sees. The objects of a sample are one array
`[m, 6]`: a box, its class, and 1 where it is not to be counted (a crowd, or one marked difficult).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray

CLASS, CROWD = 4, 5
"""The columns of an object behind its box."""
SURE = 0.25
"""The score from which a box counts. Source: Ultralytics' prediction."""


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector finds in one image. Shapes: boxes `[m, 4]`, scores `[m]`, classes `[m]`."""

    boxes: FloatArray
    scores: FloatArray
    classes: IntArray


def corners(centred: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return boxes by their corners that are given by centre and size.

    Shapes: `[..., 4]` -> `[..., 4]`.

    >>> corners(np.array([5.0, 5.0, 4.0, 2.0])).tolist()
    [3.0, 4.0, 7.0, 6.0]
    """
    half = centred[..., 2:] / 2
    return np.concatenate([centred[..., :2] - half, centred[..., :2] + half], axis=-1)


def fit_image(boxes: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return which boxes have their centres in an image, and sides from a pixel to those of it.

    Shapes: `[..., 4]` -> `[...]`. Units: size, height and width in pixels.

    >>> boxes = np.array([[-1, 0, 3, 4], [0, 0, 0, 4], [30, 0, 34, 4], [0, 0, 8, 17]])
    >>> fit_image(boxes, (16, 32)).tolist()
    [True, False, True, False]
    """
    low, high = boxes[..., :2], boxes[..., 2:]
    middle, sides, whole = (low + high) / 2, high - low, np.array(size[::-1])
    fits = (middle >= 0) & (middle <= whole) & (sides >= 1) & (sides <= whole)
    return np.asarray(fits.all(-1))


def overlap(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the intersection of each box of `a` with each of `b` over their union (IoU).

    Shapes: `[m, 4]`, `[n, 4]` -> `[m, n]`.
    Units: 0 to 1.

    >>> overlap(np.array([[0, 0, 2, 2]]), np.array([[1, 0, 3, 2], [5, 5, 6, 6]])).round(3).tolist()
    [[0.333, 0.0]]
    """
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    union = _area(a)[:, None] + _area(b)[None] - common
    return np.asarray(common / np.maximum(union, 1e-9))


def _area(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1))


def best_of_overlapping(found: Found, most: float) -> Found:
    """Keep a box unless a better one of its class overlaps it by more than `most`, best first.

    Non-maximum suppression, of all boxes at once: whether a box stays follows from those before
    it, so that a few rounds settle all of them.
    Shapes: as `Found` has them.
    Units: most, IoU.
    """
    order = np.argsort(-found.scores, kind="stable")
    boxes, classes = found.boxes[order], found.classes[order]
    kept = np.ones(len(order), np.bool_)
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        kept[rows] = _greedy(np.triu(overlap(boxes[rows], boxes[rows]) > most, k=1))
    order = order[kept]
    return Found(found.boxes[order], found.scores[order], found.classes[order])


def _greedy(over: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which boxes stay, where `over[i, j]` says that i suppresses j if it stays itself, i < j."""
    kept: npt.NDArray[np.bool_] = np.ones(len(over), np.bool_)
    while True:
        now = np.asarray(~over[kept].any(axis=0))
        if np.array_equal(now, kept):
            return kept
        kept = now
