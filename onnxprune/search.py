"""The controllers: in which order filters go, in which steps, and when to step back.

A controller is a function `advance(task, state) -> state`: from the net as it is to the net one
step smaller. States are values that a journal can hold, so a killed run continues from its last
line. All controllers share the ranking -> `Picker` -> `Task.measure` path; they differ in what
they look at.

Source: Yasui, Matsuki, Sato 2026 (accuracy-aware extension of LRP pruning); the calibration of
layers and the size of steps are ours, measured in docs/method.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from onnxprune.channels import BoolArray
from onnxprune.errors import DataError
from onnxprune.plan import share_removed
from onnxprune.task import STRIDE, FloatArray, State, Task

logger = logging.getLogger(__name__)

SMALLEST = 0.0125
"""Smallest step, after stepping back."""
HARMLESS, HARMFUL = 0.967, 0.9
"""A step that keeps this much of the soft harmonic mean lets steps grow; below, it is retried."""
CALIBRATE_EVERY = 0.1
"""Share of the removable filters after which relevance and damage are measured again."""
CLASS_POWER, CLASS_CAP = -2.0, 4.0
"""Classes weigh as their soft accuracy to this power, at most this much over the mean."""
LAYER_SHARE = 4.0
"""A layer loses at most this multiple of the average share in one step."""


Advance = Callable[[Task, State], State]


def search(task: Task, advance: Advance, state: State | None = None) -> Iterator[State]:
    """Yield the accepted states, from the unpruned net on, until the target, floor or end.

    The last state's `stopped` says what ended the search: `target`, `floor` or `limits`.
    """
    if state is None:
        nothing = np.zeros(len(task.groups), np.bool_)
        state = State(nothing, size=task.stride, accuracy=task.unpruned)
        yield state
    while not state.stopped:
        state = _advance(task, advance, state)
        yield state


def _advance(task: Task, advance: Advance, state: State) -> State:
    """One accepted step, in smaller and smaller tries while the floor refuses them."""
    if task.target and task.reach.met(state.dead):
        return replace(state, stopped="target")
    while True:
        following = advance(task, state)
        if (following.dead == state.dead).all():
            return replace(state, stopped="limits")
        if not task.floor or following.accuracy is None:
            return following
        if following.accuracy.harmonic >= task.level - 1e-9:
            return following
        if state.size <= SMALLEST:
            return replace(state, stopped="floor")
        smaller = max(state.size / 2, SMALLEST)
        state = replace(
            following, dead=state.dead, accuracy=state.accuracy, size=smaller, due=False
        )


def one_shot(task: Task, state: State) -> State:
    """Follow the one ranking of the unpruned net: conventional pruning, the baseline."""
    nothing = np.zeros_like(state.dead)
    ranking = _cached(task, nothing, None)
    return _follow(task, state, ranking)


def iterative(task: Task, state: State) -> State:
    """Rank again on the net as it is after every step.

    Source: Yeom et al. 2021, algorithm 1, without fine-tuning.
    """
    return _follow(task, state, task.scores(state.dead, None))


def _follow(task: Task, state: State, ranking: FloatArray) -> State:
    dead = task.step(ranking, state.dead, state.size)
    changed = (dead != state.dead).any()
    return replace(state, dead=dead, accuracy=task.measure(dead) if changed else state.accuracy)


def _cached(task: Task, dead: BoolArray, weights: FloatArray | None) -> FloatArray:
    """The ranking that a task made last, or a new one where it was made for another net."""
    key = dead.tobytes() + (b"" if weights is None else weights.tobytes())
    if key not in task.rankings:
        task.rankings.clear()
        task.rankings[key] = task.scores(dead, weights)
    return task.rankings[key]


def accuracy_aware(task: Task, state: State) -> State:
    """Remove what matters least, look at the accuracy, and step back where it cost too much.

    A step is judged by the harmonic mean over classes of the mean probability of the true class,
    which still sees differences where ten samples per class saturate the accuracy.
    """
    now = state.accuracy
    if now is None:
        raise DataError(
            "control 'accuracy-aware': needs reference samples; give --data, or use "
            "--control one-shot"
        )
    before = max(now.soft_harmonic, 1e-12)
    if task.ranks_once:
        ones, nothing = np.ones(len(task.groups.names)), np.zeros_like(state.dead)
        state = replace(state, ranked=nothing, exchange=ones)
    elif _due(task, state):
        state = _recalibrate(task, state, class_weights(now.soft_per_class))
    assert state.ranked is not None and state.exchange is not None
    ranking = _cached(task, state.ranked, state.class_weights) * state.exchange[task.groups.group]
    first = _attempt(task, state, ranking, state.size)
    if first.accuracy is None or (first.dead == state.dead).all():
        return first
    if task.ranks_once or first.accuracy.soft_harmonic >= HARMFUL * before:
        grown = first.accuracy.soft_harmonic >= HARMLESS * before
        return replace(first, size=min(1.5 * first.size, STRIDE) if grown else first.size)
    if state.size <= SMALLEST:
        return replace(first, due=True)
    smaller = max(state.size / 2, SMALLEST)
    logger.info("a step of %.3f costs too much; trying %.3f", state.size, smaller)
    second = _attempt(task, state, ranking, smaller)
    best = min((first, second), key=lambda tried: _price(task, state, tried))
    return replace(best, size=smaller, due=True)


def _attempt(task: Task, state: State, ranking: FloatArray, size: float) -> State:
    left = max(1.0 - share_removed(task.groups, state.dead), SMALLEST)
    dead = task.step(ranking, state.dead, size, min(LAYER_SHARE * size / left, 1.0))
    changed = (dead != state.dead).any()
    accuracy = task.measure(dead) if changed else state.accuracy
    return replace(state, dead=dead, accuracy=accuracy)


def _price(task: Task, state: State, tried: State) -> float:
    """What a step costs per filter: the fall of the log of the soft harmonic mean."""
    if state.accuracy is None or tried.accuracy is None:
        return 0.0
    filters = int(task.groups.filter_count[tried.dead & ~state.dead].sum())
    fall = np.log(max(state.accuracy.soft_harmonic, 1e-12)) - np.log(
        max(tried.accuracy.soft_harmonic, 1e-12)
    )
    return float(fall) / max(filters, 1)


def _due(task: Task, state: State) -> bool:
    """Whether relevance and damage are to be measured again."""
    if state.due or state.ranked is None:
        return True
    since = share_removed(task.groups, state.dead & ~state.ranked)
    return since >= CALIBRATE_EVERY - 1e-9


def class_weights(soft: FloatArray) -> FloatArray:
    """Return the weight of each class: more for those that have lost more; mean 1.

    Shapes: soft `[classes]` (NaN where a class has no samples) -> `[classes]`.
    """
    present = ~np.isnan(soft)
    weights = np.where(present, np.maximum(np.nan_to_num(soft), 1e-6) ** CLASS_POWER, 0.0)
    weights = np.minimum(weights / weights[present].mean(), CLASS_CAP)
    return np.asarray(weights / weights[present].mean())


def _recalibrate(task: Task, state: State, weights: FloatArray) -> State:
    """Rank on the net as it is, and measure what a unit of relevance is worth in each layer."""
    assert task.probe is not None
    ranking = _cached(task, state.dead, weights)
    left = max(1.0 - share_removed(task.groups, state.dead), SMALLEST)
    share = min(0.5, LAYER_SHARE * STRIDE / left)
    probes, relevance, layers = [], [], []
    order = np.argsort(ranking, kind="stable")
    for group in range(len(task.groups.names)):
        own = order[task.groups.group[order] == group]
        chosen = task.picker.pick(own, state.dead, layer_share=share)
        if chosen.size:
            probe = np.zeros(len(task.groups), np.bool_)
            probe[chosen] = True
            probes.append(probe[~state.dead])
            relevance.append(ranking[chosen].sum())
            layers.append(group)
    if not probes:
        ones = np.ones(len(task.groups.names))
        return replace(state, ranked=state.dead, class_weights=weights, exchange=ones, due=False)
    graph, groups = task.view(state.dead)
    damage = task.probe(graph, groups, probes, weights)
    worth = exchange_rates(damage, np.array(relevance))
    exchange = np.ones(len(task.groups.names)) if state.exchange is None else state.exchange.copy()
    exchange[layers] = worth if state.exchange is None else np.sqrt(worth * exchange[layers])
    return replace(state, ranked=state.dead, class_weights=weights, exchange=exchange, due=False)


def exchange_rates(damage: FloatArray, relevance: FloatArray) -> FloatArray:
    """Return the damage that a unit of relevance stands for in each layer.

    Both are shrunk towards their mean, as a probe of few filters on few samples is noisy.
    Shapes: damage, relevance `[layers]` -> `[layers]`.
    """
    cost = damage + 0.5 * damage.mean() + 1e-4
    size = relevance + 0.5 * relevance.mean()
    return np.asarray(cost / np.maximum(size, 1e-12))


CONTROLLERS: Mapping[str, Advance] = {
    "one-shot": one_shot,
    "iterative": iterative,
    "accuracy-aware": accuracy_aware,
}
