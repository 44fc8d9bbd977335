"""Reading a data set of any layout, and its classes as the model numbers them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from onnxprune.detection.annotations import Annotated, annotation_kind
from onnxprune.detection.boxes import CLASS
from onnxprune.detection.coco import read_coco
from onnxprune.detection.voc import read_voc
from onnxprune.detection.yolo import read_yolo
from onnxprune.errors import DataError
from onnxprune.plugins import first_line

READERS = {"yolo": read_yolo, "coco": read_coco, "voc": read_voc}
"""What reads each kind of data set."""


def read_annotations(source: str | Path) -> Annotated:
    """Read the images and objects of a data set, by the layout that it is of.

    Raises: DataError, one line, for what is not as its layout has it.
    """
    try:
        found = READERS[annotation_kind(source)](Path(source))
    except OSError as error:  # as of a path that is too long for the system
        raise DataError(f"{source}: {first_line(error)}; look at the paths in it") from error
    if not found.files:
        raise DataError(f"{source}: no images; expected some with boxes")
    if not any(len(held) for held in found.objects):
        raise DataError(
            f"{source}: {len(found.files)} images without a single box ({found.said}); look "
            "whether the labels lie where this layout has them"
        )
    return found


def numbered(found: Annotated, names: Sequence[str]) -> Annotated:
    """Return the objects with the numbers that the model gives to their classes.

    `names` are the model's classes, where its metadata lists them; without them the data set's
    numbers are the model's.
    Raises: DataError where an object is of a class that the model does not name.
    """
    if not names:
        return found
    numbers = {_plain(name): number for number, name in enumerate(names)}
    place = [numbers.get(_plain(name)) for name in found.classes]
    used = {int(k) for held in found.objects for k in held[:, CLASS]}
    if not any(number is not None for number in place) and len(place) == len(names):
        return found  # names of another kind, as many
    lost = next((found.classes[k] for k in sorted(used) if place[k] is None), None)
    if lost is not None:
        close = get_close_matches(lost, names, 1, 0)
        raise DataError(
            f"samples: class '{lost}' is none of the {len(names)} classes that the model's "
            f"metadata names (nearest: {close[0]}); rename it, or leave its boxes out"
        )
    table = np.array([0 if number is None else number for number in place], np.float64)
    objects = []
    for held in found.objects:
        moved = held.copy()
        moved[:, CLASS] = table[held[:, CLASS].astype(np.int64)]
        objects.append(moved)
    return Annotated(found.files, tuple(objects), tuple(names), found.said)


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()


def limited(found: Annotated, most: int | None) -> Annotated:
    """Return the first images of each class, at most so many; one counts for all classes in it."""
    if most is None:
        return found
    taken = Counter[int]()
    rows = []
    for row, held in enumerate(found.objects):
        kinds = np.unique(held[:, CLASS].astype(np.int64)).tolist()
        if any(taken[kind] < most for kind in kinds):
            taken.update(kinds)
            rows.append(row)
    return found.chosen(rows)
