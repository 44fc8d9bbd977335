"""Reach: whether a net meets the target, by figures that are counted and figures that are measured.

A search asks of many nets, so what is costly is asked last and of the pruned model without
compensation (`near`); the net that a run ends in is asked anew, as it will be shipped (`met`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

import numpy as np
from onnx import ModelProto, helper

from onnxprune.arrays import BoolArray
from onnxprune.channels import STAYS, ChannelGroups
from onnxprune.graph import Graph
from onnxprune.surgery import Costs, prune

MARGIN = 0.98
"""Of the latency asked for: the search aims lower, so that measuring again confirms it."""
DOUBT = 1.25
"""A latency above that asked for by less than this is measured twice, the lower one counts: what
else the machine does only adds to it. One beyond is believed."""

Build = Callable[[BoolArray], ModelProto]
Clock = Callable[[ModelProto], float]


@dataclass
class Reach:
    """Holds nets against a target. `clock` measures the latency of a model in ms."""

    graph: Graph
    costs: Costs
    target: Target
    build: Build
    clock: Clock | None = None
    _beyond: int | None = field(default=None, init=False)
    _times: dict[bytes, float] = field(default_factory=dict, init=False)

    def met(self, dead: BoolArray) -> bool:
        """Say whether the model without the `dead` channels meets every figure asked for.

        Shapes: dead `[channels]`.
        """
        return (
            self.target.met(self.costs, dead)
            and (self.target.size is None or self._fits(self.size(dead)))
            and (self.target.latency_ms is None or self._confirms(dead, self.target.latency_ms))
        )

    def near(self, dead: BoolArray) -> bool:
        """Say the same from an estimate of the size and a remembered latency."""
        return (
            self.target.met(self.costs, dead)
            and (self.target.size is None or self._fits(self._estimate(dead)))
            and (
                self.target.latency_ms is None
                or self._remembered(dead, self.target.latency_ms) <= MARGIN * self.target.latency_ms
            )
        )

    def size(self, dead: BoolArray) -> int:
        """Return the bytes of the model's file, compensated as it will be."""
        size = int(self.build(dead).ByteSize())
        self._beyond = size - self._weights(dead)
        return size

    def latency(self, dead: BoolArray) -> float:
        """Measure the latency of the model as it will be, in ms."""
        key = dead.tobytes()
        self._times[key] = self._time(self.build(dead))
        return self._times[key]

    def last_latency(self, dead: BoolArray) -> float | None:
        """Return what was measured last of this net, if anything was."""
        return self._times.get(dead.tobytes())

    def _fits(self, size: int) -> bool:
        goal = self.target.size
        assert goal is not None
        return size <= (goal * self.graph.model.ByteSize() if goal <= 1 else goal)

    def _estimate(self, dead: BoolArray) -> int:
        """The bytes of the file by those of its constants and what was beyond these at last."""
        if self._beyond is None:
            pruned = prune(self.graph, self.costs.groups, dead)
            self._beyond = pruned.ByteSize() - self._weights(dead)
        return self._weights(dead) + self._beyond

    def _weights(self, dead: BoolArray) -> int:
        """The bytes of the elements of all constants that are left."""
        total = 0
        for name, tensor in self.graph.constant_tensors.items():
            size = np.array(tensor.dims, np.int64)
            for axis, channels in self.costs.groups.cuts.get(name, {}).items():
                size[axis] = int(((channels == STAYS) | ~dead[channels]).sum())
            item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
            total += int(size.prod()) * item
        return total

    def _confirms(self, dead: BoolArray, goal: float) -> bool:
        known = self.last_latency(dead)
        return (known is None or known <= DOUBT * goal) and self.latency(dead) <= goal

    def _remembered(self, dead: BoolArray, goal: float) -> float:
        key = dead.tobytes()
        if key not in self._times:
            model = prune(self.graph, self.costs.groups, dead)
            found = self._time(model)
            if MARGIN * goal < found <= DOUBT * goal:
                found = min(found, self._time(model))
            self._times[key] = found
        return self._times[key]

    def _time(self, model: ModelProto) -> float:
        if self.clock is None:
            raise ValueError("a target latency needs a clock")
        return self.clock(model)


@dataclass(frozen=True)
class Target:
    """What to reach: removal stops as soon as every figure is met; None is not asked for.

    Units: rate, share of removable filters removed; params, macs and size (bytes of the file),
    share of the original that may be kept (up to 1) or an absolute figure (above 1); latency_ms,
    milliseconds of one batch on onnxruntime.
    """

    rate: float | None = None
    params: float | None = None
    macs: float | None = None
    size: float | None = None
    latency_ms: float | None = None

    def __bool__(self) -> bool:
        return bool(self.asked)

    @property
    def asked(self) -> tuple[str, ...]:
        """The names of the figures asked for."""
        return tuple(one.name for one in fields(self) if getattr(self, one.name) is not None)

    def met(self, costs: Costs, dead: BoolArray) -> bool:
        """Say whether removing the `dead` channels reaches the rate, params and macs asked for."""
        rate = share_removed(costs.groups, dead)
        if self.rate is not None and rate < self.rate - 1e-9:
            return False
        now, full = costs.of(dead), costs.of()
        wanted = ((self.params, now.params, full.params), (self.macs, now.macs, full.macs))
        return all(
            goal is None or have <= (goal * whole if goal <= 1 else goal)
            for goal, have, whole in wanted
        )


@dataclass(frozen=True)
class Floor:
    """What must hold on the reference samples. Units: harmonic mean of the class accuracies."""

    min_accuracy: float | None = None
    max_drop: float | None = None

    def __bool__(self) -> bool:
        return self.min_accuracy is not None or self.max_drop is not None

    def level(self, unpruned: float) -> float:
        """Return the lowest harmonic mean allowed."""
        levels = [] if self.min_accuracy is None else [self.min_accuracy]
        if self.max_drop is not None:
            levels.append(unpruned - self.max_drop)
        return max(levels, default=0.0)

    def decisive(self, unpruned: float) -> tuple[str, ...]:
        """Name what decides the lowest harmonic mean allowed."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        level = self.level(unpruned)
        return tuple(n for n, v in given.items() if Floor(**{n: v}).level(unpruned) == level)


def share_removed(groups: ChannelGroups, dead: BoolArray) -> float:
    """Return the pruning rate: removed filters over removable filters."""
    return float(groups.filter_count[dead].sum()) / max(groups.removable_filters, 1)
