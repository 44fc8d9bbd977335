"""Masks of a YOLO that segments: the numbers of each place weigh prototypes, which add up to one.

    [N, 4+K+k, A] and [N, k, H, W]    centres, sizes, scores and k numbers; k prototypes; v8, v11

A place is the same before and after pruning, so its mask is compared without a search for the box
that fits: in the box that the unpruned network says, by overlap.

Source: Bolya et al. 2019 (YOLACT), as Ultralytics has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray

Array: TypeAlias = npt.NDArray[Any]

MOST = 100
"""Masks of an image that are compared, those of the best boxes."""


@dataclass(frozen=True, eq=False)
class Masks:
    """What the places of some images say of masks.

    Shapes: boxes `[N, A, 4]` in pixels, scores `[N, A]`, weights `[N, A, k]`, prototypes
    `[N, k, H, W]`; size, height and width of an image.
    """

    boxes: Array
    scores: Array
    weights: Array
    prototypes: Array
    size: tuple[int, int]

    def best(self, image: int, sure: float) -> IntArray:
        """Return the places of an image whose boxes count, at most `MOST`. Shapes: -> `[m]`."""
        order = np.argsort(-self.scores[image], kind="stable")[:MOST]
        return np.asarray(order[self.scores[image][order] >= sure])

    def drawn(self, image: int, places: IntArray) -> FloatArray:
        """Return how likely each pixel is of each place. Shapes: places `[m]` -> `[m, H, W]`."""
        weighed = np.tensordot(self.weights[image][places], self.prototypes[image], 1)
        return np.asarray(0.5 * (1 + np.tanh(weighed.astype(np.float64) / 2)))

    def inside(self, image: int, places: IntArray) -> npt.NDArray[np.bool_]:
        """Return which pixels lie in the box of each place. Shapes: places `[m]` -> `[m, H, W]`."""
        height, width = self.prototypes.shape[2:]
        shares = self.boxes[image][places] / np.array([*self.size[::-1]] * 2)
        left, top, right, bottom = (shares * [width, height, width, height]).T[..., None]
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        across, down = (x > left) & (x < right), (y > top) & (y < bottom)
        return np.asarray(down[:, :, None] & across[:, None, :])

    def compared(self, row: int, now: Masks, image: int, sure: float) -> Sequence[float]:
        """Return the overlap of the masks of an image, twice their number, softly, their number.

        `row` is the image's place here. Softly: of the probabilities of the pixels.
        """
        places = self.best(row, sure)
        inside = self.inside(row, places)
        old, new = (held.drawn(k, places) * inside for held, k in ((self, row), (now, image)))
        hard = [_overlap(one > 0.5, other > 0.5) for one, other in zip(old, new, strict=True)]
        soft = [_overlap(one, other) for one, other in zip(old, new, strict=True)]
        return sum(hard), 2 * len(places), sum(soft), len(places)


def find_masks(
    outputs: Mapping[str, Array], rows: Array, found: tuple[Array, Array], size: tuple[int, int]
) -> Masks | None:
    """Return the masks of rows whose last numbers are as many as there are prototypes, else None.

    `found` are the boxes and the scores of each class that a head reads off the rows.
    Shapes: rows `[N, A, 4 + K + k]`, found `[N, A, 4]` and `[N, A, K]`.
    """
    boxes, scores = found
    weights = rows[..., 4 + scores.shape[2] :]
    maps = [one for one in outputs.values() if one.ndim == 4 and one.shape[1] == weights.shape[2]]
    if not weights.shape[2] or len(maps) != 1:
        return None
    return Masks(boxes, scores.max(-1, initial=0), weights, maps[0], size)


def _overlap(one: Array, other: Array) -> float:
    """The shared part of two masks, 1 where both are empty. Shapes: `[H, W]`."""
    whole = float(np.maximum(one, other).sum())
    return float(np.minimum(one, other).sum()) / whole if whole else 1.0
