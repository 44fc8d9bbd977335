"""Objective: what a search brings down, and how much of it each channel is worth.

Filters differ in what they cost. A search that is to save multiply-adds therefore prefers, of two
channels that do the same damage, the one that saves more of them. What a channel saves is computed
on the net as it is, because it shrinks as the layers before and after it do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import ChannelGroups

ESTIMATE = "estimated-latency"
"""What `onnxprune.surgery.estimate` says of the latency; `latency` itself is measured."""

AIMS = (ESTIMATE, "latency", "macs", "params", "size", "rate")
"""What can be brought down; rate is the number of filters."""

OVER = ("rate", "macs", "params", "latency")
"""What a curve is drawn over: the share of it that is saved, of the removable filters for rate."""

LEAST = 1e-3
"""A channel is taken to save at least this share of what channels save on average, so that one
that saves nothing is still compared by its damage."""


class Figure(Protocol):
    """What a net costs: see `onnxprune.surgery.Figure`."""

    def of(self, dead: BoolArray) -> float:
        """Return the figure when the `dead` channels are gone. Shapes: dead `[channels]`."""
        ...

    def saved(self, dead: BoolArray) -> FloatArray:
        """Return what each channel's removal alone saves of the net without the `dead` ones.

        Shapes: dead `[channels]` -> `[channels]`.
        """
        ...


@dataclass(frozen=True)
class FilterCount:
    """The number of filters."""

    groups: ChannelGroups

    def of(self, dead: BoolArray) -> float:
        """Return how many filters are left. Shapes: dead `[channels]`."""
        return float(self.groups.filter_count[~dead].sum())

    def saved(self, dead: BoolArray) -> FloatArray:
        """Return how many filters each channel holds. Shapes: dead `[channels]` -> `[channels]`."""
        return np.where(dead, 0.0, self.groups.filter_count)


@dataclass(frozen=True)
class Objective:
    """One figure to bring down, or several at once.

    Of several, each is a share of what could go at most, weighed by how far it is from its goal.
    `goals[name]` is the value of a figure at which it is met, for those that have one; `removable`,
    which channels may go. Shapes: removable `[channels]`.
    """

    figures: Mapping[str, Figure]
    goals: Mapping[str, float]
    removable: BoolArray

    def saved(self, dead: BoolArray) -> FloatArray:
        """Return what removing each channel saves, more than 0.

        Shapes: dead `[channels]` -> `[channels]`.
        """
        weights = self._weights(dead)
        saved: FloatArray = sum(
            (factor * self.figures[name].saved(dead) for name, factor in weights.items()),
            np.zeros(dead.size),
        )
        free = self.removable & ~dead
        usual = float(saved[free].mean()) if free.any() else 0.0
        return np.maximum(saved, LEAST * usual or 1.0)

    def left(self, dead: BoolArray) -> float:
        """Return what could still be saved. Shapes: dead `[channels]`."""
        return sum(f * self._left(name, dead) for name, f in self._weights(dead).items())

    def done(self, dead: BoolArray) -> float:
        """Return how much of what could be saved is gone, of the figure with least of it.

        Shapes: dead `[channels]`. Units: share.
        """
        return min(1 - self._left(name, dead) / self._span(name) for name in self.figures)

    def beyond(self, dead: BoolArray) -> float:
        """Return by how much goals are passed, of the figure that passes its own by least.

        What is measured does not count, because blocks make it.
        Shapes: dead `[channels]`. Units: share of what could go.
        """
        counted = {name: goal for name, goal in self.goals.items() if name != "latency"}
        passed = ((goal - self.figures[n].of(dead)) / self._span(n) for n, goal in counted.items())
        return min(passed, default=0.0)

    def _weights(self, dead: BoolArray) -> dict[str, float]:
        """How much of each figure counts: 1 of a single one, which keeps its unit."""
        if len(self.figures) == 1:
            return dict.fromkeys(self.figures, 1.0)
        far = {name: self._distance(name, dead) for name in self.figures}
        if not any(far.values()):
            far = dict.fromkeys(far, 1.0)
        return {name: share / self._span(name) for name, share in far.items()}

    def _distance(self, name: str, dead: BoolArray) -> float:
        """The share of what could still go of a figure that has to go to meet its goal."""
        if name not in self.goals:
            return 1.0
        missing = self.figures[name].of(dead) - self.goals[name]
        return float(np.clip(missing / max(self._left(name, dead), 1e-12), 0.0, 1.0))

    def _left(self, name: str, dead: BoolArray) -> float:
        return self.figures[name].of(dead) - self._least[name]

    def _span(self, name: str) -> float:
        return max(self._left(name, np.zeros_like(self.removable)), 1e-12)

    @cached_property
    def _least(self) -> dict[str, float]:
        """What no removal can bring down."""
        return {name: figure.of(self.removable) for name, figure in self.figures.items()}
