"""Average precision as a metric: the outputs of a detector against the objects of its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.detection.boxes import Found
from onnxprune.detection.precision import (
    COCO_OVERLAPS,
    average_precision,
    objects_of,
    soft_scores,
)
from onnxprune.errors import DataError
from onnxprune.evaluation import METRICS, Accuracy, Metric

ENOUGH = 5
"""A class of fewer objects is not judged: each of them would be a fifth of its score, or more."""
OVERLAPS: Mapping[str, Sequence[float]] = {"map": COCO_OVERLAPS, "map50": (0.5,)}
"""The metrics, and the IoUs from which a box counts as found; the mean over them is taken."""


@dataclass(frozen=True, eq=False)
class Precision:
    """The average precision of a detector on samples, for each class that has enough objects.

    Shapes: objects `[m, 6]` for each sample, in an array `[n]` of arrays.
    """

    detector: Callable[..., Sequence[Found]]
    objects: Any
    classes: tuple[str, ...]

    @cached_property
    def judged(self) -> BoolArray:
        """Which classes are judged: those with enough objects. Shapes: `[classes]`.

        Raises: DataError where none has.
        """
        counted = objects_of(self.objects, len(self.classes))
        if not (counted >= ENOUGH).any():
            raise DataError(
                f"samples: no class has {ENOUGH} objects or more ({int(counted.sum())} in all); "
                "give more images"
            )
        return np.asarray(counted >= ENOUGH)

    @property
    def left_out(self) -> tuple[str, ...]:
        """The classes that have objects, but too few to be judged."""
        counted = objects_of(self.objects, len(self.classes))
        return tuple(name for name, n in zip(self.classes, counted, strict=True) if 0 < n < ENOUGH)

    def metric(self, name: str) -> Metric:
        """Return the metric of a name of `OVERLAPS`.

        Raises: DataError, when it measures, for classes that the samples do not have, and where
        none is judged.
        """

        def measure(outputs: Mapping[str, Any], targets: Any, _: IntArray) -> Accuracy:
            return self._measure(self.detector(outputs), targets, OVERLAPS[name])

        def of_rows(outputs: Mapping[str, Any], targets: Any) -> Callable[[IntArray], Accuracy]:
            found = self.detector(outputs)
            return lambda rows: self._measure(
                [found[k] for k in rows], targets[rows], OVERLAPS[name]
            )

        caption, parts = METRICS[name].caption, self.classes
        return Metric(name, measure, caption, parts=parts, of_rows=of_rows)

    def _measure(
        self, found: Sequence[Found], objects: Sequence[Any], overlaps: Sequence[float]
    ) -> Accuracy:
        """Score each judged class by its average precision; its soft form stands beside it."""
        kinds = len(self.classes)
        wrong = next((k for one in found for k in one.classes if not 0 <= k < kinds), None)
        if wrong is not None:
            raise DataError(
                f"detector: finds class {wrong}, and the samples have {kinds}; name the classes of "
                "the model in its metadata, or decode with --head file.py:function"
            )
        counted = np.where(self.judged, objects_of(objects, kinds), 0).astype(np.float64)
        share = np.nan_to_num(average_precision(found, objects, kinds, overlaps))
        soft = soft_scores(found, objects, kinds)
        return Accuracy(share * counted, counted, np.where(self.judged, soft, 0.0))
