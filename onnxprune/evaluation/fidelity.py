"""Fidelity: how far a network still agrees with the unpruned one, without any label.

What agreement means depends on what an output holds (`onnxprune.data.Head`):

* class scores: the share of samples, or pixels, with the same highest class, for each class that
  the unpruned network gives; rare ones count as one
* a vector: the mean cosine, seen from the mean direction of the reference
* class scores along a sequence: how much of the text that is read off is the same (CTC, greedily)
* other numbers: 1 - error / variance of each row, such as the coordinates and the scores of boxes;
  probabilities that are rarely high count as one row; of a picture that the network is given only
  the variance that it adds counts

Every such part has a score from 0 to 1, and the harmonic mean over outputs of the harmonic mean
over their parts decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.data import Head
from onnxprune.engine import Portable
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.class_scores import true_probability
from onnxprune.evaluation.metrics import FIDELITY, Metric, Outputs

Array = npt.NDArray[Any]

FEW = 5
"""A class that the unpruned network gives to fewer samples is no part of its own."""
REST, REST_ROWS = "rare classes", "rare rows"


@dataclass(frozen=True, eq=False)
class Fidelity(Portable):
    """Agreement with the `reference`: the outputs of the unpruned network for the same samples.

    Shapes: each `[n, ...]`, by the tensor of a head.
    """

    heads: Sequence[Head]
    reference: Mapping[str, Array]

    @cached_property
    def metric(self) -> Metric:
        """The metric that measures it; its parts are named."""
        names = tuple(name for part in self._parts for name in part.names)
        reads = tuple(head.tensor for head in self.heads)
        return Metric(FIDELITY, self._measure, FIDELITY, adds_up=True, parts=names, reads=reads)

    @cached_property
    def _parts(self) -> list[_Part]:
        several = len(self.heads) > 1
        return [
            PARTS[head.kind](
                head, self.reference[head.tensor], f"{head.tensor} " if several else ""
            )
            for head in self.heads
        ]

    def _measure(self, outputs: Outputs, _: Any, numbers: IntArray) -> Accuracy:
        found = [part(outputs[part.head.tensor], numbers) for part in self._parts]
        right, total, soft = (np.concatenate(columns) for columns in zip(*found, strict=True))
        weight = np.concatenate([np.full(len(p.names), 1 / len(p.names)) for p in self._parts])
        return Accuracy(right, total, soft, weight=weight)


Sums = tuple[FloatArray, FloatArray, FloatArray]
"""What is right, of how much, and how much of it softly. Shapes: each `[parts]`."""


class _Part:
    """The score of one output; its sums over parts of the samples add up."""

    names: tuple[str, ...]

    def __init__(self, head: Head, reference: Array, prefix: str) -> None:
        self.head, self.reference = head, reference

    def __call__(self, outputs: Array, numbers: IntArray) -> Sums:
        raise NotImplementedError


class _Classes(_Part):
    """The same highest class, for each class that the reference gives often enough."""

    def __init__(self, head: Head, reference: Array, prefix: str) -> None:
        super().__init__(head, reference, prefix)
        self.given = highest(head, reference)
        numbers, times = np.unique(self.given, return_counts=True)
        often = numbers[times >= (FEW if self.given.ndim == 1 else 1)]
        self.place = np.full(max(int(numbers.max(initial=0)) + 1, 2), len(often))
        self.place[often] = np.arange(len(often))
        self.names = tuple(f"{prefix}class {number}" for number in often)
        if len(often) < len(numbers):
            self.names += (f"{prefix}{REST}",)

    def __call__(self, outputs: Array, numbers: IntArray) -> Sums:
        wanted = self.given[numbers].ravel()
        part, count = self.place[wanted], len(self.names)
        same = (highest(self.head, outputs).ravel() == wanted).astype(np.float64)
        scores = np.moveaxis(outputs, self.head.axis, -1)
        rows = scores.reshape(-1, scores.shape[-1])
        soft = true_probability(rows, wanted) if rows.shape[1] > 1 else same
        sums = (np.bincount(part, values, count) for values in (same, np.ones(len(part)), soft))
        right, total, softly = (np.asarray(one, np.float64) for one in sums)
        return right, total, softly


def highest(head: Head, outputs: Array) -> IntArray:
    """Return the class of each sample or position. Shapes: `[n, .., K, ..]` -> `[n, ...]`.

    Of one score it is whether it is above a half, as a probability.
    """
    if outputs.shape[head.axis] == 1:
        one = np.take(outputs, 0, head.axis)
        is_probability = bool(outputs.size and outputs.min() >= 0 and outputs.max() <= 1)
        best: IntArray = (one > (0.5 if is_probability else 0)).astype(np.int64)
        return best
    return np.asarray(outputs.argmax(head.axis))


def is_one_answer(head: Head, outputs: Array) -> bool:
    """Whether class scores give all samples the same answer, so that it tells nothing of them.

    Shapes: outputs `[n, ...]`.
    """
    if not head.is_scores or len(outputs) < 2:
        return False
    best = highest(head, outputs)
    return bool((best == best[:1]).all())


class _Vector(_Part):
    """The cosine of a vector with that of the reference, both seen from the mean direction.

    Without that, vectors that all point nearly the same way would agree whatever becomes of them.
    """

    def __init__(self, head: Head, reference: Array, prefix: str) -> None:
        super().__init__(head, reference, prefix)
        self.names = (f"{prefix}cosine",)
        unit = _unit(reference.reshape(len(reference), -1))
        self.mean = unit.mean(0) if len(unit) > 1 else np.zeros_like(unit[0])

    def __call__(self, outputs: Array, numbers: IntArray) -> Sums:
        both = (x.reshape(len(x), -1) for x in (outputs, self.reference[numbers]))
        a, b = (_unit(_unit(x) - self.mean) for x in both)
        cosine = np.array([(a * b).sum()])
        return cosine, np.array([float(len(a))]), cosine


def _unit(x: Array) -> FloatArray:
    """Vectors of length 1. Shapes: `[n, k]` -> `[n, k]`."""
    wide = x.astype(np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-30))


class _Sequence(_Part):
    """How much of the text that is read off a sequence of class scores is the same."""

    def __init__(self, head: Head, reference: Array, prefix: str) -> None:
        super().__init__(head, reference, prefix)
        self.names = (f"{prefix}text",)
        self.steps = self._best(reference)
        numbers, times = np.unique(self.steps, return_counts=True)
        self.blank = int(numbers[times.argmax()])

    def _best(self, outputs: Array) -> IntArray:
        """Shapes: `[n, T, K]` or `[n, T, 1, K]` -> `[n, T]`."""
        return highest(self.head, outputs).reshape(len(outputs), -1)

    def __call__(self, outputs: Array, numbers: IntArray) -> Sums:
        wanted, found = self.steps[numbers], self._best(outputs)
        same = sum(
            likeness(collapse(one, self.blank), collapse(two, self.blank))
            for one, two in zip(wanted, found, strict=True)
        )
        rows = np.moveaxis(outputs, self.head.axis, -1).reshape(wanted.size, -1)
        soft = true_probability(rows, wanted.ravel()).reshape(wanted.shape)
        spoken = wanted != self.blank
        each = np.where(spoken.any(1), (soft * spoken).sum(1) / np.maximum(spoken.sum(1), 1), 1.0)
        return np.array([float(same)]), np.array([float(len(found))]), np.array([each.sum()])


def collapse(steps: IntArray, blank: int) -> list[int]:
    """Return what greedy CTC decoding reads: repeats once, blanks not at all. Shapes: `[T]`.

    Source: Graves et al. 2006, section 3.

    >>> collapse(np.array([0, 7, 7, 0, 7, 3, 3]), 0)
    [7, 7, 3]
    """
    kept = np.diff(steps, prepend=-1) != 0
    return [int(k) for k in steps[kept] if k != blank]


def likeness(a: Sequence[int], b: Sequence[int]) -> float:
    """Return 1 - edit distance / length of the longer one; 1 for two empty ones.

    >>> likeness([1, 2, 3], [1, 3]), likeness([], [])
    (0.6666666666666667, 1.0)
    """
    row = list(range(len(b) + 1))
    for i, one in enumerate(a, 1):
        before, row[0] = row[0], i
        for j, two in enumerate(b, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (one != two))
    return 1 - row[-1] / max(len(a), len(b), 1)


class _Values(_Part):
    """1 - error / variance of each row; the variance is that over samples at the same position.

    Rows that hardly vary, such as the scores of a class that never occurs, are left out; those that
    say too rarely that something is there count as one.
    """

    def __init__(self, head: Head, reference: Array, prefix: str) -> None:
        super().__init__(head, reference, prefix)
        self.mean = mean_of(reference)
        spread = spread_of(head, reference, self.mean)
        self.chosen = varying_rows(head, reference, spread)
        rare = rare_rows(head, reference, self.chosen)
        own = np.flatnonzero(self.chosen & ~rare)
        self.place = np.where(rare, len(own), np.cumsum(self.chosen & ~rare) - 1)[self.chosen]
        alone = len(self.chosen) == 1
        self.names = (f"{prefix}values",) if alone else tuple(f"{prefix}row {k}" for k in own)
        self.names += (f"{prefix}{REST_ROWS}",) * bool(rare.any())
        self.own = np.ones(len(self.chosen)) if head.residual is None else head.residual
        self.whole = self._together(spread * self.own)

    def _together(self, sums: FloatArray) -> FloatArray:
        """Sums of rows by what has a score. Shapes: `[rows]` -> `[parts]`."""
        return np.asarray(np.bincount(self.place, sums[self.chosen], len(self.names)), np.float64)

    def _squares(self, x: Array, share: FloatArray | float = 1.0) -> FloatArray:
        """The sum of squares of what has a score. Shapes: `[n, ...]`, `[rows]` -> `[parts]`."""
        return self._together(share * row_sums(self.head, x.astype(np.float64) ** 2))

    def __call__(self, outputs: Array, numbers: IntArray) -> Sums:
        wanted = self.reference[numbers]
        spread = self._squares(wanted - self.mean, self.own) / self.whole
        error = self._squares(outputs.astype(np.float64) - wanted) / self.whole
        of = len(self.reference)
        right = (spread - error) * of
        return right, spread * of, right


CHUNK = 16
"""Samples that are squared at once, in double precision."""


def mean_of(reference: Array) -> Array:
    """Return the mean over samples; of a single one, zeros. Shapes: `[n, ...]` -> `[...]`."""
    return np.asarray(reference.mean(0)) if len(reference) > 1 else np.zeros_like(reference[0])


def spread_of(head: Head, reference: Array, mean: Array) -> FloatArray:
    """Return the sum of squares of each row, seen from the mean over samples.

    Shapes: reference `[n, ...]`, mean `[...]` -> `[rows]`.
    """
    parts = (reference[k : k + CHUNK] - mean for k in range(0, len(reference), CHUNK))
    return np.asarray(sum(row_sums(head, part.astype(np.float64) ** 2) for part in parts))


def row_sums(head: Head, x: Array) -> FloatArray:
    """Return the sum of each row, of all in one where `axis` is 0. Shapes: `[n, ...]` -> `[r]`."""
    if head.axis == 0:
        return np.array([x.sum(dtype=np.float64)])
    axes = tuple(k for k in range(x.ndim) if k != head.axis)
    return np.asarray(x.sum(axes, dtype=np.float64))


TINY = 1e-3
"""Share of the spread of the row that varies most below which a row is left out."""
SHOWN = 0.25
"""A row of probabilities below this says nowhere that anything is there."""


def varying_rows(head: Head, reference: Array, spread: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which rows are judged. Shapes: reference `[n, ...]`, spread `[rows]` -> `[rows]`.

    Rows of probabilities are a kind of their own beside others: what is tiny beside coordinates in
    pixels may be a score.
    """
    if head.axis == 0:
        return np.ones(1, np.bool_)
    axes = tuple(k for k in range(reference.ndim) if k != head.axis)
    low, high = reference.min(axes), reference.max(axes)
    scores = (low >= 0) & (high <= 1)
    chosen = np.zeros(len(spread), np.bool_)
    for kind in (scores, ~scores):
        if kind.any():
            chosen |= kind & (spread > 0) & (spread >= TINY * spread[kind].max())
    shown = chosen & (~scores | (high >= SHOWN))
    if not shown.any():
        shown = chosen
    return shown if shown.any() else np.ones(len(spread), np.bool_)


def rare_rows(head: Head, reference: Array, chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return which of the judged rows are probabilities that are high in too few samples.

    One alone is a row like others.
    Shapes: reference `[n, ...]`, chosen `[rows]` -> `[rows]`.
    """
    if head.axis == 0:
        return np.zeros(1, np.bool_)
    by_sample = tuple(k for k in range(1, reference.ndim) if k != head.axis)
    low, high = reference.min(by_sample), reference.max(by_sample)
    scores = (low.min(0) >= 0) & (high.max(0) <= 1)
    rare = chosen & scores & ((high >= SHOWN).sum(0) < FEW)
    return rare if rare.sum() > 1 else np.zeros_like(rare)


BOX, FILLED = 4, 0.5
"""A detector has a box beside scores, and shows nothing at most places: its scores are lower."""


def likely_rows(head: Head, reference: Array) -> tuple[int, ...]:
    """Return the rows of scores of a detector: probabilities, high at few places, beside boxes.

    Shapes: reference `[n, ...]`.
    """
    if head.axis == 0 or head.is_scores:
        return ()
    axes = tuple(k for k in range(reference.ndim) if k != head.axis)
    scores = (reference.min(axes) >= 0) & (reference.max(axes) <= 1)
    if not scores.any() or (~scores).sum() < BOX:
        return ()
    best = np.compress(scores, reference, head.axis).max(head.axis)
    shows = best.max() >= SHOWN and best.mean() < FILLED
    return tuple(np.flatnonzero(scores).tolist()) if shows else ()


PARTS = {"classes": _Classes, "vector": _Vector, "sequence": _Sequence, "values": _Values}
