"""The controllers: in which order filters go, in which steps, and when to step back.

A controller is a function `advance(task, state) -> state`: from the net as it is to the net one
step smaller. States are values that a journal can hold, so a killed run continues from its last
line. All controllers share the ranking -> `Picker` -> `Task.measure` path; they differ in what
they look at.

Source: Yasui, Matsuki, Sato 2026 (accuracy-aware extension of LRP pruning); the order by what
channels do together and the size of steps are ours, measured in docs/method.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.errors import DataError, UnreachableTarget
from onnxprune.search.target import share_removed
from onnxprune.search.task import State, Task

logger = logging.getLogger(__name__)

SHARE, SMALLEST, FINEST = 0.1, 0.05, 0.0125
"""Largest step of the accuracy-aware control, the smallest that a fall of accuracy makes of it, and
the smallest that a floor does: shares of the filters that are left."""
HARMLESS, HARMFUL = 0.967, 0.9
"""A step that keeps this much of the soft harmonic mean lets steps grow; below, it is retried."""
LOST = 0.95
"""Corrections are first thought of where this share of the soft harmonic mean is left."""
LAYER_SHARE = 4.0
"""A layer loses at most this multiple of the average share in one step."""


Advance = Callable[[Task, State], State]


def search(task: Task, advance: Advance, state: State | None = None) -> Iterator[State]:
    """Yield the accepted states, from the unpruned net on, until the target, floor or end.

    The last state's `stopped` says what ended the search: `target`, `floor` or `limits`.
    Raises: UnreachableTarget where the unpruned net is below the floor.
    """
    if state is None:
        nothing = np.zeros(len(task.groups), np.bool_)
        task.evaluations += task.unpruned is not None
        corrected = task.compensate is not None and not task.defers
        state = State(nothing, SHARE, task.unpruned, corrected=corrected)
        _check_floor(task, state)
        yield state
    task.correcting = state.corrected
    while not state.stopped:
        state = _advance(task, advance, state)
        task.correcting = state.corrected
        yield state


def _check_floor(task: Task, unpruned: State) -> None:
    if task.floor and unpruned.accuracy is not None and not _holds(task, unpruned):
        raise UnreachableTarget(
            f"floor: the model as it came has a harmonic mean of {unpruned.accuracy.harmonic:.4f} "
            f"on the reference samples, less than min-accuracy {task.level:g}; give at most that"
        )


def _advance(task: Task, advance: Advance, state: State) -> State:
    """One accepted step, in smaller and smaller tries while the floor refuses them."""
    if task.target and task.reach.met(state.dead):
        return replace(state, stopped="target")
    while True:
        following = advance(task, state)
        if (following.dead == state.dead).all():
            return replace(state, stopped="limits")
        if not task.floor or _holds(task, following):
            return following
        if task.defers and not state.corrected:
            following = task.corrected(following)
            if _holds(task, following):
                return following
            task.correcting = False
        if state.size <= FINEST:
            return replace(state, stopped="floor")
        state = replace(state, size=max(state.size / 2, FINEST))


def _holds(task: Task, state: State) -> bool:
    return state.accuracy is None or state.accuracy.harmonic >= task.level - 1e-9


def one_shot(task: Task, state: State) -> State:
    """Follow the one ranking of the unpruned net: conventional pruning, the baseline."""
    return _follow(task, state, task.scores(np.zeros_like(state.dead)))


def iterative(task: Task, state: State) -> State:
    """Rank again on the net as it is after every step.

    Source: Yeom et al. 2021, algorithm 1, without fine-tuning.
    """
    return _follow(task, state, task.scores(state.dead))


def _follow(task: Task, state: State, ranking: FloatArray) -> State:
    return _attempt(task, state, ranking, task.stride * state.size / SHARE)


def _attempt(
    task: Task, state: State, ranking: FloatArray, size: float, layer_share: float | None = None
) -> State:
    dead = task.step(ranking, state.dead, size, layer_share)
    changed = (dead != state.dead).any()
    return replace(state, dead=dead, accuracy=task.measure(dead) if changed else state.accuracy)


def accuracy_aware(task: Task, state: State) -> State:
    """Remove what does least damage together, look at the accuracy, step back where it cost much.

    A step takes a share of what is left, so steps get shorter as the net does. It is judged by the
    harmonic mean over classes of the mean probability of the true class, which still sees
    differences where ten samples per class saturate the accuracy. A net that only guesses has
    nothing to step back for, and one that is re-fitted gains nothing by it. Weights stay as they
    are until correcting them is a gain on samples that the correction has not seen.
    """
    return _corrected(task, _step(task, state))


def _corrected(task: Task, state: State) -> State:
    """Correct the weights from here on, if the net is better for it on samples left out.

    If not, that is tried again when the net is worse than it would have been with them.
    """
    now = state.accuracy
    if state.corrected or not task.defers or now is None or task.unpruned is None:
        return state
    if now.soft_harmonic >= min(LOST * task.unpruned.soft_harmonic, state.limit):
        return state
    found = task.held_out(state.dead).soft_harmonic
    if found > now.soft_harmonic:
        return task.corrected(replace(state, size=SHARE))
    return replace(state, limit=min(found, LOST * now.soft_harmonic))


def _step(task: Task, state: State) -> State:
    """One step, or half of one where that costs less accuracy per filter."""
    now = state.accuracy
    if now is None:
        raise DataError(
            "control 'accuracy-aware': needs reference samples; give --data, or use "
            "--control one-shot"
        )
    before = max(now.soft_harmonic, 1e-12)
    first = _careful(task, state, state.size)
    if first.accuracy is None or (first.dead == state.dead).all():
        return first
    guessing = before < 1 / len(now.soft_per_class)
    forward = task.ranks_once or state.corrected or guessing
    if forward or first.accuracy.soft_harmonic >= HARMFUL * before:
        grown = first.accuracy.soft_harmonic >= HARMLESS * before
        return replace(first, size=min(1.5 * first.size, SHARE) if grown else first.size)
    if state.size <= SMALLEST:
        return first
    smaller = max(state.size / 2, SMALLEST)
    logger.info("a step of %.3f costs too much; trying %.3f", state.size, smaller)
    second = _careful(task, state, smaller)
    best = min((first, second), key=lambda tried: _price(task, state, tried))
    return replace(best, size=smaller)


def _careful(task: Task, state: State, size: float) -> State:
    """Remove a share of what is left, and of each layer at most a multiple of it."""
    left = 1.0 - share_removed(task.groups, state.dead)
    layer_share = min(LAYER_SHARE * size, 1.0)
    ranking = _ranking(task, state.dead, SHARE)
    return _attempt(task, state, ranking, size * left, layer_share)


def _ranking(task: Task, dead: BoolArray, share: float) -> FloatArray:
    """Rank the net as it is: by damage, for a step of a share of it, or by the criterion alone."""
    if task.ranks_once:
        return task.scores(np.zeros_like(dead))
    if task.damage is None:
        return task.scores(dead)
    return task.order(dead, share, min(LAYER_SHARE * share, 1.0))


def _price(task: Task, state: State, tried: State) -> float:
    """What a step costs per filter: the fall of the log of the soft harmonic mean."""
    if state.accuracy is None or tried.accuracy is None:
        return 0.0
    filters = int(task.groups.filter_count[tried.dead & ~state.dead].sum())
    fall = np.log(max(state.accuracy.soft_harmonic, 1e-12)) - np.log(
        max(tried.accuracy.soft_harmonic, 1e-12)
    )
    return float(fall) / max(filters, 1)


CONTROLLERS: Mapping[str, Advance] = {
    "one-shot": one_shot,
    "iterative": iterative,
    "accuracy-aware": accuracy_aware,
}
