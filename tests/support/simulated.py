"""A search without a model: accuracy is a formula of what is gone and of what was corrected.

Three layers of twenty filters each, one channel a filter, every channel free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.channels.choices import Choices
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.graph.graph import Graph
from onnxprune.search.control import Strategy
from onnxprune.search.controllers import find_controller, search
from onnxprune.search.nets import Nets
from onnxprune.search.task import State, Task
from tests.support.models import model

LAYERS, WIDTH = 3, 20
FILTERS = LAYERS * WIDTH
GRAPH = Graph(
    model(
        f"""
        net (float[N,2,2,2] x) => (float[N,2,2,2] y)
        <float[{WIDTH},2,1,1] w1, float[{WIDTH},{WIDTH},1,1] w2, float[{WIDTH},{WIDTH},1,1] w3,
         float[2,{WIDTH},1,1] w4> {{
          a = Conv(x, w1)
          b = Conv(a, w2)
          c = Conv(b, w3)
          y = Conv(c, w4)
        }}
        """
    )
)
GROUPS = find_groups(GRAPH)
FREE = np.flatnonzero(GROUPS.removable)
assert FREE.tolist() == list(range(FILTERS))
NOTHING = np.zeros(len(GROUPS), np.bool_)

EVENLY = np.full(len(GROUPS), np.inf)
EVENLY[:FILTERS] = [LAYERS * (c % WIDTH) + c // WIDTH for c in range(FILTERS)]
"""Scores that take from one layer after the other."""

UNSEEN = Strategy(corrects="unseen")

Worth = Callable[[BoolArray, bool], float | tuple[float, float]]
"""The soft harmonic mean of a net, or that and the harmonic mean."""


def accuracy(soft: float, hard: float | None = None) -> Accuracy:
    """Two classes, each as good as the other."""
    one = np.ones(2)
    return Accuracy((soft if hard is None else hard) * one, one, soft * one)


def gone(state: State) -> int:
    """How many filters are gone."""
    return int(state.dead.sum())


@dataclass
class Ordered:
    """Damage that goes by scores: the lowest that are free go first."""

    scores: FloatArray
    asked: list[tuple[float, float]]

    def order(
        self, worth: FloatArray, choices: Choices, most: float, own_squares: float
    ) -> IntArray:
        self.asked.append((most, own_squares))
        chosen: list[int] = []
        while worth[chosen].sum() < most and choices.free().any():
            chosen.append(int(np.where(choices.free(), self.scores, np.inf).argmin()))
            choices.take(chosen[-1])
        rest = [c for c in np.argsort(self.scores, kind="stable").tolist() if c not in chosen]
        return np.array([*chosen, *rest])


@dataclass
class Seen:
    """What was asked: of nets, how many filters were gone and whether their weights were corrected;
    of damage, for how many filters an order was, and how often own squares count.
    """

    ranked: list[int] = field(default_factory=list)
    measured: list[tuple[int, bool]] = field(default_factory=list)
    held_out: list[int] = field(default_factory=list)
    asked: list[tuple[float, float]] = field(default_factory=list)


class Simulated(Nets):
    """Nets whose models are their states: nothing is built, and all is a formula."""

    def __init__(
        self,
        worth: Worth | None = None,
        *,
        scores: FloatArray = EVENLY,
        by_damage: bool = True,
        held_out: Callable[[BoolArray], float] | None = None,
        judged: tuple[float, float] | None = None,
        evaluations: int = 0,
        **asked: Any,
    ) -> None:
        self.seen = Seen()

        def value(dead: BoolArray, corrected: bool) -> Accuracy:
            assert worth is not None
            found = worth(dead, corrected)
            return accuracy(*found) if isinstance(found, tuple) else accuracy(found)

        def evaluate(net: Any) -> Accuracy:
            if not isinstance(net, State):
                return value(NOTHING, False)
            self.seen.measured.append((gone(net), net.corrected))
            return value(net.dead, net.corrected)

        def hold_out(net: State, dead: BoolArray, roughly: bool) -> Accuracy:
            assert held_out is not None
            self.seen.held_out.append(int(dead.sum()))
            return accuracy(held_out(dead))

        def judge(net: State, _: BoolArray) -> tuple[Accuracy, Accuracy]:
            assert judged is not None and not net.corrected
            now, then = judged
            return accuracy(now), accuracy(then)

        def rank(net: State, groups: ChannelGroups) -> FloatArray:
            self.seen.ranked.append(gone(net))
            assert len(groups) == (~net.dead).sum()
            return scores[~net.dead]

        def damage(net: State, groups: ChannelGroups) -> Ordered:
            return Ordered(rank(net, groups), self.seen.asked)

        task = Task(
            GRAPH,
            GROUPS,
            rank=rank,
            evaluate=evaluate if worth else None,
            damage=damage if by_damage else None,
            hold_out=hold_out if held_out else None,
            judged=judge if judged else None,
            **asked,
        )
        super().__init__(task, evaluations)

    def build(self, state: State) -> Any:
        return state

    def view(self, state: State) -> Any:
        return state, self.task.groups.without(state.dead)


def end(nets: Simulated, control: str = "accuracy-aware") -> State:
    *_, state = search(nets, find_controller(control))
    return state


def steep(limit: int, corrected: int | None = None) -> Callable[[BoolArray, bool], Any]:
    """A net that is right as long as no more than so many filters are gone."""

    def worth(dead: BoolArray, is_corrected: bool) -> tuple[float, float]:
        most = limit if corrected is None or not is_corrected else corrected
        return 1.0, 1.0 if dead.sum() <= most else 0.5

    return worth
