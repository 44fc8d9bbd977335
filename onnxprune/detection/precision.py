"""Average precision of each class, and a soft form of it that moves where it does not.

Average precision counts ranks: it stands still while scores fall in step, and jumps when two
change places. The soft form is, for each object, the overlap with the box that fits it best times
the score of its class there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.detection.boxes import CLASS, CROWD, Found, overlap
from onnxprune.errors import OnnxPruneError

Objects: TypeAlias = Sequence[npt.NDArray[Any]] | npt.NDArray[Any]
"""The objects of each image. Shapes: `[m, 6]` each."""

COCO_OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())
"""IoUs from which a box counts as found. Source: the COCO detection challenge."""
PER_IMAGE = 100
"""Boxes of a class in an image that count, best first. Source: the same."""


def average_precision(
    found: Sequence[Found],
    objects: Objects,
    classes: int,
    overlaps: Sequence[float] = COCO_OVERLAPS,
) -> FloatArray:
    """Return the average precision of each class over all images, NaN for one without objects.

    Shapes: objects `[m, 6]` for each image -> `[classes]`.
    Raises: OnnxPruneError where faster-coco-eval is not installed.
    """
    counted = objects_of(objects, classes)
    result = np.where(counted > 0, 0.0, np.nan)
    if not counted.any() or not any(len(one.boxes) for one in found):
        return result
    coco, judge = _library()
    truth, given = coco(_truth(objects, classes)), _results(found)
    judged = judge(truth, truth.loadRes(given), iouType="bbox", print_function=_silent)
    judged.params.imgIds = list(range(1, len(objects) + 1))
    judged.params.iouThrs = np.array(overlaps)
    judged.params.maxDets = [PER_IMAGE]
    judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
    judged.evaluate()
    judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, 0]  # [overlaps, recalls, classes]
    means = np.where(precision < 0, np.nan, precision).mean(axis=(0, 1))
    return np.where(counted > 0, means, np.nan)


def soft_scores(found: Sequence[Found], objects: Objects, classes: int) -> FloatArray:
    """Return, summed over the objects of each class, the best overlap times score of that class.

    Shapes: objects `[m, 6]` for each image -> `[classes]`.
    Units: sums of shares.
    """
    total = np.zeros(classes)
    for one, held in zip(found, objects, strict=True):
        counted = held[held[:, CROWD] == 0]
        if not len(counted) or not len(one.boxes):
            continue
        same = counted[:, CLASS, None] == one.classes[None]
        best = (overlap(counted[:, :4], one.boxes) * one.scores * same).max(axis=1)
        np.add.at(total, counted[:, CLASS].astype(np.int64), best)
    return total


def objects_of(objects: Objects, classes: int) -> IntArray:
    """Return how many objects of each class count. Shapes: `[m, 6]` an image -> `[classes]`."""
    held = np.concatenate([np.zeros((0, 6)), *objects])
    counted = held[held[:, CROWD] == 0, CLASS].astype(np.int64)
    return np.bincount(counted, minlength=classes)


def _library() -> Any:
    """COCO's evaluation, from faster-coco-eval."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise OnnxPruneError(
            "metric: average precision needs faster-coco-eval: pip install 'onnxprune[detection]'"
        ) from error
    return COCO, COCOeval_faster


def _silent(*words: object) -> None:
    pass


def _truth(objects: Objects, classes: int) -> dict[str, Any]:
    """The objects as COCO's annotations say them; everything counts from 1."""
    notes = [
        {
            "id": number,
            "image_id": image,
            "category_id": int(row[CLASS]) + 1,
            "bbox": _sized(row),
            "area": float((row[2] - row[0]) * (row[3] - row[1])),
            "iscrowd": int(row[CROWD]),
        }
        for number, (image, row) in enumerate(
            ((image, row) for image, held in enumerate(objects, 1) for row in held), 1
        )
    ]
    return {
        "images": [{"id": image} for image in range(1, len(objects) + 1)],
        "categories": [{"id": k, "name": str(k)} for k in range(1, classes + 1)],
        "annotations": notes,
    }


def _results(found: Sequence[Found]) -> list[dict[str, Any]]:
    """The boxes that are found, as COCO's results say them."""
    return [
        {
            "image_id": image,
            "category_id": int(kind) + 1,
            "bbox": _sized(box),
            "score": float(score),
        }
        for image, one in enumerate(found, 1)
        for box, score, kind in zip(one.boxes, one.scores, one.classes, strict=True)
    ]


def _sized(box: npt.NDArray[Any]) -> list[float]:
    x, y, right, bottom = (float(side) for side in box[:4])
    return [x, y, right - x, bottom - y]
