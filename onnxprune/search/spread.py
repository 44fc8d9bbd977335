"""How the scores of each layer's filters are spread, those that stay and those that went."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.data import Data
from onnxprune.errors import OnnxPruneError
from onnxprune.search.ranking import make_scores
from onnxprune.search.settings import Settings
from onnxprune.search.task import State, Task

BINS = 12
"""Bars of a histogram."""
MOST = 128
"""Samples that the scores of a page are taken on, about: they show, and decide nothing."""


def spreads(task: Task, state: State, data: Data, settings: Settings) -> dict[str, Any]:
    """Return a histogram of the scores of each layer in the unpruned net, for `evidence.json`.

    `low` and `high` are its ends, `kept` and `gone` count filters between them in equal steps.
    Where the criterion does not score these samples, there is none.
    """
    some = data.every(max(len(data) // MOST, 1))
    found: dict[str, Any] = {}
    try:
        scores = make_scores(task.graph, some, settings)(task.graph, task.groups)
    except OnnxPruneError:
        return found
    for layer in task.groups.filters:
        own = layer.channels[layer.channels >= 0]
        values = scores[own]
        if own.size == 0 or not np.isfinite(values).all():
            continue
        ends = float(values.min()), float(values.max())
        sides = (values[~state.dead[own]], values[state.dead[own]])
        kept, gone = (_counts(one, *ends) for one in sides)
        found[layer.node] = {"low": ends[0], "high": ends[1], "kept": kept, "gone": gone}
    return found


def _counts(values: FloatArray, low: float, high: float) -> list[int]:
    """How many values are in each bar between two ends, however close or far apart these are."""
    width = high / 2 - low / 2  # of halves, a difference is finite
    places = (values / 2 - low / 2) / width if width > 0 else np.full(len(values), 0.5)
    bars = np.clip((places * BINS).astype(np.int64), 0, BINS - 1)
    return [int(count) for count in np.bincount(bars, minlength=BINS)]
