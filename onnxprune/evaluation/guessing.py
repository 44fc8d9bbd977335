"""Guessing: what a network that looks at nothing is right for, and whether one clearly beats it.

The answers of a network are a table: how often it gave class c to what is of class t. A guesser
gives each class as often, but to anything, so the sums of rows and columns say how often it is
right. A network that always answers with the most frequent class is a guesser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.data import fit_labels
from onnxprune.evaluation.class_scores import over_samples

LEVEL = 0.05
"""How likely a network that is not clearly better than guessing may pass for one that is."""
MARGIN = 0.05
"""Share of what guessing gets wrong that a network gets right if it is clearly better."""
PIXELS = 0.1
"""The same for pixels. Those of one image are too alike to be counted as independent trials."""
MOVED = 0.1
"""Share of the samples that another order of the classes has to gain to be worth a word."""

Table = Counter[tuple[int, int]]
"""How often the second class was given to what is of the first."""


@dataclass(frozen=True)
class Hits:
    """For how many samples, or pixels, a network is right, and for how many a guesser would be.

    A guesser gives the same answers to other samples. So it is right for `least` at least, where
    one class is most of the samples and of the answers, and for `most` at most, all by default.
    """

    right: int
    of: int
    guessing: float
    noun: str = "samples"
    least: int = 0
    most: int | None = None

    @property
    def clear(self) -> bool:
        """Whether the network clearly beats guessing; see `beats`."""
        return self.beats(LEVEL)

    def beats(self, level: float) -> bool:
        """Return whether the network beats guessing, at a level of significance.

        A one-sided binomial test against a network that is a little better than a guesser: right
        twice as often, or for `MARGIN` of what a guesser gets wrong, whichever is less. Where all
        is right no test is needed, however few samples there are.
        Source: the expected hits are those of Cohen's kappa (Cohen 1960).
        """
        missed = self.of - self.guessing
        if self.right == self.of:
            return True
        if self.noun == "pixels":
            return self.right >= self.guessing + PIXELS * missed
        bar = self.guessing + min(self.guessing, MARGIN * missed) - self.least
        room = (self.of if self.most is None else self.most) - self.least
        return bar < room and _at_least(self.right - self.least, room, bar / room) <= level

    def __str__(self) -> str:
        return (
            f"right for {self.right:,} of {self.of:,} {self.noun}; guessing is {self.guessing:.3g}"
        )


def _at_least(right: int, of: int, share: float) -> float:
    """The probability of so many hits or more, where each sample is one with that probability."""
    from scipy.special import betainc

    return float(betainc(right, of - right + 1, share)) if right else 1.0


@dataclass(frozen=True)
class Answers:
    """What a network said of the samples: one table for each half of them; `k` answers to each.

    What is read off one half is tried on the other.
    """

    halves: tuple[Table, Table]
    k: int = 1
    noun: str = "samples"

    @classmethod
    def of(
        cls,
        outputs: npt.NDArray[Any],
        targets: IntArray,
        k: int = 1,
        *,
        second: BoolArray | None = None,
    ) -> Answers:
        """Count the k highest classes of each sample, or pixel.

        `second` says which samples are the second half: by default every other one of each class.

        Shapes: as `Metric` takes them; second `[n]`.
        """
        second = every_other(targets) if second is None else second
        targets = fit_labels(targets, outputs.shape)

        def count(rows: npt.NDArray[Any], labels: IntArray) -> Table:
            given = rows.argmax(1)[:, None] if k == 1 else (-rows).argsort(1, kind="stable")[:, :k]
            codes = labels[:, None] * rows.shape[1] + given
            pairs, times = np.unique(codes, return_counts=True)
            found = (divmod(pair, rows.shape[1]) for pair in pairs.tolist())
            return Counter(dict(zip(found, times.tolist(), strict=True)))

        def half(chosen: BoolArray) -> Table:
            if not chosen.any():
                return Counter()
            return over_samples(count, outputs[chosen], targets[chosen])

        noun = "samples" if targets.ndim == 1 else "pixels"
        return cls((half(~second), half(second)), k, noun)

    def __add__(self, other: Answers) -> Answers:
        a, b = (one + two for one, two in zip(self.halves, other.halves, strict=True))
        return Answers((a, b), self.k, self.noun)

    @property
    def hits(self) -> Hits:
        """For how many the network is right as its classes are numbered."""
        return self._hits((self.halves[0] + self.halves[1], {}))

    @property
    def reordered(self) -> Hits:
        """The same for the order of classes that fits best, read off the other half."""
        a, b = self.halves
        return self._hits((a, best_order(b)), (b, best_order(a)))

    @property
    def order(self) -> Mapping[int, int]:
        """The order of classes that fits best: for each class, the one that the network gives."""
        return best_order(self.halves[0] + self.halves[1])

    @property
    def is_out_of_order(self) -> bool:
        """Whether another order of the classes clearly fits better than that of the labels."""
        now, then = self.hits, self.reordered
        return then.clear and then.right - now.right >= max(MOVED * now.of, 5)

    def _hits(self, *parts: tuple[Table, Mapping[int, int]]) -> Hits:
        """Add up the hits of tables with their orders of classes; others are as they are."""
        right, answers, guessing, least, most = 0, 0, 0.0, 0, 0
        for table, order in parts:
            true, given = Counter[int](), Counter[int]()
            for (t, c), n in table.items():
                right += n * (order.get(t, t) == c)
                true[t] += n
                given[c] += n
            answers += table.total()
            samples = table.total() // self.k
            for t, n in true.items():
                met = given[order.get(t, t)]
                least += max(n // self.k + met - samples, 0)
                most += min(n // self.k, met)
            lucky = sum(n * given[order.get(t, t)] for t, n in true.items())
            guessing += lucky / max(table.total(), 1)
        return Hits(right, answers // self.k, guessing, self.noun, least, most)


def every_other(targets: IntArray) -> BoolArray:
    """Say which samples are every other one of their class; label maps count as one class.

    Shapes: `[n]` or `[n, H, W]` -> `[n]`.

    >>> every_other(np.array([3, 5, 3, 5, 3])).tolist()
    [False, False, True, True, False]
    """
    classes = targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)
    second = np.zeros(len(targets), np.bool_)
    for k in np.unique(classes):
        second[np.flatnonzero(classes == k)[1::2]] = True
    return second


def best_order(table: Table) -> dict[int, int]:
    """Return for each class of the samples the class of the network that it is, one to one.

    >>> best_order(Counter({(0, 1): 9, (0, 0): 2, (1, 0): 5}))
    {0: 1, 1: 0}
    """
    from scipy.optimize import linear_sum_assignment

    if not table:
        return {}
    true, given = np.array(list(table)).T
    rows, i = np.unique(true, return_inverse=True)
    columns, j = np.unique(given, return_inverse=True)
    counts = np.zeros((len(rows), len(columns)))
    counts[i, j] = list(table.values())
    chosen = zip(*linear_sum_assignment(counts, maximize=True), strict=True)
    return {int(rows[i]): int(columns[j]) for i, j in chosen if counts[i, j]}
