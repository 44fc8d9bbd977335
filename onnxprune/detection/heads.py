"""Heads: what a detector's outputs say, for each kind of detector, as boxes, scores and classes.

    yolov8       [N, 4+K, A]            centres and sizes in pixels, scores; or turned; also v11
    yolov5       [N, 3A, 5+K]           the same, each score times that of an object; also v7
    yolox        [N, A, 5+K]            the same, decoded or not (by the cells of 8, 16, 32 pixels)
    end-to-end   [N, M, 6]              corners, score, class; without overlaps: yolov10, yolo26
    rt-detr      [N, Q, 4+K]            centres and sizes from 0 to 1, scores
    detr         [N, Q, 4], [N, Q, K+1] the same, logits with "no object" last; or [N, Q, K] without
    ssd          [N, A, 4], [N, A, K+1] corners in pixels or from 0 to 1, scores, background first
    retinanet    [N, A, 4], [N, A, K]   the same without background
    nms          [N, M, 4], [N, M] x 2  corners, scores, classes, after suppression; and their count
    torchvision  [M, 4], [M], [M]       the same of one image; classes count from 1
    yolov8-maps  [N, 64+K, H, W] x L    the maps of each level, undecoded (`maps`)
    yolov5-maps  [N, 3(5+K), H, W] x L  the same, as parts of anchors that are given
    picodet      [N, A, K], [N, A, 32]  of each level: scores, eight shares of each side (`levels`)
    nanodet      [N, A, K+32]           the same of all levels in one; NanoDet and NanoDet-Plus
    centernet    [N, K, H, W], 2 x 2    maps of centres, sizes and places in cells (`centres`)
    centerface   [N, 1, H, W], 2 x 2    the same, logarithms of sizes; and [N, 10, H, W]

A head reads outputs by their axes. `K` is the number of the model's classes. What one finds is cut
at `LOWEST` and, where the graph has not done so, suppressed by `overlap`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.detection.boxes import Found, best_of_overlapping, corners
from onnxprune.detection.centres import are_boxes, are_centres, from_centres, peaks
from onnxprune.detection.levels import are_levels, from_levels, from_rows
from onnxprune.detection.maps import from_anchors, from_shares

Array: TypeAlias = npt.NDArray[Any]
Outputs: TypeAlias = Mapping[str, Array]
Size: TypeAlias = tuple[int, int]
"""Height and width of what the model sees."""

LOWEST = 0.001
"""The score from which a box counts. Source: Ultralytics' validation."""
CANDIDATES, KEPT = 1000, 300
"""Boxes of an image, best first, before and after suppression."""
STRIDES = (4, 8, 16, 32, 64, 128)
"""Pixels of a cell, from fine to coarse."""
YOLOX_STRIDES = (8, 16, 32)

Raw: TypeAlias = tuple[Array, Array]
"""Boxes and the scores of each class. Shapes: `[N, A, 4]`, `[N, A, K]`."""


@dataclass(frozen=True)
class BoxHead:
    """A kind of detector: how its outputs are read, and what it is given.

    `read` takes outputs, size and K, and returns what is found in each image, or, `by_place`, the
    box and the scores of each place. `overlap` is the IoU above which of two boxes of a class the
    worse one goes, 1 where none does. `fit` says how an image becomes one of the model's size;
    `anchored`, that `read` takes anchors, too. `choose` leaves some scores of each place in
    place of an overlap. `told_by` says whether boxes and scores look like those of this head, where
    shapes alone say little.
    """

    name: str
    read: Callable[..., Any]
    by_place: bool = True
    overlap: float = 1.0
    fit: str = "letterbox"
    preset: str = ""
    anchored: bool = False
    choose: Callable[[Array, Size], Array] | None = None
    told_by: Callable[[Array, Array, Size], bool] | None = None

    def decode(
        self, outputs: Outputs, size: Size, classes: int, anchors: Sequence[float] = ()
    ) -> list[Found]:
        """Return what is found in each image, best first.

        Shapes: outputs as the head has them; anchors as `maps.from_anchors` takes them.
        """
        found = self.raw(outputs, size, classes, anchors)
        if self.choose is not None:
            found = (found[0], self.choose(found[1], size))
        return [self._cleaned(one) for one in (_images(*found) if self.by_place else found)]

    def raw(self, outputs: Outputs, size: Size, classes: int, anchors: Sequence[float] = ()) -> Any:
        """Return what `read` does. Shapes: as those of `decode`."""
        more = (anchors,) if self.anchored else ()
        return self.read(outputs, size, classes, *more)

    def _cleaned(self, found: Found) -> Found:
        rows = np.flatnonzero(found.scores >= LOWEST)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")][:CANDIDATES]
        best = Found(found.boxes[rows], found.scores[rows], found.classes[rows])
        if self.overlap < 1:
            best = best_of_overlapping(best, self.overlap)
        return Found(best.boxes[:KEPT], best.scores[:KEPT], best.classes[:KEPT])


def cells(size: Size, strides: tuple[int, ...]) -> int:
    """How many cells there are of these sizes.

    >>> cells((640, 640), (8, 16, 32))
    8400
    """
    return sum(-(-size[0] // stride) * -(-size[1] // stride) for stride in strides)


def is_grid(anchors: int, size: Size) -> bool:
    """Whether so many anchors are one for each cell of some sizes in a row."""
    runs = (STRIDES[i:j] for i in range(len(STRIDES)) for j in range(i + 1, len(STRIDES) + 1))
    return any(cells(size, run) == anchors for run in runs)


def three_axes(outputs: Outputs) -> list[Array]:
    """The outputs `[N, A, ...]` of three axes, in order."""
    return [array for array in outputs.values() if array.ndim == 3]


# One output


def v8_rows(outputs: Outputs, size: Size, classes: int) -> Array:
    """Return the rows of a YOLOv8: a box, scores, and what is behind them.

    Shapes: -> `[N, A, 4 + K + k]`.
    """
    turned = (
        array.transpose(0, 2, 1)
        if array.shape[1] >= 4 + classes and not is_grid(array.shape[1], size)
        else array
        for array in three_axes(outputs)
    )
    return next(one for one in turned if one.shape[2] >= 4 + classes)


def _yolov8(outputs: Outputs, size: Size, classes: int) -> Raw:
    rows = v8_rows(outputs, size, classes)
    # Columns behind the scores are masks or points.
    return corners(rows[..., :4]), rows[..., 4 : 4 + classes]


def _yolov5(outputs: Outputs, size: Size, classes: int) -> Raw:
    rows = next(one for one in three_axes(outputs) if one.shape[2] >= 5 + classes)
    return corners(rows[..., :4]), rows[..., 5 : 5 + classes] * rows[..., 4:5]


def _yolox(outputs: Outputs, size: Size, classes: int) -> Raw:
    rows = next(one for one in three_axes(outputs) if one.shape[2] == 5 + classes)
    place, stride = _grid(size)
    boxes = rows[..., :4]
    middle = (place + 0.5) * stride
    as_pixels = np.median(np.abs(boxes[..., :2] - middle))
    as_steps = np.median(np.abs((boxes[..., :2] + place) * stride - middle))
    if as_steps < as_pixels:
        centre, extent = (boxes[..., :2] + place) * stride, np.exp(boxes[..., 2:]) * stride
        boxes = np.concatenate([centre, extent], axis=-1)
    return corners(boxes), rows[..., 5:] * rows[..., 4:5]


def _grid(size: Size) -> tuple[FloatArray, FloatArray]:
    """Column and row of each cell, and its pixels. Shapes: `[A, 2]`, `[A, 1]`."""
    places, strides = [], []
    for stride in YOLOX_STRIDES:
        rows, columns = -(-size[0] // stride), -(-size[1] // stride)
        y, x = np.mgrid[:rows, :columns]
        places.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full((rows * columns, 1), stride))
    return np.concatenate(places).astype(np.float64), np.concatenate(strides).astype(np.float64)


def _end_to_end(outputs: Outputs, size: Size, classes: int) -> Iterator[Found]:
    rows = next(one for one in three_axes(outputs) if one.shape[2] == 6)
    for one in rows:
        yield _given(one[:, :4], one[:, 4], one[:, 5])


def _rt_detr(outputs: Outputs, size: Size, classes: int) -> Raw:
    rows = next(one for one in three_axes(outputs) if one.shape[2] == 4 + classes)
    return _in_pixels(corners(rows[..., :4]), size), _sigmoid(rows[..., 4:])


# Maps of each level


def _yolov8_maps(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, logits = from_shares(outputs, size)
    return boxes, _sigmoid(logits)


def _yolov5_maps(outputs: Outputs, size: Size, classes: int, anchors: Sequence[float]) -> Raw:
    boxes, logits = from_anchors(outputs, size, classes, anchors)
    scores = 0.5 * (1 + np.tanh(logits / 2))
    return boxes, scores[..., 1:] * scores[..., :1]


def _picodet(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, scores = from_levels(outputs, size)
    return boxes, _sigmoid(scores)


def _nanodet(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, scores = from_rows(outputs, size)
    return boxes, _sigmoid(scores)


def _centres(outputs: Outputs, size: Size, classes: int, *, faces: bool = False) -> Raw:
    boxes, scores = from_centres(outputs, size, faces=faces)
    return boxes, _sigmoid(scores)


# Boxes and scores apart


def boxes_and_scores(outputs: Outputs) -> Raw | None:
    """The two outputs `[N, A, 4]` and `[N, A, K]`, or None; scores may be `[N, K, A]`.

    Where both have four columns the names say which one holds boxes.
    """
    arrays = {name: array for name, array in outputs.items() if array.ndim in (3, 4)}
    flat = {
        name: array[:, :, 0] if array.ndim == 4 and array.shape[2] == 1 else array
        for name, array in arrays.items()
    }
    flat = {name: array for name, array in flat.items() if array.ndim == 3}
    fours = [name for name, array in flat.items() if array.shape[2] == 4]
    named = [name for name in fours if "box" in name.lower() or "loc" in name.lower()]
    for name in named if len(fours) > 1 and named else fours:
        boxes = flat[name]
        for other, scores in flat.items():
            if other == name or len(scores) != len(boxes):
                continue
            if scores.shape[1] == boxes.shape[1]:
                return boxes, scores
            if scores.shape[2] == boxes.shape[1]:
                return boxes, scores.transpose(0, 2, 1)
    return None


def _pair(outputs: Outputs) -> Raw:
    found = boxes_and_scores(outputs)
    assert found is not None, "a head is asked only for outputs that it fits"
    return found


def _detr(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, logits = _pair(outputs)
    apart = logits.shape[2] == classes
    scores = _sigmoid(logits) if apart else _softmax(logits)[..., :classes]
    return _in_pixels(corners(boxes), size), scores


def _ssd(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, scores = _pair(outputs)
    return _in_pixels(boxes, size), _softmax(scores)[..., 1:]


def _retinanet(outputs: Outputs, size: Size, classes: int) -> Raw:
    boxes, scores = _pair(outputs)
    return _in_pixels(boxes, size), _sigmoid(scores)


def _nms(outputs: Outputs, size: Size, classes: int, first: int = 0) -> Iterator[Found]:
    """Read what is left after suppression; `first` is the number of the first class."""
    samples = [
        dict(zip(outputs, rows, strict=True)) for rows in zip(*outputs.values(), strict=True)
    ]
    name = next(key for key, rows in samples[0].items() if rows.ndim and rows.shape[-1] == 4)
    flat = [key for key in outputs if key != name and any(one[key].size > 1 for one in samples)]
    counts = [key for key in outputs if key not in (name, *flat)]
    if len(flat) < 2:  # nothing, or one box at most, in every sample: the last output is the count
        flat, counts = [key for key in outputs if key != name][:2], counts[2:]
    kind = class_output(
        {key: np.concatenate([np.ravel(one[key]) for one in samples]) for key in flat}
    )
    (likely,) = (key for key in flat if key != kind)
    for one in samples:
        boxes = one[name].reshape(-1, 4)
        if name.startswith("detection_boxes"):  # TensorFlow's are y, x, y, x
            boxes = boxes[:, [1, 0, 3, 2]]
        count = int(np.ravel(one[counts[0]])[0]) if counts else len(boxes)
        scores, kinds = (np.ravel(one[key])[:count] for key in (likely, kind))
        yield _given(_in_pixels(boxes[:count], size), scores, kinds - first)


def class_output(flat: Outputs) -> str:
    """Which of two outputs holds classes: by its type, its name, or whole numbers."""
    whole = [name for name, array in flat.items() if array.dtype.kind in "iu"]
    said = [name for name in flat if "class" in name.lower() or "label" in name.lower()]
    seen = [name for name, array in flat.items() if np.array_equal(array, np.round(array))]
    return (*whole, *said, *seen, *flat)[0]


# Shared


def _images(boxes: Array, scores: Array) -> Iterator[Found]:
    """What is found in each image: every class of every box that is likely enough.

    Shapes: boxes `[N, A, 4]`, scores `[N, A, K]`.
    """
    for places, likely in zip(boxes, scores, strict=True):
        rows, kinds = np.nonzero(likely >= LOWEST)
        yield _given(places[rows], likely[rows, kinds], kinds)


def _given(boxes: Array, scores: Array, kinds: Array) -> Found:
    kinds = np.round(kinds).astype(np.int64)
    return Found(boxes.astype(np.float64), scores.astype(np.float64), kinds)


def _in_pixels(boxes: Array, size: Size) -> Array:
    """Boxes in pixels; those whose right and lower sides are rarely beyond 2 are from 0 to 1.

    Shapes: `[..., 4]` -> `[..., 4]`.
    """
    sides = np.abs(boxes[..., 2:])
    drawn = sides[sides > 0]  # empty places are zero
    if drawn.size and np.median(drawn) > 2:
        return boxes
    height, width = size
    return boxes * np.array([width, height, width, height], np.float64)


def _is_probability(scores: Array) -> bool:
    return bool(scores.size == 0 or (scores.min() >= 0 and scores.max() <= 1))


def _sigmoid(scores: Array) -> Array:
    """Probabilities of each class by itself; scores from 0 to 1 are such already."""
    return scores if _is_probability(scores) else 0.5 * (1 + np.tanh(scores / 2))


def _softmax(scores: Array) -> Array:
    """Probabilities over the last axis; scores from 0 to 1 are such already."""
    if _is_probability(scores):
        return scores
    e = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


HEADS: Mapping[str, BoxHead] = MappingProxyType(
    {
        head.name: head
        for head in (
            BoxHead("yolov8", _yolov8, overlap=0.7, preset="unit"),
            BoxHead("yolov5", _yolov5, overlap=0.6, preset="unit"),
            BoxHead("yolox", _yolox, overlap=0.65, fit="corner", preset="bgr", told_by=are_boxes),
            BoxHead("end-to-end", _end_to_end, by_place=False, preset="unit"),
            BoxHead("rt-detr", _rt_detr, fit="stretch", preset="unit"),
            BoxHead("detr", _detr, fit="stretch"),
            BoxHead("ssd", _ssd, overlap=0.45, fit="stretch"),
            BoxHead("retinanet", _retinanet, overlap=0.5, fit="stretch"),
            BoxHead("nms", _nms, by_place=False),
            BoxHead(
                "torchvision", partial(_nms, first=1), by_place=False, fit="stretch", preset="unit"
            ),
            BoxHead("yolov8-maps", _yolov8_maps, overlap=0.7, preset="unit", told_by=are_levels),
            BoxHead("yolov5-maps", _yolov5_maps, overlap=0.6, preset="unit", anchored=True),
            BoxHead(
                "picodet",
                _picodet,
                overlap=0.6,
                fit="stretch",
                preset="imagenet",
                told_by=are_levels,
            ),
            BoxHead("nanodet", _nanodet, overlap=0.6, fit="stretch", told_by=are_levels),
            BoxHead("centernet", _centres, choose=peaks, told_by=are_centres),
            BoxHead(
                "centerface",
                partial(_centres, faces=True),
                overlap=0.3,
                fit="stretch",
                preset="raw",
                told_by=are_centres,
            ),
        )
    }
)
"""By name, as `--head` takes them."""
