"""What samples are judged by: class numbers, label maps, or what a metric of one's own takes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.data.label_maps import IGNORED, counted
from onnxprune.errors import DataError

MAX_LABEL = 1_000_000
"""A greater label is a mistake (a date as a folder name), not the number of a class."""


def read_labels(labels: npt.NDArray[Any], where: str) -> IntArray:
    """Make class numbers of what a source calls labels.

    Shapes: `[n]`, `[n, 1]` -> `[n]`; `[n, H, W]`, `[n, 1, H, W]` -> `[n, H, W]`.
    Raises: DataError where they are none.
    """
    if labels.ndim in (2, 4) and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iufb":
        raise DataError(f"{where}: y is {labels.dtype}, expected class numbers 0, 1, 2, ...")
    with np.errstate(invalid="ignore"):
        y = labels.astype(np.int64)
    wrong = labels[(y != labels) | (y < 0) | (y > MAX_LABEL)]
    if wrong.size:
        raise DataError(
            f"{where}: label {wrong[0]}, expected class numbers 0, 1, 2, ...; for other targets "
            "give --metric file.py:function, or --metric fidelity, which needs none"
        )
    if y.ndim not in (1, 3):
        raise DataError(
            f"{where}: y is {list(labels.shape)}, expected one label or label map [H, W] per "
            "sample; y holds class numbers, not one-hot rows"
        )
    return y


def are_class_numbers(labels: npt.NDArray[Any]) -> bool:
    """Return whether targets can be class numbers or label maps: integers of such a shape."""
    fits = labels.dtype.kind in "iub" and labels.ndim in (1, 3) and labels.size > 0
    return bool(fits and labels.min() >= 0 and labels.max() <= MAX_LABEL)


def name_by_number(y: IntArray, where: str) -> tuple[str, ...]:
    """Name the classes by their numbers. Shapes: `[n]` or `[n, H, W]`."""
    labels = counted(y)
    if not labels.size:
        raise nothing_counts(where)
    return tuple(map(str, range(int(labels.max()) + 1)))


def nothing_counts(where: str) -> DataError:
    """Return the error of label maps in which no pixel counts."""
    return DataError(f"{where}: every pixel is labelled {IGNORED}, which does not count")


class Room:
    """How many samples of each class are still wanted."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken = Counter[int]()

    def takes(self, label: Any) -> bool:
        """Whether a sample is wanted for a class in it; if so it counts. Shapes: `[]`, `[H, W]`."""
        held = np.unique(counted(np.atleast_1d(label))).tolist()
        if self._limit is not None and all(self._taken[k] >= self._limit for k in held):
            return False
        self._taken.update(held)
        return True
