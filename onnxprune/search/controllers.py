"""The controllers: in which order filters go, in which steps, and when to step back.

A controller is a function `advance(nets, state) -> state`: from the net as it is to the net one
step smaller. States are values that a journal holds, so a killed run continues from its last line.
All controllers rank (`Nets.scores`, `Nets.order`), then take a step (`Nets.step`), which heeds the
target and the limits and measures the net; they differ in what they look at.

Source: Yasui, Matsuki, Sato 2026 (accuracy-aware extension of LRP pruning); the order by what
channels do together and the size of steps are ours, measured in docs/method.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import wraps
from types import MappingProxyType

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.errors import UnreachableTarget, check_name
from onnxprune.plugins import find_function, users_code
from onnxprune.search.dpx import dpx
from onnxprune.search.nets import Nets
from onnxprune.search.orders import (
    as_they_are,
    best_step,
    corrected,
    known,
    resized,
    soft,
    unpruned,
)
from onnxprune.search.task import State

logger = logging.getLogger(__name__)

AGAIN = 0.8
"""What has to be left of H before a correction that would have done harm is tried again."""

Advance = Callable[[Nets, State], State]


def search(nets: Nets, advance: Advance, state: State | None = None) -> Iterator[State]:
    """Yield the accepted states, from the unpruned net on, until the target, floor or end.

    The last state's `stopped` says what ended the search: `target`, `floor` or `limits`.
    Raises: UnreachableTarget where the unpruned net is below the floor, or has less to lose than
    the floor allows.
    """
    if state is None:
        state = nets.start()
        _check_floor(nets, state)
        yield state
    while not state.stopped:
        state = nets.finish(_next(nets, advance, state))
        yield state


def _check_floor(nets: Nets, state: State) -> None:
    """Refuse a floor that the unpruned net does not hold, or one without meaning."""
    floors = nets.floors
    if state.accuracy is None:
        return
    mean = floors.judged(state.accuracy)
    if nets.task.floor.is_void(mean):
        raise UnreachableTarget(
            f"floor: the model as it came has a harmonic mean of {mean:.4f} on the reference "
            "samples, so all of it may be lost; give a max-drop below that, or a target alone"
        )
    if not floors.hold_on_references(state):
        raise UnreachableTarget(
            f"floor: the model as it came has a harmonic mean of {mean:.4f} on the reference "
            f"samples, less than min-accuracy {floors.level:g}; give at most that"
        )


def _next(nets: Nets, advance: Advance, state: State) -> State:
    """Return the next state that the floor allows.

    Where a step breaks it, that is tried with corrected weights, then smaller, then elsewhere, then
    in narrower blocks. It is not tried elsewhere where it breaks on unseen samples alone: of many
    tries one would seem to hold by luck.
    """
    if nets.task.goals and nets.reach.met(state):
        return replace(state, stopped="target")
    tuning, broken = nets.task.tuning, 0
    while True:
        tried = advance(nets, state)
        if (tried.dead == state.dead).all():
            if not (tried.barred and _blocks_are_wide(nets, state)):
                return replace(state, stopped="floor" if tried.barred else "limits")
            state, broken = _narrowed(nets, state), 0
            continue
        held = nets.floors.held(tried)
        if held is None and _may_correct(nets, tried):
            tried = nets.measure(corrected(tried))
            held = nets.floors.held(tried)
        if held is not None:
            return held
        state = replace(state, rests=0)
        if state.size > tuning.finest:
            state = resized(nets, state, max(state.size / 2, tuning.finest))
        elif broken < tuning.patience and not nets.floors.hold_on_references(tried):
            broken += 1
            groups = np.unique(nets.task.groups.group[tried.dead & ~state.dead]).tolist()
            state = replace(state, barred=tuple(sorted({*state.barred, *groups})))
        elif _blocks_are_wide(nets, state):
            state, broken = _narrowed(nets, state), 0
        else:
            return replace(state, stopped="floor")


def _blocks_are_wide(nets: Nets, state: State) -> bool:
    """Whether channels go in blocks that nobody asked for, and few of them are gone."""
    little = nets.task.tuning.little
    return nets.picker(state).may_halve(state.dead) and nets.objective.done(state.dead) < little


def _narrowed(nets: Nets, state: State) -> State:
    """The state with blocks of half the width, with which no layer broke the floor yet."""
    narrow = replace(state, barred=(), halved=state.halved + 1)
    sizes = (nets.picker(one).rounding(state.dead).multiple for one in (state, narrow))
    logger.info("blocks of %d channels break the floor; trying %d", *sizes)
    return narrow


def _may_correct(nets: Nets, state: State) -> bool:
    return nets.task.strategy.waits and not state.corrected


def one_shot(nets: Nets, state: State) -> State:
    """Follow the one ranking of the unpruned net: conventional pruning, the baseline."""
    return _follow(nets, state, nets.scores(unpruned(state)))


def iterative(nets: Nets, state: State) -> State:
    """Rank again on the net as it is after every step.

    Source: Yeom et al. 2021, algorithm 1, without fine-tuning.
    """
    return _follow(nets, state, nets.scores(state))


def _follow(nets: Nets, state: State, ranking: FloatArray) -> State:
    task = nets.task
    return nets.step(state, ranking, task.strategy.stride * state.size / task.tuning.step)


def accuracy_aware(nets: Nets, state: State) -> State:
    """Remove what does least damage together, look at the accuracy, step back where it cost much.

    A step takes a share of what is left, so steps get shorter as the net does. Where it costs much,
    other orders are tried, and the one that keeps most is followed. It is judged by the
    harmonic mean over classes of the mean probability of the true class, which still sees
    differences where ten samples per class saturate the accuracy. A net that only guesses has
    nothing to step back for, and one whose weights are corrected gains nothing by it. Weights stay
    as they are until correcting them helps samples that the correction has not seen, and are so
    again where a step costs much that costs less without.
    """
    return _corrected(nets, _stepped(nets, state))


def _corrected(nets: Nets, state: State) -> State:
    """Correct the weights from here on, if the net is better for it on samples left out.

    If not, that is tried again when the net is worse than it would have been with them, and has
    lost more than a little since: a try takes as long as some steps do.
    """
    if not _may_correct(nets, state):
        return state
    tuning, now = nets.task.tuning, soft(nets, nets.judge(state))
    if now >= min(tuning.lost * soft(nets, nets.beginning), state.limit):
        return state
    found = nets.foresee(state)
    if found > now * (tuning.harmless if nets.task.unseen else 1.0):
        return nets.measure(replace(corrected(state), size=tuning.step))
    return replace(state, limit=min(found, AGAIN * now))


def _stepped(nets: Nets, state: State) -> State:
    """One step, or half of one where that costs less accuracy for what it saves."""
    tried = _tried(nets, state)
    return state if tried.net == state.net else nets.settle(_better_plain(nets, state, tried))


def _better_plain(nets: Nets, state: State, tried: State) -> State:
    """The step without corrected weights where these cost much, and at least twice what it would.

    Least squares restores what layers read, each for itself. What an output makes of it may be a
    small difference of large numbers, as where noise is subtracted from a picture.
    """
    before, after = soft(nets, nets.look(state)), soft(nets, tried.accuracy)
    guessing = _guesses(state, before)
    waits = nets.task.strategy.waits and state.corrected and tried.corrected
    if not waits or guessing or after >= nets.task.tuning.harmful * before:
        return tried
    plain = nets.attempt(as_they_are(tried, after))
    least = np.sqrt(before * max(after, 1e-12))
    right, kept = (known(one.accuracy).shrunk_harmonic for one in (plain, tried))
    unsure = nets.task.unseen and right <= kept
    return plain if soft(nets, plain.accuracy) > least and not unsure else tried


def _tried(nets: Nets, state: State) -> State:
    """The step that is taken, measured on the samples that tries are judged by."""
    tuning = nets.task.tuning
    before = max(soft(nets, nets.look(state)), 1e-12)
    first = best_step(nets, state, state.size)
    if first is state:
        return state
    after = soft(nets, first.accuracy)
    guessing = _guesses(state, before)
    if state.corrected or guessing or after >= tuning.harmful * before:
        grown = after >= tuning.harmless * before
        return replace(first, size=min(1.5 * first.size, tuning.step) if grown else first.size)
    if state.size <= tuning.smallest:
        return first
    smaller = max(state.size / 2, tuning.smallest)
    logger.info("a step of %.3f costs too much; trying %.3f", state.size, smaller)
    second = best_step(nets, state, smaller)
    return replace(min((first, second), key=lambda tried: _price(nets, state, tried)), size=smaller)


def _guesses(state: State, level: float) -> bool:
    """Whether a level is no more than a net reaches that only guesses."""
    return bool(level < 1 / len(known(state.accuracy).soft_per_class))


def _price(nets: Nets, state: State, tried: State) -> float:
    """What a step costs for what it saves: the fall of the log of the soft harmonic mean."""
    saved = float(nets.objective.saved(state.dead)[tried.dead & ~state.dead].sum())
    now, then = (max(soft(nets, nets.look(one)), 1e-12) for one in (state, tried))
    return float(np.log(now) - np.log(then)) / max(saved, 1e-12)


CONTROLLERS: Mapping[str, Advance] = MappingProxyType(
    {
        "one-shot": one_shot,
        "iterative": iterative,
        "accuracy-aware": accuracy_aware,
        "dpx": dpx,
    }
)
"""By the name that `--control` takes."""

CONTROLLER_NAMES = (*CONTROLLERS, "module:function")
"""The names that the help lists."""

USER_FUNCTION = "a function (nets, state) that returns the next state"


def find_controller(name: str | Advance) -> Advance:
    """Return the controller of a name, or a user's function, also by `module:function`.

    Raises: UnknownName for a name that does not exist or a function that cannot be imported.
    """
    if callable(name):
        return name
    if ":" in name:
        return _guarded(find_function(name, USER_FUNCTION), name)
    check_name("control", name, CONTROLLER_NAMES)
    return CONTROLLERS[name]


def _guarded(advance: Advance, name: str) -> Advance:
    """A user's function, whose errors name it."""

    @wraps(advance)
    def guarded(nets: Nets, state: State) -> State:
        with users_code(f"control '{name}'", USER_FUNCTION):
            return advance(nets, state)

    return guarded
