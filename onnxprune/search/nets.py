"""Nets: what one search builds, ranks and measures; what is dear is remembered.

All of it depends on the task and the state asked about, on nothing that happened before.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.search.protocols import Measured
from onnxprune.search.reach import Reach
from onnxprune.search.task import State, Task
from onnxprune.surgery import remove_channels

Value = TypeVar("Value")


@dataclass
class Memory(Generic[Value]):
    """The last few values that were made, by key."""

    size: int
    _held: dict[Hashable, Value] = field(default_factory=dict)

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """Return the value of a key, made now unless it is remembered."""
        if key not in self._held:
            while len(self._held) >= self.size:
                del self._held[next(iter(self._held))]
            self._held[key] = make()
        return self._held[key]


class Nets:
    """The nets of one search. `evaluations` counts the runs over the reference samples."""

    def __init__(self, task: Task, evaluations: int = 0) -> None:
        self.task = task
        self.evaluations = evaluations
        self.reach = Reach(task.graph, task.costs, task.target, self.build, task.clock)
        self._models = Memory[ModelProto](3)  # the two tries of a step and the net before it
        self._scores = Memory[FloatArray](1)
        self._orders = Memory[FloatArray](1)

    @cached_property
    def unpruned(self) -> Measured | None:
        """The accuracy of the model as it came, on the reference samples.

        A search counts this evaluation when it begins, not when it is resumed.
        """
        task = self.task
        return None if task.evaluate is None else task.evaluate(task.graph.model)

    @property
    def level(self) -> float:
        """The lowest harmonic mean that the floor allows."""
        if not self.task.floor or self.unpruned is None:
            return 0.0
        return self.task.floor.level(self.judged(self.unpruned))

    def judged(self, accuracy: Measured) -> float:
        """Return what the floor looks at: the harmonic mean of the class accuracies.

        Where a class of the unpruned net is never right that is 0, and no floor under it would
        break. Then it is the harmonic mean of accuracies that are shrunk towards their mean.
        """
        unpruned = accuracy if self.unpruned is None else self.unpruned
        is_void = self.task.floor.is_void(unpruned.harmonic)
        return accuracy.shrunk_harmonic if is_void else accuracy.harmonic

    def start(self) -> State:
        """Return the state of the unpruned net, and count its evaluation."""
        task = self.task
        self.evaluations += task.evaluate is not None
        return State(
            np.zeros(len(task.groups), np.bool_),
            task.tuning.step,
            self.unpruned,
            corrected=task.strategy.corrects == "start",
        )

    def build(self, state: State) -> ModelProto:
        """Return the model of a state, with corrected weights where it has them."""

        def make() -> ModelProto:
            pruned = remove_channels(self.task.graph, self.task.groups, state.dead)
            if not state.corrected or self.task.compensate is None or not state.dead.any():
                return pruned
            return self.task.compensate(pruned, state.dead)

        return self._models.get(state.net, make)

    def measure(self, state: State) -> State:
        """Return the state with its accuracy on the reference samples, if there are any."""
        if self.task.evaluate is None:
            return state
        self.evaluations += 1
        return replace(state, accuracy=self.task.evaluate(self.build(state)))

    def foresee(self, state: State) -> Measured | None:
        """Return what corrected weights would reach, if it can be on samples they have not seen."""
        if self.task.hold_out is None or self.task.strategy.corrects == "seen":
            return self.measure(replace(state, corrected=True)).accuracy
        return self.hold_out(state)

    def hold_out(self, state: State) -> Measured | None:
        """Return the accuracy with weights corrected on other samples, if any can be left out."""
        if self.task.hold_out is None:
            return None
        self.evaluations += 1
        return self.task.hold_out(self.build(replace(state, corrected=False)), state.dead)

    def view(self, state: State) -> tuple[Graph, ChannelGroups]:
        """Return the net and its channels, which keep their order."""
        if not state.dead.any():
            return self.task.graph, self.task.groups
        net = Graph(self.build(state), input_shapes=self.task.graph.input_shapes)
        return net, self.task.groups.without(state.dead)

    def scores(self, state: State) -> FloatArray:
        """Return the score of each channel of the net; infinity for those that are gone.

        Shapes: `[channels]`.
        """
        return self._scores.get(
            state.net, lambda: self._spread(state, self.task.rank(*self.view(state)))
        )

    def order(self, state: State, share: float, layer_share: float) -> FloatArray:
        """Return the place of each channel in the order of least damage to the net.

        The order is that of a step of a share of the filters left. Shapes: `[channels]`.
        """

        def places() -> FloatArray:
            task = self.task
            assert task.damage is not None
            damage = task.damage(*self.view(state))
            alive = np.flatnonzero(~state.dead)
            allowance = task.picker.allowance(state.dead, layer_share)
            count = task.groups.filter_count[alive]
            order = damage.order(
                count,
                lambda: allowance.free[alive],
                lambda c: allowance.take(alive[c]),
                share * int(count[task.picker.allowed[alive]].sum()),
                task.tuning.own_squares,
            )
            return self._spread(state, np.argsort(order, kind="stable").astype(np.float64))

        return self._orders.get((*state.net, share, layer_share), places)

    def _spread(self, state: State, ranking: FloatArray) -> FloatArray:
        """Give the channels that are gone a place at the end."""
        spread = np.full(len(self.task.groups), np.inf)
        spread[~state.dead] = ranking
        return spread

    def step(
        self, state: State, ranking: FloatArray, size: float, layer_share: float | None = None
    ) -> State:
        """Remove the lowest-ranked channels, `size` of the filters, never past the target.

        Shapes: ranking `[channels]`.
        Units: size, share of the removable filters; layer_share, as `Picker.allowance` takes it.
        """
        dead = self._next(state.dead, ranking, size, layer_share)
        if (dead == state.dead).all():
            return state
        return self.measure(replace(state, dead=dead))

    def _next(
        self, dead: BoolArray, ranking: FloatArray, size: float, layer_share: float | None
    ) -> BoolArray:
        task = self.task
        order = np.argsort(ranking, kind="stable")
        chosen = task.picker.pick(order, dead, layer_share=layer_share)
        budget = size * task.groups.removable_filters * (1 + 1e-9)

        def without(count: int) -> BoolArray:
            return task.picker.remove(chosen[:count], dead)

        def too_many(count: int) -> bool:
            return int(task.groups.filter_count[without(count) & ~dead].sum()) > budget

        most = first(too_many, len(chosen) + 1) - 1
        if (without(most) == dead).all():
            most += 1  # a block wider than the step goes whole
        if layer_share is not None and (without(most) == dead).all():
            return self._next(dead, ranking, size, None)
        return self._trim(without, most)

    def _trim(self, without: Callable[[int], BoolArray], most: int) -> BoolArray:
        """Remove no more than the target needs, to a hundredth of all where that is measured."""
        target = self.task.target
        if not target or not self.reach.near(without(most)):
            return without(most)
        apart = 1 if target.latency_ms is None else max(len(self.task.groups) // 100, 1)
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
