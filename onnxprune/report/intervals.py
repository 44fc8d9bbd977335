"""How sure figures are that were measured on so many samples: 95 % intervals of shares."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import sqrt

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.errors import OnnxPruneError

Interval = tuple[float, float]
"""Its lower and upper end."""

SURE = 1.959964
"""How many deviations of a normal distribution hold 95 % of it."""
DRAWS = 1000
FEW, LEAST, PATIENCE = 100, 40, 10.0
"""Draws where each is measured anew, the fewest that tell something, and seconds of CPU for all."""


def wilson(right: float, total: float) -> Interval:
    """Return the interval of a share, of which `right` out of `total` samples are.

    Units: shares.
    Source: Wilson 1927, without continuity correction.

    >>> [round(end, 3) for end in wilson(20, 20)]
    [0.839, 1.0]
    """
    square = SURE**2
    middle = (right + square / 2) / (total + square)
    half = SURE * sqrt(right * (total - right) / total + square / 4) / (total + square)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def paired(lost: float, gained: float, total: float) -> Interval:
    """Return the interval of a change, where each of `total` samples is looked at twice.

    `lost` are those that were right before and are wrong now, `gained` the others that changed. It
    is not empty where none did.
    Units: difference of shares.
    Source: Bonett and Price 2012 (adjusted Wald interval for paired shares).

    >>> [round(end, 3) for end in paired(0, 0, 20)]
    [-0.126, 0.126]
    """
    down, up = (lost + 1) / (total + 2), (gained + 1) / (total + 2)
    change = up - down
    half = SURE * sqrt((up + down - change**2) / (total + 2))
    return max(change - half, -1.0), min(change + half, 1.0)


def weighted(lost: FloatArray, gained: FloatArray, weights: FloatArray) -> Interval:
    """Return the interval of a change of a weighted mean: `paired`, of as many equal samples.

    Shapes: all `[samples]`; lost and gained are 0 or 1.
    Units: difference of shares.
    Source: Kish 1965, section 8.2 (the effective number of weighted samples).
    """
    shares = weights / weights.sum()
    total = 1 / float((shares**2).sum())
    return paired(float(lost @ shares) * total, float(gained @ shares) * total, total)


def resampled(
    before: tuple[FloatArray, FloatArray], after: tuple[FloatArray, FloatArray], seed: int = 0
) -> Interval:
    """Return the interval of the change of a mean over parts, each a ratio of sums over samples.

    Each side is what counts as right, and out of how much. The samples are drawn again with
    replacement, the same ones on both sides.
    Shapes: each `[samples, parts]`.
    Units: difference of means.
    Source: Efron 1979 (bootstrap, percentiles).
    """
    count = len(before[0])
    rng = np.random.default_rng(seed)
    changes = []
    for _ in range(DRAWS):
        times = np.bincount(rng.integers(0, count, count), minlength=count).astype(np.float64)
        changes.append(_mean(times, *after) - _mean(times, *before))
    low, high = np.percentile(changes, [2.5, 97.5])
    return float(low), float(high)


def redrawn(
    scores: Callable[[IntArray], tuple[FloatArray, FloatArray]], count: int, seed: int = 0
) -> tuple[FloatArray, int] | None:
    """Return the intervals of changes of scores that do not add up over samples, and the draws.

    `scores` measures both sides on rows, which may come several times; NaN stands for no score.
    `count` samples are drawn again with replacement, `FEW` times, or fewer in `PATIENCE` seconds of
    CPU. None where that is too slow, or where too many draws have no score.
    Shapes: rows `[count]`, scores `[parts]` each -> `[2, parts]`.
    Units: differences of scores.
    Source: Efron 1979 (bootstrap, percentiles).
    """
    rng = np.random.default_rng(seed)
    changes, start = list[FloatArray](), time.process_time()
    for turn in range(FEW):
        if time.process_time() - start > PATIENCE:
            break
        try:
            before, after = scores(rng.integers(0, count, count))
        except OnnxPruneError:  # of samples that lack what the metric needs
            if turn - len(changes) > LEAST:
                return None
            continue
        changes.append(after - before)
    if len(changes) < LEAST:
        return None
    found = np.array(changes)
    known = np.isfinite(found).sum(0) >= LEAST
    ends = np.full((2, found.shape[1]), np.nan)
    ends[:, known] = np.nanpercentile(found[:, known], [2.5, 97.5], axis=0)
    return ends, len(changes)


def _mean(times: FloatArray, right: FloatArray, total: FloatArray) -> float:
    """The mean over the parts that have samples."""
    sums, of = times @ right, times @ total
    seen = of > 0
    return float((sums[seen] / of[seen]).mean()) if seen.any() else 0.0
