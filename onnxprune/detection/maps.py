"""Heads whose outputs are the maps of each level, as the last convolutions of a YOLO give them.

    yolov8-maps  [N, 4 B + K, H, W] x L     B shares for each side of a box, logits; v8, v11
    yolov5-maps  [N, 3 (5 + K), H, W] x L   three boxes a cell, as parts of its anchors; v5, v7

Maps are of one image size, by different strides: L of them, from fine to coarse. Boxes and scores
of `yolov8-maps` may be outputs of their own, and those of `yolov5-maps` `[N, 3, H, W, 5 + K]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray

Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]

BINS = 16
"""Shares of each side of a box. Source: Ultralytics' YOLOv8 (`reg_max`)."""
PER_CELL = 3
"""Anchors of a cell. Source: YOLOv3 and those after it."""
EMPTY = 0.9
"""The share of places, at least, that hold no object more likely than one."""


def strides_of(shapes: Mapping[str, Sequence[int]], size: Size) -> dict[str, int]:
    """Return the pixels of a cell of each output that is a map, from fine to coarse.

    Shapes: `[N, C, H, W]` or `[N, 3, H, W, C]`.
    """
    found = {}
    for name, shape in shapes.items():
        if len(shape) not in (4, 5) or 0 in shape[2:4]:
            continue
        stride = size[0] // shape[2]
        if stride > 1 and (shape[2] * stride, shape[3] * stride) == size:
            found[name] = stride
    return dict(sorted(found.items(), key=lambda one: one[1]))


def is_v8(shapes: Mapping[str, Sequence[int]], size: Size, classes: int) -> bool:
    """Whether each level has the shares of four sides and K logits, together or apart."""
    return _are(shapes, size, [{4 * BINS + classes}, {4 * BINS, classes}])


def is_v5(shapes: Mapping[str, Sequence[int]], size: Size, classes: int) -> bool:
    """Whether each level has three boxes a cell."""
    return _are(shapes, size, [{PER_CELL * (5 + classes)}])


def are_anchored(outputs: Mapping[str, Array], size: Size, classes: int) -> bool:
    """Whether maps are those of boxes on anchors: of such, most say that no object is there.

    Shapes: outputs `[n, ...]`.
    """
    if not is_v5({name: one.shape for name, one in outputs.items()}, size, classes):
        return False
    rows = [by_cell(one).reshape(-1, 5 + classes) for one in outputs.values()]
    return float((np.concatenate(rows)[:, 4] < 0).mean()) >= EMPTY


def map_classes(shapes: Mapping[str, Sequence[int]]) -> set[int]:
    """Return how many classes maps of several sizes may be of, none of other outputs.

    Shapes: each `[N, C, H, W]` or `[N, 3, H, W, C]`.
    """
    if len({tuple(shape[2:4]) for shape in shapes.values()}) < 2:
        return set()
    if any(len(shape) not in (4, 5) for shape in shapes.values()):
        return set()
    counts = {shape[1] * (shape[4] if len(shape) == 5 else 1) for shape in shapes.values()}
    if len(counts) == 2:
        return counts - {4 * BINS} if 4 * BINS in counts else set()
    (count,) = counts if len(counts) == 1 else (0,)
    found = {count - 4 * BINS} | ({count // PER_CELL - 5} if count % PER_CELL == 0 else set())
    return {classes for classes in found if classes > 0}


def _are(shapes: Mapping[str, Sequence[int]], size: Size, wanted: list[set[int]]) -> bool:
    levels: dict[int, list[int]] = {}
    for name, stride in strides_of(shapes, size).items():
        shape = shapes[name]
        levels.setdefault(stride, []).append(shape[1] * (shape[4] if len(shape) == 5 else 1))
    held = [set(one) for one in levels.values() if len(set(one)) == len(one)]
    whole = len(held) == len(levels) > 1 and sum(map(len, held)) == len(shapes)
    return whole and any(all(one == each for one in held) for each in wanted)


def from_shares(outputs: Mapping[str, Array], size: Size) -> tuple[Array, Array]:
    """Return corners in pixels and logits: a side is the mean of its shares, in cells.

    Shapes: -> `[N, A, 4]`, `[N, A, K]`.
    Source: Li et al. 2020 (Generalized focal loss), as YOLOv8 has it.
    """
    boxes, logits = [], []
    for rows, middle, stride in _levels(outputs, size):
        boxes.append(from_middles(middle, mean_sides(rows[..., : 4 * BINS], BINS)) * stride)
        logits.append(rows[..., 4 * BINS :])
    return np.concatenate(boxes, 1), np.concatenate(logits, 1)


def mean_sides(shares: Array, bins: int) -> Array:
    """Return the mean of the shares of each side. Shapes: `[N, A, 4 bins]` -> `[N, A, 4]`."""
    each = shares.reshape(*shares.shape[:2], 4, bins)
    e = np.exp(each - each.max(-1, keepdims=True))
    return np.asarray((e / e.sum(-1, keepdims=True)) @ np.arange(bins))


def from_middles(middle: Array, sides: Array) -> Array:
    """Return corners by how far each side is from a middle. Shapes: `[A, 2]`, `[N, A, 4]`."""
    return np.concatenate([middle - sides[..., :2], middle + sides[..., 2:]], -1)


def from_anchors(
    outputs: Mapping[str, Array], size: Size, classes: int, anchors: Sequence[float]
) -> tuple[Array, Array]:
    """Return corners in pixels, and the logits of an object and of each class.

    Shapes: anchors `[L * 3 * 2]`, widths and heights in pixels -> `[N, A, 4]`, `[N, A, 1 + K]`.
    Source: Ultralytics' YOLOv5 (`Detect`).
    """
    boxes, logits, count = [], [], 5 + classes
    levels = list(_levels(outputs, size))
    sizes = np.reshape(anchors, (len(levels), PER_CELL, 2))
    for (rows, middle, stride), own in zip(levels, sizes, strict=True):
        each = rows.reshape(*rows.shape[:2], PER_CELL, count)
        part = 0.5 * (1 + np.tanh(each[..., :4] / 2))
        centre = (2 * part[..., :2] - 1 + middle[:, None]) * stride
        half = (2 * part[..., 2:]) ** 2 * own / 2
        found = np.concatenate([centre - half, centre + half], -1)
        boxes.append(found.reshape(len(rows), -1, 4))
        logits.append(each[..., 4:].reshape(len(rows), -1, 1 + classes))
    return np.concatenate(boxes, 1), np.concatenate(logits, 1)


def _levels(
    outputs: Mapping[str, Array], size: Size
) -> Iterator[tuple[FloatArray, FloatArray, int]]:
    """The numbers of each cell, its middle in cells, and its pixels, from fine to coarse.

    Shapes: `[N, H W, C]`, `[H W, 2]`.
    """
    strides = strides_of({name: array.shape for name, array in outputs.items()}, size)
    for stride in dict.fromkeys(strides.values()):
        rows = [by_cell(outputs[name]) for name, own in strides.items() if own == stride]
        rows.sort(key=lambda one: one.shape[2] != 4 * BINS)  # boxes before scores
        y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
        middle = np.stack([x.ravel(), y.ravel()], 1) + 0.5
        yield np.concatenate(rows, 2).astype(np.float64), middle, stride


def by_cell(array: Array) -> Array:
    """Return a map by cells. Shapes: `[N, C, H, W]` or `[N, 3, H, W, C]` -> `[N, H W, C]`."""
    turned = array.transpose(0, 2, 3, 1) if array.ndim == 4 else array.transpose(0, 2, 3, 1, 4)
    return turned.reshape(len(array), array.shape[2] * array.shape[3], -1)


def parse_anchors(text: str) -> tuple[float, ...]:
    """Return the numbers of a list, also of lists of lists; none where it says something else.

    >>> parse_anchors("[[10, 13, 16, 30], [[33, 23], [30, 61]]]")
    (10.0, 13.0, 16.0, 30.0, 33.0, 23.0, 30.0, 61.0)
    """
    plain = text.replace("[", " ").replace("]", " ").replace("(", " ").replace(")", " ")
    try:
        return tuple(float(one) for one in plain.replace(",", " ").split())
    except ValueError:
        return ()
