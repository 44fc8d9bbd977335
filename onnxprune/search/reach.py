"""Reach: whether a net meets the target, by figures that are counted and figures that are measured.

A search asks of many nets, so what is costly is asked last and of the pruned model without
compensation (`near`); the net that a run ends in is asked anew, as it will be shipped (`met`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import ModelProto, helper

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.graph import Graph, file_size
from onnxprune.search.objective import Figure
from onnxprune.search.picker import Picker
from onnxprune.search.protocols import Clock
from onnxprune.search.target import Target
from onnxprune.search.task import State
from onnxprune.surgery import Costs, count, remove_channels
from onnxprune.surgery import Figure as Sum

MARGIN = 0.98
"""Of the latency asked for: the search aims lower, so that measuring again confirms it."""
DOUBT = 1.25
"""A latency above that asked for by less than this is measured twice, the lower one counts: what
else the machine does only adds to it. One beyond is believed."""

Build = Callable[[State], ModelProto]


@dataclass
class Reach:
    """Holds nets against a target."""

    graph: Graph
    costs: Costs
    target: Target
    build: Build
    clock: Clock | None = None
    picker: Picker | None = None
    _beyond: int | None = field(default=None, init=False)
    _times: dict[bytes, float] = field(default_factory=dict, init=False)

    def met(self, state: State) -> bool:
        """Return whether the model of a state meets every figure asked for."""
        return (
            self._counted(state.dead)
            and (self.target.params is None or not state.corrected or self._counts(state))
            and (self.target.size is None or self._fits(self.size(state)))
            and (self.target.latency_ms is None or self._confirms(state, self.target.latency_ms))
        )

    def near(self, dead: BoolArray) -> bool:
        """Return the same from an estimate of the size and a remembered latency.

        Shapes: dead `[channels]`.
        """
        return (
            self._counted(dead)
            and (self.target.size is None or self._fits(self._estimate(dead)))
            and (
                self.target.latency_ms is None
                or self._remembered(dead, self.target.latency_ms) <= MARGIN * self.target.latency_ms
            )
        )

    def trim(self, picker: Picker, chosen: IntArray, dead: BoolArray) -> BoolArray:
        """Return what is gone when no more of the chosen go than the target needs.

        Where it is measured, that is to a hundredth of all.
        Shapes: chosen `[n]`, dead `[channels]` -> `[channels]`.
        """
        measured = self.target.latency_ms is not None

        def near(chosen: IntArray) -> bool:
            return self.near(picker.remove(chosen, dead))

        apart = max(len(self.costs.groups) // 100, 1) if measured else 1
        chosen = chosen[: first(lambda count: near(chosen[:count]), len(chosen), apart)]
        chosen = chosen[picker.remove(chosen, dead)[chosen]]
        for without in () if measured else picker.without_a_block(chosen, dead):
            if near(without(chosen)):
                chosen = without(chosen)
        return picker.remove(chosen, dead)

    def _counted(self, dead: BoolArray) -> bool:
        """Whether single layers have lost their shares, and what is counted is as asked for."""
        if self.picker is None:
            return self.target.met(self.costs, dead)
        due = self.picker.due(dead)
        return not due and self.target.met(self.costs, dead, self.picker.counted)

    def goals(self, figures: Mapping[str, Figure]) -> dict[str, float]:
        """Return at what value each figure is met, for those that the target asks for."""
        target, groups = self.target, self.costs.groups
        found = {}
        if target.rate is not None:
            counted = groups.removable if self.picker is None else self.picker.counted
            goes = target.rate * int(groups.filter_count[counted].sum())
            found["rate"] = int(groups.filter_count.sum()) - goes
        for name in ("params", "macs", "size"):
            if name in figures and (goal := getattr(target, name)) is not None:
                whole = figures[name].of(np.zeros(len(groups), np.bool_))
                found[name] = goal * whole if goal <= 1 else goal
        if target.latency_ms is not None:
            found["latency"] = target.latency_ms
        return {name: goal for name, goal in found.items() if name in figures}

    @cached_property
    def bytes(self) -> Figure:
        """The bytes of the elements of all constants."""
        tensors = self.graph.constant_tensors.items()
        sizes = {n: helper.tensor_dtype_to_np_dtype(t.data_type).itemsize for n, t in tensors}
        shapes = {name: tuple(tensor.dims) for name, tensor in tensors}
        return Sum(self.costs.groups, shapes, sizes)

    def size(self, state: State) -> int:
        """Return the size of the model's file. Units: bytes."""
        size = file_size(self.build(state))
        self._beyond = size - self._weights(state.dead)
        return size

    def latency(self, state: State) -> float:
        """Measure the latency of the model. Units: ms."""
        time = self._times[state.dead.tobytes()] = self._time(self.build(state))
        return time

    def last_latency(self, state: State) -> float | None:
        """Return what was measured last of these channels, if anything was. Units: ms."""
        return self._times.get(state.dead.tobytes())

    def _fits(self, size: int) -> bool:
        goal = self.target.size
        assert goal is not None
        return size <= (goal * file_size(self.graph.model) if goal <= 1 else goal)

    def _estimate(self, dead: BoolArray) -> int:
        """The bytes of the file: those of its constants, and as many beyond as there were last."""
        if self._beyond is None:
            pruned = remove_channels(self.graph, self.costs.groups, dead)
            self._beyond = file_size(pruned) - self._weights(dead)
        return self._weights(dead) + self._beyond

    def _weights(self, dead: BoolArray) -> int:
        """The bytes of the elements of all constants that are left."""
        return int(self.bytes.of(dead))

    def _counts(self, state: State) -> bool:
        """Whether the parameters are few enough with the biases that a correction adds."""
        goal = self.target.params
        assert goal is not None
        graph = Graph(self.build(state), input_shapes=self.graph.input_shapes)
        return count(graph).params <= (goal * self.costs.of().params if goal <= 1 else goal)

    def _confirms(self, state: State, goal: float) -> bool:
        known = self.last_latency(state)
        return (known is None or known <= DOUBT * goal) and self.latency(state) <= goal

    def _remembered(self, dead: BoolArray, goal: float) -> float:
        key = dead.tobytes()
        if key not in self._times:
            model = remove_channels(self.graph, self.costs.groups, dead)
            found = self._time(model)
            if MARGIN * goal < found <= DOUBT * goal:
                found = min(found, self._time(model))
            self._times[key] = found
        return self._times[key]

    def _time(self, model: ModelProto) -> float:
        if self.clock is None:
            raise ValueError("a target latency needs a clock")
        return self.clock(model)


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
