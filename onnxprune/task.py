"""Task and State: one search, and where it is.

A task holds what is asked for and how things are ranked, measured and corrected; the search gets
all of that as functions. A state is a net on the way down with what its controller remembers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.channels import BoolArray, ChannelGroups
from onnxprune.cost import Costs, find_costs
from onnxprune.graph import Graph
from onnxprune.labels import IntArray
from onnxprune.plan import Floor, Limits, Picker, Target
from onnxprune.surgery import prune

FloatArray = npt.NDArray[np.float64]

STRIDE = 0.05
"""Largest step: share of the removable filters."""
REMEMBERED = 3
"""Models; the two tries of a step and the net before it."""


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
    `exchange[group]` the worth of a unit of relevance; `due` asks for a new ranking. `accuracy` is
    what was measured on the reference samples, if anything was.
    """

    dead: BoolArray
    size: float = STRIDE
    accuracy: Measured | None = None
    ranked: BoolArray | None = None
    class_weights: FloatArray | None = None
    exchange: FloatArray | None = None
    due: bool = True
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
    rankings: dict[bytes, FloatArray] = field(default_factory=dict)

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
        """Return the pruned, compensated model; the last few are remembered.

        Shapes: dead `[channels]`.
        """
        key = dead.tobytes()
        if key not in self._built:
            while len(self._built) >= REMEMBERED:
                del self._built[next(iter(self._built))]
            model = prune(self.graph, self.groups, dead)
            if self.compensate and dead.any():
                model = self.compensate(model, dead)
            self._built[key] = model
        return self._built[key]

    @cached_property
    def _built(self) -> dict[bytes, ModelProto]:
        return {}

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
