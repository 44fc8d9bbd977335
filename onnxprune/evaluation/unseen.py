"""How much of the harmonic mean is lost on images that nobody has seen, from a few that were.

Hits of a few samples say little: one of thirty is three points. And a network that was fitted to
these samples is too sure of them, before as well as after. So a sample counts by the probability of
its true class in place of a hit, with both networks brought to the same sharpness first. That makes
the figure smooth, and blind to what only scales the scores. Where weights were corrected, the
probabilities are those of weights that were corrected on other samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.evaluation.accuracy import PRIOR, Accuracy
from onnxprune.evaluation.class_scores import object_or_not, probabilities

SHARPNESS = 0.9
"""Mean probability of the highest class that both networks are brought to, at least. Of more than
31 samples it is `1 - n^(-2/3)`: what is smooth says little by chance and too little on average
(at 0.9 two thirds of the hits that a ten-class network lost), and chance falls with the number."""
GROUPS = 200
"""Of more samples than these, groups are left out at a time."""
HALVINGS = 40
LEAST, MOST = np.log(1e-4), np.log(1e4)
"""Of a bisection of the logarithm of a temperature."""


@dataclass(frozen=True)
class Drop:
    """An expected drop of the harmonic mean, and its standard error.

    Units: share of 1; `samples` is how many it was measured on.
    """

    expected: float
    error: float
    samples: int

    def bound(self, confidence: float) -> float:
        """Return what the drop is below at a one-sided confidence; minus infinity at 0.

        The quantile is that of Student's t, as the error is estimated from few samples.
        """
        from scipy.special import stdtrit

        if confidence <= 0:
            return -np.inf
        return self.expected + float(stdtrit(max(self.samples - 1, 1), confidence)) * self.error

    def to_json(self) -> Mapping[str, float]:
        """Return the figures as a report holds them."""
        return {"expected": self.expected, "error": self.error, "samples": self.samples}


def expected_drop(
    before: npt.NDArray[Any], after: npt.NDArray[Any], labels: IntArray, *, smooth: bool = True
) -> Drop:
    """Return the drop of the harmonic mean over classes that two networks' scores let expect.

    The difference is paired: its error is that of what each sample adds to it. A sample counts by
    its true class's probability, or, where that is not to be `smooth`, by whether it is a hit.

    Shapes: scores `[n, classes]` (or `[n, 1]`: object or not), labels `[n]`.
    """
    present, classes = np.unique(labels, return_inverse=True)
    counts = np.bincount(classes).astype(np.float64)
    means, parts = [], np.zeros(len(labels))
    for sign, scores in ((1, before), (-1, after)):
        right = (smoothed if smooth else _hits)(scores, labels)
        shares = (np.bincount(classes, right) + PRIOR * right.mean()) / (counts + PRIOR)
        mean = 1 / np.mean(1 / np.maximum(shares, 1e-12))
        means.append(mean)
        slope = mean**2 / (len(present) * np.maximum(shares, 1e-12) ** 2)
        spread = PRIOR / len(labels) * float((slope / (counts + PRIOR)).sum())
        parts += sign * right * (slope[classes] / (counts[classes] + PRIOR) + spread)
    centred = parts - (np.bincount(classes, parts) / counts)[classes]
    freedom = np.maximum(counts - 1, 1) / counts
    if (counts < 2).all():  # one sample of each class: they all stand for one another
        centred, freedom = parts - parts.mean(), np.ones(len(counts))
    variance = float((centred**2 / freedom[classes]).sum())
    return Drop(float(means[0] - means[1]), variance**0.5, len(labels))


def drop_of_parts(parts: Sequence[Accuracy]) -> Drop:
    """Return the drop from 1 of the harmonic mean that the samples add up to, one part for each.

    Its error is that of leaving out one sample after the other, or one group of many.
    Source: Quenouille 1956, Tukey 1958 (jackknife).
    """
    groups = [reduce(add, held) for held in _grouped(parts)]
    whole = reduce(add, groups)
    left = np.array([_without(whole, one).harmonic for one in groups])
    variance = (len(left) - 1) / len(left) * float(((left - left.mean()) ** 2).sum())
    return Drop(1 - whole.harmonic, variance**0.5, len(left))


def _grouped(parts: Sequence[Accuracy]) -> Iterator[Sequence[Accuracy]]:
    count = min(len(parts), GROUPS)
    for rows in np.array_split(np.arange(len(parts)), count):
        yield [parts[k] for k in rows.tolist()]


def _without(whole: Accuracy, one: Accuracy) -> Accuracy:
    """What is left of a sum."""
    return replace(
        whole,
        correct=whole.correct - one.correct,
        total=whole.total - one.total,
        seen=None if whole.seen is None or one.seen is None else whole.seen - one.seen,
    )


def _hits(scores: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    rows = scores if scores.shape[1] > 1 else object_or_not(scores)
    return np.asarray(rows.argmax(1) == labels, np.float64)


def smoothed(scores: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    """Return the probability of the true class, brought to the sharpness of so many samples.

    Shapes: scores `[n, classes]` or `[n, 1]`, labels `[n]` -> `[n]`.
    """
    rows = scores if scores.shape[1] > 1 else object_or_not(scores)
    logs = np.log(np.maximum(probabilities(rows), 1e-300))
    low, high, wanted = LEAST, MOST, max(SHARPNESS, 1 - len(labels) ** (-2 / 3))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        sharp = float(_softmax(logs / np.exp(middle)).max(1).mean()) > wanted
        low, high = (middle, high) if sharp else (low, middle)
    return _softmax(logs / np.exp(low))[np.arange(len(labels)), labels]


def _softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(1, keepdims=True))
    return np.asarray(e / e.sum(1, keepdims=True))
