"""Operators that look for something, and return as many rows as they find.

The size of what they make is known only at run time, so the channels that they read stay; where
`Compress` is told by a constant what to take, elements are moved and the constant is restated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.ops._op import Indices, op
from onnxprune.ops._torch import torch
from onnxprune.ops.array import reshape, take
from onnxprune.ops.channels import MOVES, Pins
from onnxprune.ops.site import Edit, PrunedSite

if TYPE_CHECKING:
    from torch import Tensor

FINDS = Pins("which returns as many rows as it finds")


@op("NonZero", FINDS, since=(9, 13))
def non_zero(x: Tensor, /) -> Tensor:
    """The places of all elements but zeros, one a column. Source: ONNX operator NonZero-13."""
    return torch.nonzero(x).T


def _restate_compress(site: PrunedSite) -> Edit | None:
    """What is said of positions that go is left out."""
    before = site.before
    if before.values[1] is None or before.shapes[0] is None:
        return None
    shape, axis = before.shapes[0], site.attribute("axis")
    alive = np.ones(shape, np.bool_)
    for k, kept in site.kept[0].items():
        alive &= kept.reshape([-1 if j == k else 1 for j in range(len(shape))])
    left = alive.ravel() if axis is None else site.kept[0].get(axis % len(shape))
    if left is None or left.all():
        return None
    condition = before.values[1]
    return Edit(inputs={1: condition[left[: condition.size]]})


@op("Compress", MOVES, since=(9, 11, 28), restate=_restate_compress)
def compress(x: Tensor, condition: Indices, /, *, axis: int | None = None) -> Tensor:
    """The positions of an axis, or of all elements in a row, for which a condition holds.

    Source: ONNX operator Compress-28.
    """
    found: Any = np.flatnonzero(condition) if isinstance(condition, np.ndarray) else condition
    places = found if isinstance(found, np.ndarray) else torch.nonzero(found)[:, 0]
    return take(reshape(x, (-1,)), places, 0) if axis is None else take(x, places, axis)


def _corners(boxes: Tensor, center_point: int) -> Tensor:
    """Boxes as their lower and upper corners. Shapes: `[M, 4]` -> `[M, 2, 2]`."""
    if center_point:
        middle, half = boxes[:, :2].flip(1), boxes[:, 2:].flip(1) / 2
        return torch.stack((middle - half, middle + half), 1)
    ends = boxes.reshape(-1, 2, 2)
    return torch.stack((ends.amin(1), ends.amax(1)), 1)


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union of one box with others. Shapes: `[2, 2]`, `[M, 2, 2]` -> `[M]`."""
    sides = torch.minimum(box[1], boxes[:, 1]) - torch.maximum(box[0], boxes[:, 0])
    common = sides.clamp(min=0).prod(1)
    union = (box[1] - box[0]).prod() + (boxes[:, 1] - boxes[:, 0]).prod(1) - common
    return torch.where(common > 0, common / union, torch.zeros_like(common))


@op("NonMaxSuppression", FINDS, since=(10, 11))
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: Tensor | None = None,
    overlap: Tensor | None = None,
    least: Tensor | None = None,
    /,
    *,
    center_point_box: int = 0,
) -> Tensor:
    """The best boxes of each class that overlap no better one by more than `overlap`.

    Shapes: boxes `[N, M, 4]`, scores `[N, K, M]` -> `[found, 3]`: sample, class, box.
    Source: ONNX operator NonMaxSuppression-11.
    """
    limit, threshold = int(most or 0), float(overlap or 0.0)
    rows: list[tuple[int, int, int]] = []
    for n, (given, by_class) in enumerate(zip(boxes, scores, strict=True)):
        corners = _corners(given, center_point_box)
        for k, values in enumerate(by_class):
            chosen: list[int] = []
            for m in torch.argsort(values, descending=True, stable=True).tolist():
                good = least is None or bool(values[m] > least)
                if good and len(chosen) < limit:
                    if not (_overlap(corners[m], corners[chosen]) > threshold).any():
                        chosen.append(m)
            rows += [(n, k, m) for m in chosen]
    return torch.tensor(rows, dtype=torch.int64, device=boxes.device).reshape(-1, 3)
