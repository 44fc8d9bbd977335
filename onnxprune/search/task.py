"""Task and State: one search, and where it is.

A task holds what is asked for and how things are ranked, measured and corrected; the search gets
all of that as functions. A state is a net on the way down with what its controller remembers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.compensate import Compensate
from onnxprune.graph import Graph
from onnxprune.relevance import Damage
from onnxprune.search.picker import Limits, Picker
from onnxprune.search.target import Clock, Floor, Reach, Target
from onnxprune.surgery import Costs, find_costs, prune

STRIDE = 0.05
"""Largest step: share of the removable filters."""
REMEMBERED = 3
"""Models; the two tries of a step and the net before it."""


class Measured(Protocol):
    """What the controllers need to know of an evaluation: see `onnxprune.evaluation.Accuracy`."""

    @property
    def mean(self) -> float:
        """Mean of the class accuracies."""
        ...

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the class accuracies."""
        ...

    @property
    def soft_harmonic(self) -> float:
        """The same of the mean probability of the true class."""
        ...

    @property
    def soft_per_class(self) -> FloatArray:
        """Mean probability of the true class. Shapes: `[classes]`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return mean, harmonic and per_class."""
        ...


@dataclass(frozen=True)
class State:
    """A net on the way down, and what its controller remembers.

    `dead` are the channels that are gone, `size` the next step as a share of what is left,
    `accuracy` what was measured on the reference samples, if anything was, `corrected` whether the
    weights are corrected from here on; else that is tried once the soft harmonic mean is below
    `limit`.
    """

    dead: BoolArray
    size: float = 1.0
    accuracy: Measured | None = None
    stopped: str = ""
    corrected: bool = False
    limit: float = 1.0


Key = tuple[bytes, bool]
"""A net: its dead channels, and whether its weights are corrected."""
Rank = Callable[[Graph, ChannelGroups], FloatArray]


class MeasureDamage(Protocol):
    """See `onnxprune.relevance.damage.Meter`."""

    def __call__(self, graph: Graph, groups: ChannelGroups) -> Damage:
        """Return what channels do."""
        ...


Evaluate = Callable[[ModelProto], Measured]
EvaluateApart = Callable[[Iterable[ModelProto], IntArray], Measured]


@dataclass
class Task:
    """One search: the graph, what is asked for, and how things are ranked and measured.

    `rank(graph, groups)` scores the channels of a (pruned) graph; `damage` measures what sets of
    them do; `evaluate` runs a model; `compensate` corrects a pruned model; `clock` measures a
    model's latency in ms. `folds` says which part of the samples each is in, where corrections can
    be fitted without one, and `evaluate_apart` runs a model for each part on it.
    With `ranks_once` the ranking of the unpruned net holds to the end: a criterion's ranking of a
    net whose weights were re-fitted on the same few samples is a worse guide (docs/method.md).
    `correcting` says whether models are corrected now.
    """

    graph: Graph
    groups: ChannelGroups
    rank: Rank
    evaluate: Evaluate | None = None
    evaluate_apart: EvaluateApart | None = None
    damage: MeasureDamage | None = None
    compensate: Compensate | None = None
    folds: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    target: Target = field(default_factory=Target)
    floor: Floor = field(default_factory=Floor)
    limits: Limits = field(default_factory=Limits)
    clock: Clock | None = None
    stride: float = STRIDE
    ranks_once: bool = False
    correcting: bool = True
    evaluations: int = 0
    rankings: dict[Key, FloatArray] = field(default_factory=dict)

    @cached_property
    def costs(self) -> Costs:
        """The cost functions of the graph."""
        return find_costs(self.graph, self.groups)

    @cached_property
    def unpruned(self) -> Measured | None:
        """The accuracy of the model as it came, on the reference samples.

        A search counts this evaluation when it begins, not when it is resumed.
        """
        return None if self.evaluate is None else self.evaluate(self.graph.model)

    @property
    def level(self) -> float:
        """The lowest harmonic mean that the floor allows."""
        return self.floor.level(self.unpruned.harmonic) if self.unpruned else 0.0

    @cached_property
    def picker(self) -> Picker:
        """What chooses channels within the limits."""
        return Picker(self.groups, self.limits)

    @cached_property
    def reach(self) -> Reach:
        """What holds nets against the target."""
        return Reach(self.graph, self.costs, self.target, self.build, self.clock)

    def build(self, dead: BoolArray) -> ModelProto:
        """Return the pruned, compensated model; the last few are remembered.

        Shapes: dead `[channels]`.
        """
        key = self._key(dead)
        if key not in self._built:
            while len(self._built) >= REMEMBERED:
                del self._built[next(iter(self._built))]
            model = prune(self.graph, self.groups, dead)
            if self.compensate and self.correcting and dead.any():
                model = self.compensate(model, dead)
            self._built[key] = model
        return self._built[key]

    @cached_property
    def _built(self) -> dict[Key, ModelProto]:
        return {}

    def _key(self, dead: BoolArray) -> Key:
        return dead.tobytes(), self.correcting

    @property
    def defers(self) -> bool:
        """Whether corrections wait until they are needed: where the order sees what they do."""
        return None not in (self.compensate, self.damage, self.evaluate_apart)

    @property
    def splits(self) -> bool:
        """Whether corrections can be fitted on some of the samples and measured on others."""
        return self.evaluate_apart is not None and len(np.unique(self.folds)) > 1

    def held_out(self, dead: BoolArray) -> Measured:
        """Return the accuracy with weights corrected on other samples than those it is of.

        Each fold is measured with weights that were corrected without it.
        Shapes: dead `[channels]`.
        """
        assert self.compensate is not None and self.evaluate_apart is not None
        self.evaluations += 1
        pruned = prune(self.graph, self.groups, dead)
        folds = np.unique(self.folds).tolist()
        models = (self.compensate(pruned, dead, without=fold) for fold in folds)
        return self.evaluate_apart(models, self.folds)

    def corrected(self, state: State) -> State:
        """Return the net of a state with corrected weights, which it has from here on."""
        self.correcting = True
        return replace(state, accuracy=self.measure(state.dead), corrected=True)

    def measure(self, dead: BoolArray) -> Measured | None:
        """Return the accuracy of the pruned model on the reference samples, if there are any."""
        if self.evaluate is None:
            return None
        self.evaluations += 1
        return self.evaluate(self.build(dead))

    def view(self, dead: BoolArray) -> tuple[Graph, ChannelGroups]:
        """Return the net as it is and its channels, which keep their order."""
        if not dead.any():
            return self.graph, self.groups
        net = Graph(self.build(dead), input_shapes=self.graph.input_shapes)
        return net, self.groups.without(dead)

    def scores(self, dead: BoolArray) -> FloatArray:
        """Return the scores of the net without `dead`; channels that are gone score infinity.

        The last ones are remembered.
        """
        return self._remember(dead, lambda: self.rank(*self.view(dead)))

    def order(self, dead: BoolArray, share: float, layer_share: float) -> FloatArray:
        """Return the place of each channel in the order of least damage, after the `dead` ones.

        The order is that of a step of a share of the filters left. The last one is remembered.
        """

        def places() -> FloatArray:
            assert self.damage is not None
            damage = self.damage(*self.view(dead))
            alive = np.flatnonzero(~dead)
            room = self.picker.room(dead, layer_share)
            count = self.groups.filter_count[alive]
            most = share * int(count[self.picker.allowed[alive]].sum())
            order = damage.order(
                count, lambda: room.free[alive], lambda c: room.take(alive[c]), most
            )
            return np.argsort(order, kind="stable").astype(np.float64)

        return self._remember(dead, places)

    def _remember(self, dead: BoolArray, rank: Callable[[], FloatArray]) -> FloatArray:
        key = self._key(dead)
        if key not in self.rankings:
            self.rankings.clear()
            ranking = np.full(len(self.groups), np.inf)
            ranking[~dead] = rank()
            self.rankings[key] = ranking
        return self.rankings[key]

    def step(
        self, ranking: FloatArray, dead: BoolArray, size: float, layer_share: float | None = None
    ) -> BoolArray:
        """Remove the lowest-ranked channels: `size` of the filters, never past the target."""
        order = np.argsort(ranking, kind="stable")
        chosen = self.picker.pick(order, dead, layer_share=layer_share)
        budget = size * self.groups.removable_filters * (1 + 1e-9)

        def without(count: int) -> BoolArray:
            return self.picker.remove(chosen[:count], dead)

        def too_many(count: int) -> bool:
            return int(self.groups.filter_count[without(count) & ~dead].sum()) > budget

        most = first(too_many, len(chosen) + 1)
        if most > 1 and (most > len(chosen) or (without(most - 1) != dead).any()):
            most -= 1
        if layer_share is not None and (without(most) == dead).all():
            return self.step(ranking, dead, size)
        return self._trim(without, most)

    def _trim(self, without: Callable[[int], BoolArray], most: int) -> BoolArray:
        """Remove no more than the target needs, to a hundredth of all where that is measured."""
        if not self.target or not self.reach.near(without(most)):
            return without(most)
        apart = 1 if self.target.latency_ms is None else max(len(self.groups) // 100, 1)
        return without(first(lambda count: self.reach.near(without(count)), most, apart))


def first(holds: Callable[[int], bool], last: int, apart: int = 1) -> int:
    """Return the first number from 1 to `last` for which something holds, by bisection.

    It is taken to hold for `last`; the answer holds and is less than `apart` from the first.

    >>> first(lambda n: n >= 7, 20), first(lambda n: n >= 7, 20, apart=5) in range(7, 12)
    (7, True)
    """
    low, high = 0, last
    while high - low > apart:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
