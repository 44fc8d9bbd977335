"""Which head a detector has, by the shapes of its outputs, their names and its metadata.

A head is recognised where exactly one fits. It is said what was recognised, and where none or
several fit the user says which (`--head`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.detection.boxes import SURE, Found
from onnxprune.detection.centres import is_centres
from onnxprune.detection.heads import (
    HEADS,
    Outputs,
    Size,
    boxes_and_scores,
    cells,
    is_grid,
    three_axes,
    v8_rows,
)
from onnxprune.detection.levels import is_levels, is_nano
from onnxprune.detection.maps import PER_CELL, is_v5, is_v8, strides_of
from onnxprune.detection.masks import Masks, find_masks
from onnxprune.detection.points import Points, find_points, read_points
from onnxprune.detection.units import find_units
from onnxprune.errors import DataError, check_name
from onnxprune.plugins import find_function, users_code

AUTO = "auto"
HEAD_NAMES = (AUTO, *HEADS, "file.py:function")
"""The names that the help lists."""
QUERIES = 1000
"""An output of more rows than this is not one of queries, or of what is left after suppression."""
YOLO_STRIDES = (8, 16, 32)
YOLO_STRIDES_6 = (8, 16, 32, 64)

USER_DECODE = (
    "a function (outputs: dict, size) that returns boxes [m, 4] as x1, y1, x2, y2 in pixels of the "
    "model's input, scores [m] and classes [m] for each image"
)

TRIED = 1 << 26
"""Numbers of an output; whether one of more is read is seen when there is one."""

Shapes = Mapping[str, Sequence[int | None]]

MISFITS = (
    *(ArithmeticError, AssertionError, LookupError, RuntimeError, StopIteration),
    *(TypeError, ValueError),
)
"""What a head raises on outputs of other axes than it reads."""


@dataclass(frozen=True)
class Detector:
    """A head, with the size, the number of classes and the anchors, if there are, of one model."""

    head: str
    size: Size
    classes: int
    anchors: tuple[float, ...] = ()

    def __call__(self, outputs: Outputs) -> list[Found]:
        """Return what is found in each image.

        Shapes: outputs `[N, ...]`.
        Raises: DataError where a user's function fails or returns something else, or the outputs
        are not those that the head reads.
        """
        if ":" not in self.head:
            with self._reads(outputs):
                return HEADS[self.head].decode(outputs, self.size, self.classes, self.anchors)
        decode = find_function(self.head, USER_DECODE)
        with users_code(f"head '{self.head}'", USER_DECODE):
            return [_found(*image) for image in decode(dict(outputs), self.size)]

    def units(self, outputs: Outputs) -> Mapping[str, npt.NDArray[Any]]:
        """Return by how much to multiply a change of each number; nothing where that is not known.

        Shapes: outputs `[n, ...]` -> as they are.
        Raises: DataError where the outputs are not those that the head reads.
        """
        head = HEADS.get(self.head)
        if head is None or not head.by_place:
            return {}

        def read(given: Outputs) -> tuple[Any, Any]:
            boxes, scores = head.raw(given, self.size, self.classes, self.anchors)
            if not each:
                return boxes, scores
            rows = v8_rows(given, self.size, self.classes)[..., 4 + self.classes :]
            ends = rows.reshape(*rows.shape[:2], -1, each)[..., :2]
            return np.concatenate([boxes, ends.reshape(*rows.shape[:2], -1)], -1), scores

        with self._reads(outputs):
            points = self.points(outputs)
            each = 0 if points is None else points.each
            return find_units(read, outputs)

    def masks(self, outputs: Outputs) -> Masks | None:
        """Return what the outputs say of masks, None of a head without.

        Shapes: outputs `[n, ...]`.
        """
        if self.head != "yolov8":
            return None
        found = HEADS[self.head].raw(outputs, self.size, self.classes)
        return find_masks(outputs, v8_rows(outputs, self.size, self.classes), found, self.size)

    def points(self, outputs: Outputs, each: int = 0) -> Points | None:
        """Return what the outputs say of points, None of a head without.

        `each` is how many numbers a point has, 0 where the values have to tell.
        Shapes: outputs `[n, ...]`.
        """
        if self.head != "yolov8" or self.masks(outputs) is not None:
            return None
        rows = v8_rows(outputs, self.size, self.classes)
        boxes, scores = HEADS[self.head].raw(outputs, self.size, self.classes)
        if each:
            return read_points(rows, boxes, scores, each)
        return find_points(rows, boxes, scores, SURE)

    def shows(self, outputs: Outputs) -> bool:
        """Return whether the values, too, look like those of a head that shapes say little of.

        Shapes: outputs `[n, ...]`.
        Raises: DataError where the outputs are not those that the head reads.
        """
        head = HEADS.get(self.head)
        if head is None or head.told_by is None:
            return False
        with self._reads(outputs):
            boxes, scores = head.raw(outputs, self.size, self.classes, self.anchors)
            return head.told_by(boxes, scores, self.size)

    @contextmanager
    def _reads(self, outputs: Outputs) -> Iterator[None]:
        """Say in a line that outputs do not have the axes of the head."""
        try:
            yield
        except MISFITS as error:
            said = _said({name: array.shape for name, array in outputs.items()})
            raise DataError(
                f"head '{self.head}': does not read {said} of {self.classes} classes; name "
                "another with --head, or decode with --head file.py:decode"
            ) from error

    def __str__(self) -> str:
        words = f"{self.classes} classes; {self.fit} to {self.size[1]} x {self.size[0]}"
        return f"detector: head '{self.head}' of {words} (--head names another)"

    @property
    def fit(self) -> str:
        """How an image becomes one of the model's size: letterbox, corner or stretch."""
        return HEADS[self.head].fit if self.head in HEADS else "letterbox"

    @property
    def preset(self) -> str:
        """The preset of the pixels that networks of this head usually take, often none."""
        return HEADS[self.head].preset if self.head in HEADS else ""


def _found(boxes: Any, scores: Any, kinds: Any) -> Found:
    """What a user's function says of one image."""
    found = Found(
        np.asarray(boxes, np.float64).reshape(-1, 4),
        np.asarray(scores, np.float64).ravel(),
        np.asarray(kinds, np.int64).ravel(),
    )
    if not len(found.boxes) == len(found.scores) == len(found.classes):
        raise ValueError(
            f"{len(found.boxes)} boxes, {len(found.scores)} scores, {len(found.classes)} classes"
        )
    return found


def check_head(head: str) -> None:
    """Refuse a name that is none of a head, or of a function.

    Raises: UnknownName.
    """
    if ":" in head:
        find_function(head, USER_DECODE)
    else:
        check_name("head", head, HEAD_NAMES)


def find_detector(
    shapes: Shapes,
    size: Size,
    classes: int,
    *,
    head: str = AUTO,
    task: str = "",
    anchors: tuple[float, ...] = (),
) -> Detector:
    """Return the detector whose outputs have these shapes: the one head that fits, or that given.

    `task` is what Ultralytics' metadata says the model does; `anchors` are those of the metadata.
    Raises: UnknownName for a head that does not exist; DataError where none fits, or several.
    """
    check_head(head)
    if ":" in head:
        return Detector(head, size, classes)
    outputs = {name: _empty(shape) for name, shape in shapes.items()}
    fitting = [name for name, fits in FITS.items() if fits(outputs, size, classes)]
    if task in ("segment", "pose") and not fitting:
        wide = (one.shape[1] > 4 + classes for one in three_axes(outputs))
        fitting = ["yolov8"] if any(wide) else []
    if head != AUTO and head not in fitting and not _may_read(head, outputs, size, classes):
        raise DataError(f"head '{head}': does not read {_said(shapes)} of {classes} classes")
    if head != AUTO or len(fitting) == 1:
        head = fitting[0] if head == AUTO else head
        if HEADS[head].anchored:
            _check_anchors(head, shapes, size, anchors)
        return Detector(head, size, classes, anchors if HEADS[head].anchored else ())
    found = f"heads {' and '.join(fitting)} fit" if fitting else "no head that is known fits"
    raise DataError(
        f"detector: {found} {_said(shapes)} of {classes} classes; name one with --head "
        f"({', '.join(HEADS)} or file.py:decode)"
    )


def _check_anchors(head: str, shapes: Shapes, size: Size, anchors: tuple[float, ...]) -> None:
    """Refuse maps whose anchors nobody has said.

    Raises: DataError.
    """
    problem = anchors_problem(head, shapes, size, anchors)
    if problem:
        raise DataError(problem)


def anchors_problem(head: str, shapes: Shapes, size: Size, anchors: tuple[float, ...]) -> str:
    """Return why maps cannot be read with these anchors, and how they could; else nothing."""
    levels = len(strides_of({name: _empty(shape).shape for name, shape in shapes.items()}, size))
    count = 2 * PER_CELL * levels
    if len(anchors) == count:
        return ""
    found = f"{len(anchors)} numbers" if anchors else "none"
    return (
        f"head '{head}': reads {_said(shapes)} by their anchors, and the model's metadata has "
        f"{found}; write it {count} as 'anchors', widths and heights in pixels from the finest "
        "map on, or decode with --head file.py:decode"
    )


def _empty(shape: Sequence[int | None]) -> npt.NDArray[Any]:
    """An array of that shape that takes no memory; axes that are open have size 0."""
    return np.broadcast_to(np.float32(0), [size or 0 for size in shape])


def _said(shapes: Shapes) -> str:
    texts = (
        f"{name} [{', '.join('?' if size is None else str(size) for size in shape)}]"
        for name, shape in shapes.items()
    )
    return ", ".join(texts)


def _may_read(head: str, outputs: Outputs, size: Size, classes: int) -> bool:
    """Whether a head reads outputs of other sizes than usual: its code says so.

    Nothing is made of a size that is only declared and beyond all.
    """
    if any(array.size > TRIED for array in outputs.values()):
        return True
    try:
        HEADS[head].decode(outputs, size, classes)
    except MISFITS:
        return False
    return True


# What each head looks like


def _rows(outputs: Outputs, columns: int) -> list[int]:
    """The number of rows of each output `[N, rows, columns]`."""
    return [one.shape[1] for one in three_axes(outputs) if one.shape[2] == columns]


def _yolov8(outputs: Outputs, size: Size, classes: int) -> bool:
    turned = any(is_grid(rows, size) for rows in _rows(outputs, 4 + classes))
    first = [one for one in three_axes(outputs) if one.shape[1] == 4 + classes]
    return turned or any(is_grid(one.shape[2], size) or not one.shape[2] for one in first)


def _yolov5(outputs: Outputs, size: Size, classes: int) -> bool:
    usual = [3 * cells(size, strides) for strides in (YOLO_STRIDES, YOLO_STRIDES_6)]
    return any(rows in usual for rows in _rows(outputs, 5 + classes))


def _yolox(outputs: Outputs, size: Size, classes: int) -> bool:
    return cells(size, YOLO_STRIDES) in _rows(outputs, 5 + classes)


def _end_to_end(outputs: Outputs, size: Size, classes: int) -> bool:
    found = _rows(outputs, 6)
    few = any(rows <= QUERIES and not is_grid(rows, size) for rows in found)
    return few and not _yolov5(outputs, size, classes)


def _rt_detr(outputs: Outputs, size: Size, classes: int) -> bool:
    found = _rows(outputs, 4 + classes)
    return any(0 < rows <= QUERIES and not is_grid(rows, size) for rows in found)


def _detr(outputs: Outputs, size: Size, classes: int) -> bool:
    return _named_detr(outputs) and _columns(outputs) in (classes, classes + 1)


def _ssd(outputs: Outputs, size: Size, classes: int) -> bool:
    return not _named_detr(outputs) and _columns(outputs) == classes + 1


def _retinanet(outputs: Outputs, size: Size, classes: int) -> bool:
    return not _named_detr(outputs) and _columns(outputs) == classes


def _named_detr(outputs: Outputs) -> bool:
    return any("logits" in name or name.startswith("pred_") for name in outputs)


def _columns(outputs: Outputs) -> int:
    """The number of columns of the scores beside boxes, 0 without any."""
    found = boxes_and_scores(outputs)
    return 0 if found is None else found[1].shape[2]


def _nms(outputs: Outputs, size: Size, classes: int) -> bool:
    boxes = [one.shape[:2] for one in three_axes(outputs) if one.shape[2] == 4]
    flat = [one.shape for one in outputs.values() if one.ndim == 2]
    return len(boxes) == 1 and flat.count(boxes[0]) == 2


def _torchvision(outputs: Outputs, size: Size, classes: int) -> bool:
    flat = [one.ndim for one in outputs.values()]
    boxes = [one for one in outputs.values() if one.ndim == 2 and one.shape[1] == 4]
    return len(boxes) == 1 and flat.count(1) == 2 and len(flat) == 3


def _yolov8_maps(outputs: Outputs, size: Size, classes: int) -> bool:
    return is_v8({name: one.shape for name, one in outputs.items()}, size, classes)


def _yolov5_maps(outputs: Outputs, size: Size, classes: int) -> bool:
    return is_v5({name: one.shape for name, one in outputs.items()}, size, classes)


def _picodet(outputs: Outputs, size: Size, classes: int) -> bool:
    return is_levels({name: one.shape for name, one in outputs.items()}, size, classes)


def _nanodet(outputs: Outputs, size: Size, classes: int) -> bool:
    return is_nano({name: one.shape for name, one in outputs.items()}, size, classes)


def _centres(outputs: Outputs, size: Size, classes: int, *, faces: bool) -> bool:
    shapes = {name: one.shape for name, one in outputs.items()}
    return is_centres(shapes, size, classes, faces=faces)


FITS: Mapping[str, Callable[[Outputs, Size, int], bool]] = {
    "yolov8": _yolov8,
    "yolov5": _yolov5,
    "yolox": _yolox,
    "end-to-end": _end_to_end,
    "rt-detr": _rt_detr,
    "detr": _detr,
    "ssd": _ssd,
    "retinanet": _retinanet,
    "nms": _nms,
    "torchvision": _torchvision,
    "yolov8-maps": _yolov8_maps,
    "yolov5-maps": _yolov5_maps,
    "picodet": _picodet,
    "nanodet": _nanodet,
    "centernet": partial(_centres, faces=False),
    "centerface": partial(_centres, faces=True),
}
"""Whether outputs look like those of a head."""
