"""Accuracy: the score of each class, and their means: the harmonic one decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.errors import DataError

PRIOR = 2
"""How many samples more each class counts as, right as often as all are. Unit: samples."""
MOST = 100
"""A class that is never right counts as one of at most so many samples: pixels are much alike."""


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

        A class counts as if it had `PRIOR` samples more, of which that share is right: much for a
        class of one image, next to nothing for one of a thousand. So a class that is never right
        among few does not make it 0, and it still moves when other classes do.
        Source: the mean of a beta-binomial (Good 1965, chapter 4), of a strength that is stated.
        """
        return self._shrunk(self.per_class, self.correct.sum() / max(self.total.sum(), 1e-300))

    @property
    def shrunk_soft_harmonic(self) -> float:
        """The same of the classes' mean probabilities."""
        return self._shrunk(
            self.soft_per_class, self.probability.sum() / max(self.support.sum(), 1e-300)
        )

    def _shrunk(self, shares: FloatArray, centre: float) -> float:
        """The harmonic mean of shares that are drawn towards a centre. Shapes: `[classes]`."""
        centre = max(float(centre), 0.0)
        drawn = (self.support * shares + PRIOR * centre) / (self.support + PRIOR)
        return _power_mean(np.maximum(drawn, PRIOR * centre / (MOST + PRIOR)), -1, self.weight)

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
