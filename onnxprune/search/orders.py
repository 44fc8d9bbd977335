"""Orders: by which filters could go in a step, of which the harmonic mean chooses.

No order is the best on every net. The order by damage knows what matters to the samples, but its
terms of two channels are noisy, and on samples that the classifier was trained on, layers can seem
to matter little that are needed for others. So where a step costs accuracy it is tried in another
order, too, and the net that keeps most of the harmonic mean is the one that is pruned on. Where
classes have few samples, of many, damage knows these samples rather than their classes: other
samples judge, and conventional relevance of the unpruned net is an order as well.

An order is made for the largest step. Where steps are smaller, those that together are no larger
follow one order, so that relevance is measured once for all of them.

Source: Yasui, Matsuki, Sato 2026, for an order that follows the harmonic mean; these orders are
ours, measured in docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.search.control import SLACK
from onnxprune.search.protocols import Measured
from onnxprune.search.task import State

if TYPE_CHECKING:
    from onnxprune.search.nets import Nets


def best_step(nets: Nets, state: State, size: float) -> State:
    """Save a share of what is left to save, by the order that keeps most of the harmonic mean.

    The first order is enough where its step is harmless: smaller differences say nothing on few
    samples. So it is while weights wait for a correction, which may turn the choice around, and
    while the other order rests because it was the worse one.
    Returns what was tried, measured on the samples that tries are judged by; `state` where nothing
    may go.
    """
    enough = nets.task.tuning.harmless * soft(nets, nets.look(state))
    orders = list(enumerate(_orders(nets, state, size)))
    if state.rests:
        orders = orders[state.better :][:1] or orders[:1]
    measures = orders[0][0] == 0
    found: list[State] = []
    for number, order in orders:
        tried = order()
        if any(tried.net == other.net for other in (state, *found)):
            continue
        tried = _on_the_way(nets, state, replace(tried, took=number), size, measures)
        found.append(nets.attempt(tried))
        if soft(nets, found[-1].accuracy) >= enough:
            break
    if not found:
        return state
    best = max(found, key=lambda one: soft(nets, one.accuracy))
    return _rested(nets, state, best, found)


def _rested(nets: Nets, state: State, best: State, found: list[State]) -> State:
    """The step that is taken, with how long the orders that were worse rest.

    It is twice as long each time that it was so again. Only corrected nets are dear enough, and
    relevance where samples are many.
    """
    if len(found) < 2 or not (state.corrected or nets.task.unseen):
        return replace(best, rests=max(state.rests - 1, 0))
    won = state.won + 1 if best.took == state.better else 1
    longest = nets.task.tuning.longest_rest
    rests = min(2 ** min(won - 1, longest), longest)  # no power of what a journal says
    return replace(best, better=best.took, won=won, rests=rests)


def _orders(nets: Nets, state: State, size: float) -> list[Callable[[], State]]:
    """Return what could be left after the step, the usual order first; nothing is measured."""
    tuning = nets.task.tuning
    layer_share = min(tuning.layer_share * size, 1.0)

    def by_damage(own_squares: float) -> State:
        ranking = _ranking(nets, state, own_squares)
        return nets.bring_down(state, ranking, size, layer_share)

    def evenly() -> State:
        assert nets.task.restore is not None
        share = min(tuning.even_share * size, 1.0)
        return nets.bring_down(state, nets.task.restore(state.dead, share), size, share)

    def by_relevance() -> State:
        ranking = nets.relevance / nets.objective.saved(state.dead)
        return nets.bring_down(state, ranking, size, layer_share)

    usual = partial(by_damage, tuning.own_squares)
    strategy = nets.task.strategy
    if tuning.orders == "one" or strategy.ranks_once or nets.task.damage is None:
        return [usual]
    found: list[Callable[[], State]] = [usual]
    if strategy.corrects == "never":
        found.append(partial(by_damage, tuning.fewer_squares))
    elif state.corrected and nets.task.restore is not None:
        found.append(evenly)
    return found if nets.task.relevance is None else [*found, by_relevance]


def _ranking(nets: Nets, state: State, own_squares: float) -> FloatArray:
    """Rank the net as it is: by damage, for the largest step, or by the criterion alone."""
    tuning, share = nets.task.tuning, nets.task.tuning.step
    if nets.task.strategy.ranks_once:
        state, share = unpruned(state), 1.0
    if nets.task.damage is None:
        return nets.scores(state)
    state = _ranked(_begun(nets, state))
    return nets.order(state, share, min(tuning.layer_share * share, 1.0), own_squares)


def _follows(nets: Nets, state: State) -> bool:
    """Whether the next step follows the order that the steps before it followed."""
    tuning = nets.task.tuning
    return tuning.reranks != "always" and state.followed + state.size <= tuning.step * SLACK


def _begun(nets: Nets, state: State) -> State:
    """The state with what its order was measured on: on itself, where no order goes on."""
    return state if _follows(nets, state) else replace(state, since=(), followed=0.0)


def _ranked(state: State) -> State:
    """The net that the order of a state was measured on."""
    dead = state.dead.copy()
    dead[list(state.since)] = False
    return replace(state, dead=dead)


def _on_the_way(nets: Nets, state: State, tried: State, size: float, measures: bool) -> State:
    """What was tried, with how far it has followed its order, if it has one and another may."""
    tuning, state = nets.task.tuning, _begun(nets, state)
    followed = state.followed + size
    measures = measures and nets.task.damage is not None
    if not measures or followed + tuning.finest > tuning.step * SLACK:
        return replace(tried, since=(), followed=0.0)
    gone = np.flatnonzero(tried.dead & ~state.dead).tolist()
    return replace(tried, since=(*state.since, *gone), followed=followed)


def resized(nets: Nets, state: State, size: float) -> State:
    """Return the state with another size of its next step, which goes on with the same order."""
    return replace(_begun(nets, state), size=size)


def unpruned(state: State) -> State:
    """Return the same state with nothing gone."""
    return replace(state, dead=np.zeros_like(state.dead))


def corrected(state: State) -> State:
    """Return the state with weights corrected from here on: another net, with its own order."""
    return replace(state, corrected=True, since=(), followed=0.0, better=0, won=0, rests=0)


def as_they_are(state: State, limit: float) -> State:
    """Return the state with weights as they are: they are corrected again below a `limit` only."""
    return replace(corrected(state), corrected=False, limit=limit)


def known(measured: Measured | None) -> Measured:
    """Return what was measured: asked for only where there are samples."""
    assert measured is not None, "asked for only where there are samples"
    return measured


def soft(nets: Nets, measured: Measured | None) -> float:
    """Return the harmonic mean over classes of the mean probability of the true class.

    Where classes have few samples, each is shrunk towards their mean.
    """
    found = known(measured)
    return found.shrunk_soft_harmonic if nets.task.few else found.soft_harmonic
