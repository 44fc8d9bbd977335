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
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.channels import BoolArray, ChannelGroups
from onnxprune.cost import Costs, find_costs
from onnxprune.errors import DataError
from onnxprune.graph import Graph
from onnxprune.labels import IntArray
from onnxprune.plan import Floor, Limits, Picker, Target, share_removed
from onnxprune.surgery import prune

logger = logging.getLogger(__name__)

FloatArray = npt.NDArray[np.float64]

STRIDE = 0.05
"""Largest step: share of the removable filters."""
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


class Measured(Protocol):
    """What the controllers need to know of an evaluation: see `onnxprune.evaluate.Accuracy`."""

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

    `dead` are the channels that are gone, `size` the next step as a share of removable filters,
    `ranked` the channels that were gone when the ranking was made, under `class_weights`, with
    `exchange[group]` the worth of a unit of relevance. `accuracy` is what was measured on the
    reference samples, if anything was.
    """

    dead: BoolArray
    size: float = STRIDE
    accuracy: Measured | None = None
    ranked: BoolArray | None = None
    class_weights: FloatArray | None = None
    exchange: FloatArray | None = None
    stopped: str = ""


Rank = Callable[[Graph, ChannelGroups, FloatArray | None], FloatArray]
Probe = Callable[[Graph, ChannelGroups, list[BoolArray], FloatArray], FloatArray]
Evaluate = Callable[[ModelProto], Measured]
Compensate = Callable[[ModelProto, BoolArray], ModelProto]


@dataclass
class Task:
    """One search: the graph, what is asked for, and how things are ranked and measured.

    `rank(graph, groups, class_weights)` scores the channels of a (pruned) graph; `probe` measures
    the damage of sets of channels; `evaluate` runs a model; `compensate` corrects a pruned model.
    """

    graph: Graph
    groups: ChannelGroups
    rank: Rank
    evaluate: Evaluate | None = None
    probe: Probe | None = None
    compensate: Compensate | None = None
    target: Target = field(default_factory=Target)
    floor: Floor = field(default_factory=Floor)
    limits: Limits = field(default_factory=Limits)
    stride: float = STRIDE
    evaluations: int = 0

    @cached_property
    def costs(self) -> Costs:
        """The cost functions of the graph."""
        return find_costs(self.graph, self.groups)

    @cached_property
    def unpruned(self) -> Measured | None:
        """The accuracy of the model as it came, on the reference samples."""
        return self.measure(np.zeros(len(self.groups), np.bool_))

    @property
    def level(self) -> float:
        """The lowest harmonic mean that the floor allows."""
        return self.floor.level(self.unpruned.harmonic) if self.unpruned else 0.0

    @cached_property
    def picker(self) -> Picker:
        """What chooses channels within the limits."""
        return Picker(self.groups, self.limits)

    def build(self, dead: BoolArray) -> ModelProto:
        """Return the pruned, compensated model. Shapes: dead `[channels]`."""
        model = prune(self.graph, self.groups, dead)
        return self.compensate(model, dead) if self.compensate and dead.any() else model

    def measure(self, dead: BoolArray) -> Measured | None:
        """Return the accuracy of the pruned model on the reference samples, if there are any."""
        if self.evaluate is None:
            return None
        self.evaluations += 1
        return self.evaluate(self.build(dead))

    def view(self, dead: BoolArray) -> tuple[Graph, ChannelGroups]:
        """Return the pruned graph and its channels, which keep their order."""
        if not dead.any():
            return self.graph, self.groups
        model = prune(self.graph, self.groups, dead)
        return Graph(model, input_shapes=self.graph.input_shapes), self.groups.without(dead)

    def scores(self, dead: BoolArray, weights: FloatArray | None) -> FloatArray:
        """Return the scores of the net without `dead`; channels that are gone score infinity."""
        scores = np.full(len(self.groups), np.inf)
        graph, groups = self.view(dead)
        scores[~dead] = self.rank(graph, groups, weights)
        return scores

    def step(
        self, ranking: FloatArray, dead: BoolArray, size: float, layer_share: float | None = None
    ) -> BoolArray:
        """Remove the lowest-ranked channels: `size` of the filters, never past the target."""
        order = np.argsort(ranking, kind="stable")
        chosen = self.picker.pick(order, dead, layer_share=layer_share)
        filters = np.cumsum(self.groups.filter_count[chosen])
        budget = size * self.groups.removable_filters
        count = int(np.searchsorted(filters, budget * (1 + 1e-9), side="right"))
        chosen = chosen[: max(count, 1)]
        return self._trim(chosen, dead)

    def _trim(self, chosen: IntArray, dead: BoolArray) -> BoolArray:
        """Remove no more of `chosen` than the target needs."""

        def without(count: int) -> BoolArray:
            gone = dead.copy()
            gone[chosen[:count]] = True
            return gone

        if not self.target or not self.target.met(self.costs, without(len(chosen))):
            return without(len(chosen))
        low, high = 0, len(chosen)
        while high - low > 1:
            middle = (low + high) // 2
            if self.target.met(self.costs, without(middle)):
                high = middle
            else:
                low = middle
        return without(high)


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
    if task.target and task.target.met(task.costs, state.dead):
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
        state = replace(state, size=max(state.size / 2, SMALLEST))


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
    key = (dead.tobytes(), None if weights is None else weights.tobytes())
    held: dict[Any, FloatArray] = task.__dict__.setdefault("_rankings", {})
    if key not in held:
        held.clear()
        held[key] = task.scores(dead, weights)
    return held[key]


def accuracy_aware(task: Task, state: State) -> State:
    """Remove what matters least, look at the accuracy, and step back where it cost too much.

    A step is judged by the harmonic mean over classes of the mean probability of the true class,
    which still sees differences where ten samples per class saturate the accuracy.
    """
    if state.accuracy is None or task.probe is None:
        raise DataError(
            "control 'accuracy-aware': needs reference samples; give --data, or use "
            "--control one-shot"
        )
    state = _recalibrate(task, state) if _due(task, state) else state
    if state.ranked is None or state.exchange is None:
        raise RuntimeError("a calibrated state has a ranking")
    ranking = _cached(task, state.ranked, state.class_weights) * state.exchange[task.groups.group]
    before = max(state.accuracy.soft_harmonic, 1e-12)
    first = _attempt(task, state, ranking, state.size)
    if first.accuracy is None or (first.dead == state.dead).all():
        return first
    if first.accuracy.soft_harmonic >= HARMFUL * before:
        grown = first.accuracy.soft_harmonic >= HARMLESS * before
        return replace(first, size=min(1.5 * first.size, STRIDE) if grown else first.size)
    smaller = max(state.size / 2, SMALLEST)
    second = _attempt(task, state, ranking, smaller)
    best = min((first, second), key=lambda tried: _price(task, state, tried))
    logger.info("step of %.3f cost too much; continuing with %.3f", state.size, smaller)
    return replace(best, size=smaller, ranked=None)


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
    if state.ranked is None:
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


def _recalibrate(task: Task, state: State) -> State:
    """Rank on the net as it is, and measure what a unit of relevance is worth in each layer."""
    if state.accuracy is None or task.probe is None:
        raise RuntimeError("calibration needs an accuracy and a probe")
    weights = class_weights(state.accuracy.soft_per_class)
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
        return replace(
            state, ranked=state.dead, class_weights=weights, exchange=np.ones(len(task.groups.names))
        )
    graph, groups = task.view(state.dead)
    damage = task.probe(graph, groups, probes, weights)
    worth = exchange_rates(damage, np.array(relevance))
    exchange = np.ones(len(task.groups.names)) if state.exchange is None else state.exchange.copy()
    exchange[layers] = worth if state.exchange is None else np.sqrt(worth * exchange[layers])
    return replace(state, ranked=state.dead, class_weights=weights, exchange=exchange)


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
