"""Heads whose outputs are maps of one size: whether a box has its centre there, and its box.

    centernet   [N, K, H, W], [N, 2, H, W] x 2  width and height, x and y of the centre, in cells
    the same    [N, K, H, W], [N, 2, H, W]      without places: centres are those of their cells
    centerface  the same, [N, 10, H, W]         logarithms of height and width, y and x; landmarks

Sizes and places of centres are told apart by names, else sizes come first; sizes alone are known by
their name. Other maps beside them, as of points or depths, are passed over.
Source: Zhou et al. 2019 (Objects as points); Xu et al. 2020 (CenterFace).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.detection.boxes import corners, fit_image
from onnxprune.detection.maps import by_cell, strides_of

Array: TypeAlias = npt.NDArray[Any]
Size: TypeAlias = tuple[int, int]

PAIR, LANDMARKS = 2, 10
"""Channels of sizes and of places, and of the five landmarks of a face."""
SCORED = ("heat", "hm", "score", "cls", "conf")
SIZED = ("wh", "size", "scale")
PLACED = ("off",)
"""Parts of the names of maps."""
FARTHEST = 12.0
"""The highest logarithm of a side; no image is as large."""
SHOWN, FILLED = 0.25, 0.2
"""A score that says that a box is there, and the share of places below which such ones are."""
MOSTLY, BESIDE = 0.9, 1.5
"""The share of boxes that are there which have a centre within so many cells of their own, and
sides within the image."""


class CentreMaps(NamedTuple):
    """The names of the outputs that hold the scores, the sizes and, if any, the places."""

    scores: str
    sizes: str
    places: str | None


def centre_maps(shapes: Mapping[str, Sequence[int]]) -> CentreMaps | None:
    """Return which outputs are which, None unless all are maps of the same height and width.

    Shapes: each `[N, C, H, W]`.
    """
    if any(len(shape) != 4 for shape in shapes.values()):
        return None
    if len({tuple(shape[2:]) for shape in shapes.values()}) != 1:
        return None
    wide = [name for name, shape in shapes.items() if shape[1] != PAIR]
    scores = _named(wide or [*shapes], SCORED) or next(iter(wide or shapes))
    pairs = [name for name, shape in shapes.items() if shape[1] == PAIR and name != scores]
    if len(pairs) == 1 and _named(pairs, SIZED) and not _named(pairs, PLACED):
        return CentreMaps(scores, pairs[0], None)
    if len(pairs) != 2:
        return None
    placed = _named(pairs, PLACED)
    sizes = _named(pairs, SIZED) or next(name for name in pairs if name != placed)
    return CentreMaps(scores, sizes, pairs[1 - pairs.index(sizes)])


def _named(names: Sequence[str], parts: Sequence[str]) -> str | None:
    """The one whose name has one of these parts, None of several or none."""
    found = [name for name in names if any(part in name.lower() for part in parts)]
    return found[0] if len(found) == 1 else None


def is_centres(
    shapes: Mapping[str, Sequence[int]], size: Size, classes: int, *, faces: bool
) -> bool:
    """Whether outputs are maps of the centres of so many classes, of `faces` with landmarks."""
    found = centre_maps(shapes)
    if found is None or len(strides_of(shapes, size)) != len(shapes):
        return False
    landmarks = any(shape[1] == LANDMARKS for shape in shapes.values())
    count = shapes[found.scores][1]
    faced = landmarks and count == 1 and found.places is not None
    return count == classes and faces == faced


def from_centres(outputs: Mapping[str, Array], size: Size, *, faces: bool) -> tuple[Array, Array]:
    """Return the box of each cell by its corners in pixels, and its scores as they are.

    Shapes: `[N, C, H, W]` -> `[N, H W, 4]`, `[N, H W, K]`.
    """
    found = centre_maps({name: array.shape for name, array in outputs.items()})
    assert found is not None, "a head is asked only for outputs that it fits"
    scores, sizes = (by_cell(outputs[name]).astype(np.float64) for name in found[:2])
    places = np.full_like(sizes, 0.5)
    if found.places is not None:
        places = by_cell(outputs[found.places]).astype(np.float64)
    cell, stride = _cells(scores.shape[1], size)
    if faces:
        extent = np.exp(np.minimum(sizes[..., ::-1], FARTHEST))
        centre = cell + places[..., ::-1] + 0.5
    else:
        extent, centre = np.maximum(sizes, 0), cell + places
    return corners(np.concatenate([centre, extent], -1) * stride), scores


def _cells(count: int, size: Size) -> tuple[Array, int]:
    """Column and row of each cell of one map, and its pixels. Shapes: `[H W, 2]`."""
    stride = max(round((size[0] * size[1] / max(count, 1)) ** 0.5), 1)
    y, x = np.mgrid[: size[0] // stride, : size[1] // stride]
    return np.stack([x.ravel(), y.ravel()], 1), stride


def peaks(scores: Array, size: Size) -> Array:
    """Return scores with zeros where one of the eight cells around has a higher one.

    Shapes: `[N, H W, K]` -> the same.
    """
    stride = _cells(scores.shape[1], size)[1]
    maps = scores.reshape(len(scores), size[0] // stride, size[1] // stride, scores.shape[2])
    wide = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = maps.shape[1:3]
    best = maps
    for row in range(3):
        for column in range(3):
            best = np.maximum(best, wide[:, row : row + height, column : column + width])
    return np.where(maps == best, maps, 0).reshape(scores.shape)


def sure_places(scores: Array) -> npt.NDArray[np.bool_] | None:
    """Return where a score says that a box is there, None unless that is at few places.

    Shapes: `[N, A, K]` -> `[N, A]`.
    """
    there = np.asarray(scores.max(-1, initial=0) >= SHOWN)
    return there if there.any() and there.mean() <= FILLED else None


def are_centres(boxes: Array, scores: Array, size: Size) -> bool:
    """Whether boxes and scores are such as centres give: few, near their cells, within the image.

    Shapes: `[N, H W, 4]`, `[N, H W, K]`.
    """
    there = sure_places(scores)
    if there is None:
        return False
    cell, stride = _cells(scores.shape[1], size)
    away = (boxes[..., :2] + boxes[..., 2:]) / 2 / stride - (cell + 0.5)
    sides = boxes[..., 2:] - boxes[..., :2]
    beside = (np.abs(away) <= BESIDE).all(-1)
    inside = (sides > 0).all(-1) & (sides <= np.array([size[1], size[0]])).all(-1)
    return bool(np.asarray(beside & inside)[there].mean() >= MOSTLY)


def are_boxes(boxes: Array, scores: Array, size: Size) -> bool:
    """Whether scores are high at few places, and most boxes there fit the image.

    Shapes: `[N, A, 4]`, `[N, A, K]`.
    """
    there = sure_places(scores)
    return there is not None and bool(fit_image(boxes[there], size).mean() >= MOSTLY)
