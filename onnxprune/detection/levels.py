"""Heads of the scores of cells, and of shares of each side of their boxes, in rows.

    picodet  [N, A, K], [N, A, 4 B] x L    an output for each level, and scores apart
    nanodet  [N, A, K + 4 B]               all levels in one; of four a cell is known by its corner

Source: Yu et al. 2021 (PP-PicoDet), as Paddle exports it without its suppression; NanoDet and
NanoDet-Plus, as their `export_onnx` writes them.
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
SHARES = 4 * BINS
"""Columns of the sides of a box."""


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


def is_nano(shapes: Mapping[str, Sequence[int]], size: Size, classes: int) -> bool:
    """Whether the only output is the scores and shares of the cells of three or four levels."""
    found = [tuple(shape) for shape in shapes.values()]
    if len(found) != 1 or len(found[0]) != 3 or not classes:
        return False
    return found[0][1] in _counts(size) and found[0][2] == classes + SHARES


def _counts(size: Size) -> dict[int, tuple[int, ...]]:
    """Levels by how many cells they have: all, or all but the coarsest."""
    runs = (STRIDES, STRIDES[:-1])
    return {sum(_rows(size, stride) for stride in run): run for run in runs}


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
        shares = [name for name in names if shapes[name][2] == SHARES]
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
        boxes.append(_boxes(outputs[shares], size, stride, 0.5))
        scores.append(outputs[likely].astype(np.float64))
    return np.concatenate(boxes, 1), np.concatenate(scores, 1)


def from_rows(outputs: Mapping[str, Array], size: Size) -> tuple[Array, Array]:
    """Return corners in pixels and scores of all cells of one output, from fine to coarse.

    Shapes: `[N, A, K + 32]` -> `[N, A, 4]`, `[N, A, K]`.
    """
    (rows,) = outputs.values()
    strides = _counts(size)[rows.shape[1]]
    into = 0.0 if len(strides) == len(STRIDES) else 0.5  # NanoDet-Plus, and NanoDet before it
    boxes, start = [], 0
    for stride in strides:
        own = rows[:, start : start + _rows(size, stride), -SHARES:]
        boxes.append(_boxes(own, size, stride, into))
        start += own.shape[1]
    return np.concatenate(boxes, 1), rows[..., :-SHARES].astype(np.float64)


def _boxes(shares: Array, size: Size, stride: int, into: float) -> Array:
    """Corners in pixels of the boxes of a level, from a point so far into each cell.

    Shapes: `[N, A, 32]` -> `[N, A, 4]`.
    """
    y, x = np.mgrid[: -(-size[0] // stride), : -(-size[1] // stride)]
    point = np.stack([x.ravel(), y.ravel()], 1) + into
    return from_middles(point, mean_sides(shares.astype(np.float64), BINS)) * stride


def are_levels(boxes: Array, scores: Array, size: Size) -> bool:
    """Whether scores are such as cells have: high at few of them.

    Shapes: `[N, A, 4]`, `[N, A, K]`.
    """
    return sure_places(scores) is not None
