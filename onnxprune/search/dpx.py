"""dpx: conventional LRP pruning whose rate and order follow the harmonic mean of class accuracy.

What is public of the method: relevance is measured again as the net gets smaller, and where the
harmonic mean of the class accuracies falls, the pruning rate and the pruning order change. Neither
its pseudo-code nor its thresholds are public; those here are ours.

Source: Yasui, Matsuki, Sato 2026, arXiv 2511.10861.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.search.nets import Nets
from onnxprune.search.task import State


def dpx(nets: Nets, state: State) -> State:
    """Take the filters of least relevance, fewer or elsewhere where that costs a class much.

    A step that keeps less than `harmful` of the harmonic mean is taken back, and its rate halved,
    down to `finest`. Where that does not help either, the layers that it touched go to the back of
    the order (`State.barred`), up to `patience` times. If no try holds, nothing can be held: the
    best of them is taken and the order begins anew. A step that holds doubles the next one's rate.
    """
    tuning = nets.task.tuning
    ranking, least = nets.scores(state), tuning.harmful * _held(nets, state)
    size, behind, tries = state.size, state.barred, list[State]()
    for _ in range(tuning.patience + 1):
        while True:
            tried = _step(nets, state, _at_the_back(nets, ranking, behind), size)
            if (tried.dead == state.dead).all():
                return replace(state, barred=())
            if _held(nets, tried) >= least:
                return replace(tried, size=min(2 * size, tuning.step), barred=behind)
            tries.append(tried)
            if size <= tuning.finest:
                break
            size = max(size / 2, tuning.finest)
        touched = nets.task.groups.group[tried.dead & ~state.dead].tolist()
        behind = tuple(sorted({*behind, *touched}))
    return replace(max(tries, key=lambda tried: _held(nets, tried)), barred=())


def _step(nets: Nets, state: State, ranking: FloatArray, size: float) -> State:
    share = nets.task.strategy.stride * size / nets.task.tuning.step
    return nets.step(replace(state, size=size, barred=()), ranking, share)


def _at_the_back(nets: Nets, ranking: FloatArray, behind: tuple[int, ...]) -> FloatArray:
    """The places of channels in an order that ends with some groups. Shapes: both `[channels]`."""
    last = np.isin(nets.task.groups.group, behind)
    places = np.empty(len(ranking))
    places[np.lexsort((ranking, last))] = np.arange(len(ranking))
    return places


def _held(nets: Nets, state: State) -> float:
    assert state.accuracy is not None, "asked for only where there are samples"
    return nets.floors.judged(state.accuracy)
