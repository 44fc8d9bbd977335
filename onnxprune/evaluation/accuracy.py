"""Accuracy: the score of each class, and their means: the harmonic one decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.errors import DataError

MOST = 100
"""A class of more samples is trusted as one of so many: pixels of one image are much alike."""


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How well each class is recognised; a class without samples counts in no mean.

    The score of a class is `correct / total`. `probability` is the sum of the probabilities of the
    true class over the `seen` samples, or pixels, of a class, which are the `total` by default.
    `weight` is how much a class counts in a mean, by default as much as any other.
    Shapes: all `[classes]`.
    Units: counts; probability, a sum of shares.
    """

    correct: FloatArray
    total: FloatArray
    probability: FloatArray
    seen: FloatArray | None = None
    weight: FloatArray | None = None

    @classmethod
    def from_scores(cls, scores: FloatArray) -> Accuracy:
        """Return an accuracy with these scores; NaN stands for a class without samples.

        Shapes: scores `[classes]`.
        """
        present = (~np.isnan(scores)).astype(np.float64)
        return cls(np.nan_to_num(scores), present, np.nan_to_num(scores))

    @classmethod
    def from_counts(cls, counts: Mapping[str, Sequence[float]]) -> Accuracy:
        """Return the accuracy that `counts` describes: the inverse of that method."""
        return cls(**{name: np.array(values) for name, values in counts.items()})

    def counts(self) -> dict[str, list[float]]:
        """Return the fields as JSON holds them, without those that are as by default."""
        return {name: held.tolist() for name, held in vars(self).items() if held is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accuracy) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Accuracy) -> Accuracy:
        if self.total.shape != other.total.shape:
            found = f"{len(self.total)} and {len(other.total)} classes"
            raise DataError(
                f"accuracies of {found} do not add up; evaluate one model on all shards"
            )
        return Accuracy(
            self.correct + other.correct,
            self.total + other.total,
            self.probability + other.probability,
            None if self.seen is None or other.seen is None else self.seen + other.seen,
            self.weight,
        )

    @property
    def support(self) -> FloatArray:
        """How many samples, or pixels, are of each class."""
        return self.total if self.seen is None else self.seen

    @property
    def per_class(self) -> FloatArray:
        """The score of each class, NaN without samples."""
        with np.errstate(invalid="ignore"):
            share = np.maximum(self.correct, 0) / self.total
            return np.where(self.support > 0, share, np.nan)

    @property
    def soft_per_class(self) -> FloatArray:
        """Mean probability of the true class, NaN without samples."""
        with np.errstate(invalid="ignore"):
            return np.maximum(self.probability, 0) / self.support

    @property
    def mean(self) -> float:
        """Mean of the class scores."""
        return _power_mean(self.per_class, 1, self.weight)

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the class scores, 0 when a class is never right."""
        return _power_mean(self.per_class, -1, self.weight)

    @property
    def soft_harmonic(self) -> float:
        """Harmonic mean of the classes' mean probabilities; it moves while `harmonic` does not."""
        return _power_mean(self.soft_per_class, -1, self.weight)

    @property
    def shrunk_harmonic(self) -> float:
        """Harmonic mean of the class scores, each drawn towards the share of all that is right.

        That share counts as the square root of n samples beside the n that a class has: much for a
        class of one image, little for one of a hundred. So a class that is never right does not
        make it 0, and it still moves when other classes do.
        Source: the minimax estimate of a share (Hodges and Lehmann 1950), with another centre.
        """
        if not self.total.sum():
            return 0.0
        centre = max(self.correct.sum() / self.total.sum(), 0)
        weight = 1 / (1 + np.sqrt(np.minimum(self.support, MOST)))
        return _power_mean((1 - weight) * self.per_class + weight * centre, -1, self.weight)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a report holds them, None for a class without samples."""
        per_class = [None if np.isnan(share) else float(share) for share in self.per_class]
        return {
            "mean": self.mean,
            "harmonic": self.harmonic,
            "shrunk_harmonic": self.shrunk_harmonic,
            "per_class": per_class,
        }


def _power_mean(values: FloatArray, power: float, weight: FloatArray | None) -> float:
    """The mean over classes with samples, arithmetic (power 1) or harmonic (-1); 0 without any."""
    seen = ~np.isnan(values)
    if not seen.any():
        return 0.0
    with np.errstate(divide="ignore", over="ignore"):  # 1 / 0 is infinite, and 1 / that is 0
        powers = values[seen] ** power
        mean = powers.mean() if weight is None else np.average(powers, weights=weight[seen])
        return float(mean ** (1 / power))
