"""The head of PicoDet: the scores and the boxes of the cells of each level, outputs of their own.

    picodet  [N, A, K], [N, A, 4 B] x L    scores, and B shares of each side of a box, in cells

Source: Yu et al. 2021 (PP-PicoDet), as Paddle exports it without its suppression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.detection.centres import sure_places
from onnxprune.detection.maps import from_middles, mean_sides

Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]

BINS = 8
"""Shares of each side. Source: PicoDet's `reg_max`, which is one less."""
STRIDES = (8, 16, 32, 64)
"""Pixels of a cell of each level; the coarsest may be left out."""


def level_classes(shapes: Mapping[str, Sequence[int]]) -> int:
    """Return the classes of outputs that are pairs of scores and shares, 0 where they are not.

    Shapes: each `[N, A, C]`.
    """
    pairs = _pairs(shapes)
    counts = {shapes[scores][2] for scores, _ in pairs}
    return counts.pop() if len(counts) == 1 and len(pairs) > 1 else 0


def is_levels(shapes: Mapping[str, Sequence[int]], size: Size, classes: int) -> bool:
    """Whether outputs are pairs of scores and shares for the cells of each level."""
    if level_classes(shapes) != classes or not classes:
        return False
    rows = [shapes[scores][1] for scores, _ in _pairs(shapes)]
    return rows == [_rows(size, stride) for stride in STRIDES[: len(rows)]]


def _rows(size: Size, stride: int) -> int:
    return -(-size[0] // stride) * -(-size[1] // stride)


def _pairs(shapes: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """The names of the scores and the shares of each level, from fine to coarse."""
    if any(len(shape) != 3 for shape in shapes.values()):
        return []
    levels: dict[int, list[str]] = {}
    for name, shape in shapes.items():
        levels.setdefault(shape[1], []).append(name)
    pairs = []
    for _, names in sorted(levels.items(), reverse=True):
        shares = [name for name in names if shapes[name][2] == 4 * BINS]
        if len(names) != 2 or not shares:
            return []
        boxes = shares[-1]
        pairs.append((names[1 - names.index(boxes)], boxes))
    return pairs


def from_levels(outputs: Mapping[str, Array], size: Size) -> tuple[Array, Array]:
    """Return corners in pixels and scores of all cells, from fine to coarse.

    Shapes: -> `[N, A, 4]`, `[N, A, K]`.
    """
    boxes, scores = [], []
    pairs = _pairs({name: array.shape for name, array in outputs.items()})
    for (likely, shares), stride in zip(pairs, STRIDES, strict=False):
        y, x = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
        middle = np.stack([x.ravel(), y.ravel()], 1) + 0.5
        sides = mean_sides(outputs[shares].astype(np.float64), BINS)
        boxes.append(from_middles(middle, sides) * stride)
        scores.append(outputs[likely].astype(np.float64))
    return np.concatenate(boxes, 1), np.concatenate(scores, 1)


def are_levels(boxes: Array, scores: Array, size: Size) -> bool:
    """Whether scores are such as cells have: high at few of them.

    Shapes: `[N, A, 4]`, `[N, A, K]`.
    """
    return sure_places(scores) is not None
