"""Points of a YOLO that sees poses: those of each place, behind its box and scores.

    [N, 4+K+3P, A]    P points: x, y in pixels and how likely it is seen; or [N, 4+K+2P, A]; v8, v11

A place is the same before and after pruning, so its points are compared without a search for the
box that fits: by their distance as a share of the box that the unpruned network says.

Source: the object keypoint similarity of COCO.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

MOST = 100
"""Boxes of an image whose points are compared, the best."""
NEAR = 0.1
"""How far, as a share of the root of the box, a point is off that is worth 0.6. COCO's mean over
the points of a person is 0.13 of the root of its area, which is half of its box."""
SEEN = 0.5
"""From which likelihood on a point is seen."""
AROUND = 0.5
"""How far beyond its box, as a share of it, a point mostly lies at most."""


@dataclass(frozen=True, eq=False)
class Points:
    """What the places of some images say of points.

    `each` is how many numbers a point has, 3 with a likelihood, else 2.
    Shapes: boxes `[N, A, 4]` in pixels, scores `[N, A]`, places `[N, A, P, 2]` in pixels, likely
    `[N, A, P]`.
    """

    boxes: Array
    scores: Array
    places: Array
    likely: Array
    each: int

    def compared(self, row: int, now: Points, image: int, sure: float) -> Sequence[float]:
        """Return how near the points of an image are, twice the boxes, softly, and the boxes.

        `row` is the image's place here. A point counts that is seen here, and boxes that show one.
        """
        order = np.argsort(-self.scores[row], kind="stable")[:MOST]
        best = order[self.scores[row][order] >= sure]
        before, after = self.likely[row][best], now.likely[image][best]
        seen = before >= SEEN
        off = ((self.places[row][best] - now.places[image][best]) ** 2).sum(-1)
        near = np.exp(-off / (2 * NEAR**2 * _areas(self.boxes[row][best])[:, None]))
        shown = seen.any(-1)
        count = np.maximum(seen.sum(-1), 1)
        hard = (near * seen * (after >= SEEN)).sum(-1) / count
        left = np.minimum(after / np.maximum(before, SEEN), 1)
        soft = (near * seen * left).sum(-1) / count
        total = int(shown.sum())
        return float(hard[shown].sum()), 2 * total, float(soft[shown].sum()), total


def find_points(rows: Array, boxes: Array, scores: Array, sure: float) -> Points | None:
    """Return the points behind the scores of rows, None where the numbers there are none.

    Points lie in their box or beside it, where the score is high enough to tell.
    Shapes: rows `[N, A, 4 + K + k]`, boxes `[N, A, 4]`, scores `[N, A, K]`.
    """
    each = _numbers(rows[..., 4 + scores.shape[2] :])
    found = read_points(rows, boxes, scores, each) if each else None
    return found if found is not None and _are_around(found, found.scores >= sure) else None


def read_points(rows: Array, boxes: Array, scores: Array, each: int) -> Points:
    """Return the points behind the scores of rows, of so many numbers each.

    Shapes: rows `[N, A, 4 + K + each P]`, boxes `[N, A, 4]`, scores `[N, A, K]`.
    """
    behind = rows[..., 4 + scores.shape[2] :]
    held = behind.reshape(*behind.shape[:2], -1, each)
    likely = held[..., 2] if each > 2 else np.ones(held.shape[:3])
    return Points(boxes, scores.max(-1, initial=0), held[..., :2], likely, each)


def _numbers(behind: Array) -> int:
    """How many numbers a point has, 3 where each third is a likelihood, 0 where none fits.

    Shapes: `[N, A, k]`.
    """
    count = behind.shape[2]
    third = behind[..., 2::3]
    if count and count % 3 == 0 and third.size and third.min() >= 0 and third.max() <= 1:
        return 3
    return 2 if count and count % 2 == 0 else 0


def _are_around(found: Points, chosen: Array) -> bool:
    boxes, places = found.boxes[chosen], found.places[chosen]
    beyond = AROUND * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, None, :2] - beyond[:, None], boxes[:, None, 2:] + beyond[:, None]
    inside = np.asarray(((places >= low) & (places <= high)).all(-1))
    inside = inside[found.likely[chosen] >= SEEN]
    return bool(inside.size and inside.mean() > 0.5)


def _areas(boxes: Array) -> Array:
    return np.asarray(np.maximum(boxes[:, 2:] - boxes[:, :2], 1).prod(-1))
