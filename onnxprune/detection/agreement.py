"""How far a detector still finds the boxes that the unpruned one finds, without any label.

A box counts from a score of `SURE` on. What agrees is told by the panoptic quality of each class:
the overlaps of the boxes that fit each other, over half of all boxes that either of both finds. So
a box that is lost, one too many, and one that has moved all cost something. Where places draw masks
as well, the overlaps of these are a part beside the classes (`onnxprune.detection.masks`), and so
is how near points stay (`onnxprune.detection.points`).

Source: Kirillov et al. 2019 (Panoptic segmentation), with boxes in the place of segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.detection.boxes import SURE, Found, overlap
from onnxprune.detection.metrics import ENOUGH
from onnxprune.evaluation import FIDELITY, REST, Accuracy, Metric

MASKS, POINTS = "masks", "points"
"""The names of the parts that masks and points are, and how a detector is asked for them."""
SAME = 0.5
"""Boxes that overlap by more are the same one. Source: Kirillov et al. 2019."""


@dataclass(frozen=True, eq=False)
class BoxAgreement:
    """Agreement with the boxes that the unpruned detector finds in its outputs, the `reference`.

    A class of fewer than `ENOUGH` of them is no part of its own. `classes[k]` names class k, which
    has its number for a name otherwise.
    Shapes: reference `[n, ...]` by output.
    """

    detector: Callable[..., Sequence[Found]]
    reference: Mapping[str, Any]
    classes: tuple[str, ...] = ()

    @cached_property
    def expected(self) -> Sequence[Found]:
        """What the unpruned detector finds in each sample."""
        return self.detector(self.reference)

    @cached_property
    def counts(self) -> IntArray:
        """How many boxes of each class that are. Shapes: `[classes]`."""
        kinds = [one.classes[one.scores >= SURE] for one in self.expected]
        return np.bincount(np.concatenate([[], *kinds]).astype(int), minlength=len(self.classes))

    @cached_property
    def place(self) -> IntArray:
        """The part that a class counts in, -1 where it is not judged. Shapes: `[classes]`."""
        often = self.counts >= ENOUGH
        place = np.where(often, np.cumsum(often) - 1, -1)
        rare = (self.counts > 0) & ~often
        return np.where(rare & (self.counts[rare].sum() >= ENOUGH), often.sum(), place)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of what has a score: classes, and the rare ones together."""
        named = [self._name(kind) for kind in np.flatnonzero(self.counts >= ENOUGH).tolist()]
        rest = [REST] if (self.place == len(named)).any() else []
        return (*named, *rest, *(self._beside if named or rest else ()))

    @cached_property
    def _beside(self) -> Mapping[str, Any]:
        """What the unpruned detector says of masks and of points, where it does."""
        found = {name: self._said(name, self.reference) for name in (MASKS, POINTS)}
        return {name: said for name, said in found.items() if said is not None}

    def _said(self, name: str, outputs: Mapping[str, Any], **told: int) -> Any:
        find = getattr(self.detector, name, None)
        return None if find is None else find(outputs, **told)

    def _name(self, kind: int) -> str:
        return self.classes[kind] if kind < len(self.classes) else str(kind)

    @property
    def metric(self) -> Metric:
        """The metric that measures it; its parts are named."""
        return Metric(FIDELITY, self._measure, FIDELITY, adds_up=True, parts=self.parts)

    def _measure(self, outputs: Mapping[str, Any], _: Any, numbers: IntArray) -> Accuracy:
        sums = np.zeros((4, len(self.parts)))
        classes = len(self.parts) - len(self._beside)
        for part, (name, before) in enumerate(self._beside.items(), classes):
            said = self._said(name, outputs, **({"each": before.each} if name == POINTS else {}))
            for image, number in enumerate(numbers.tolist()):
                sums[:, part] += before.compared(number, said, image, SURE)
        for now, number in zip(self.detector(outputs), numbers, strict=True):
            before = self.expected[int(number)]
            for part in range(classes):
                sums[:, part] += _compared(*(self._of(one, part) for one in (before, now)))
        right, both, soft, seen = sums
        return Accuracy(right, both / 2, soft, seen)

    def _of(self, found: Found, part: int) -> Found:
        place = np.append(self.place, -1)[np.minimum(found.classes, len(self.place))]
        rows = np.flatnonzero(place == part)
        return Found(found.boxes[rows], found.scores[rows], found.classes[rows])


def _compared(before: Found, now: Found) -> FloatArray:
    """What fits, how many boxes there are in all, what fits softly, and how many were expected.

    Softly: for each box, the overlap with the one that fits it best, times what is left of its
    score.
    """
    wanted = before.scores >= SURE
    sure = now.scores >= SURE
    expected, count = float(wanted.sum()), float(wanted.sum() + sure.sum())
    if not wanted.any() or not len(now.boxes):
        return np.array([0.0, count, 0.0, expected])
    same = before.classes[wanted, None] == now.classes[None]
    shared = overlap(before.boxes[wanted], now.boxes) * same
    left = np.minimum(now.scores[None] / before.scores[wanted, None], 1)
    soft = (shared * left).max(1).sum()
    shared = shared[:, sure]
    if not shared.size:
        return np.array([0.0, count, soft, expected])
    each = shared == shared.max(1, keepdims=True)
    mutual = each & (shared == shared.max(0, keepdims=True)) & (shared > SAME)
    return np.array([(shared * mutual).max(1).sum(), count, soft, expected])
