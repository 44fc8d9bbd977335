"""Rounding: in which blocks channels go, so that widths end at multiples of a number.

Runtimes compute channels in blocks, so a width between two multiples costs what the next one does.

>>> import numpy as np
>>> axis = WidthAxis(channels=np.arange(10), positions=np.ones(10, np.int64), width=10)
>>> [axis.surplus(gone, 4) for gone in (0, 1, 2, 3, 6, 7)]
[0, 1, 0, 1, 0, 1]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups


@dataclass(frozen=True)
class WidthAxis:
    """An axis of a tensor: the channels on it and how many positions each has there.

    Shapes: channels, positions `[n]`.
    """

    channels: IntArray
    positions: IntArray
    width: int

    def surplus(self, gone: int, multiple: int) -> int:
        """Return how many of the `gone` positions must stay for the width to be a multiple.

        All stay where they are too few to reach the first multiple below the width.
        """
        first = self.width % multiple
        return gone if gone < first else (gone - first) % multiple


@dataclass(frozen=True)
class Rounding:
    """Keeps some of the chosen channels, so that each axis has a multiple left or is untouched.

    Axes are the filters of every convolution, and every other axis whose width is a multiple
    already. Of other tensors than weights an axis that counts groups of filters, as those have that
    are normalised together, does not matter. No width grows.
    """

    groups: ChannelGroups
    multiple: int

    @cached_property
    def axes(self) -> tuple[WidthAxis, ...]:
        """The axes to round, narrow ones first, because wide ones may be joined from them."""
        found = {channels.tobytes(): channels for channels in self._bound()}
        axes = (WidthAxis(*_counted(axis), int(axis.size)) for axis in found.values())
        return tuple(sorted(axes, key=lambda axis: axis.width))

    @cached_property
    def stops(self) -> tuple[IntArray, ...]:
        """For each group, how many of its channels may be gone for its own axes to be rounded.

        An axis on which several groups lie is left to `remove`.
        """
        whole = np.bincount(self.groups.group, minlength=len(self.groups.names))
        right = [np.ones(count + 1, np.bool_) for count in whole.tolist()]
        for axis in self.axes:
            numbers = np.unique(self.groups.group[axis.channels])
            if numbers.size == 1 and np.ptp(axis.positions) == 0:
                held = right[numbers[0]]
                gone = np.arange(held.size) * int(axis.positions[0])
                held &= [not axis.surplus(count, self.multiple) for count in gone.tolist()]
        return tuple(np.flatnonzero(held) for held in right)

    def block(self, group: int, gone: int) -> int:
        """Return how many more channels of a group make its widths right; 0 where none do."""
        stops = self.stops[group]
        place = int(np.searchsorted(stops, gone, "right"))
        return int(stops[place]) - gone if place < stops.size else 0

    def last_block(self, group: int, gone: int) -> int:
        """Return how many fewer channels of a group make its widths right, too."""
        stops = self.stops[group]
        place = int(np.searchsorted(stops, gone))
        return gone - int(stops[place - 1]) if place else 0

    def _bound(self) -> Iterator[IntArray]:
        yield from (filters.channels for filters in self.groups.filters)
        weights = {filters.weight for filters in self.groups.filters}
        for tensor, axes in self.groups.cuts.items():
            own = [one for one in axes.values() if one.size % self.multiple == 0]
            yield from (one for one in own if tensor in weights or not self._counts_groups(one))

    def _counts_groups(self, axis: IntArray) -> bool:
        """Whether every channel has fewer positions on an axis than filters in any convolution."""
        owners, positions = _counted(axis)
        return bool(owners.size and (positions < self._fewest[owners]).all())

    @cached_property
    def _fewest(self) -> IntArray:
        """How many filters each channel has in the convolution where it has fewest."""
        fewest = np.full(len(self.groups), np.iinfo(np.int64).max)
        for filters in self.groups.filters:
            owners, positions = _counted(filters.channels)
            fewest[owners] = np.minimum(fewest[owners], positions)
        return fewest

    def remove(self, chosen: IntArray, dead: BoolArray) -> BoolArray:
        """Return which channels are gone when `chosen` go after the `dead` ones, rounded.

        Where too many would go, the last of the chosen stay. The `dead` ones are rounded already.
        Shapes: chosen `[n]`, dead `[channels]` -> `[channels]`.
        """
        gone = dead.copy()
        gone[chosen] = True
        turn = np.full(dead.size, -1)
        turn[chosen] = np.arange(chosen.size)
        while any([self._give_back(axis, gone, turn) for axis in self.axes]):
            pass
        return gone

    def _give_back(self, axis: WidthAxis, gone: BoolArray, turn: IntArray) -> bool:
        """Give channels back until one axis is rounded; return whether any was."""
        away = gone[axis.channels]
        removed = int(axis.positions[away].sum())
        if not axis.surplus(removed, self.multiple):
            return False
        new = away & (turn[axis.channels] >= 0)
        channels, positions = axis.channels[new], axis.positions[new]
        latest = np.argsort(-turn[channels])
        left = removed - np.cumsum(positions[latest])
        right = [not axis.surplus(int(count), self.multiple) for count in left]
        count = right.index(True) + 1 if True in right else len(right)
        gone[channels[latest[:count]]] = False
        return count > 0


def _counted(channels: IntArray) -> tuple[IntArray, IntArray]:
    """Which channels lie on an axis, and at how many positions. Shapes: `[n]` -> `[m]`, `[m]`."""
    owners, positions = np.unique(channels[channels >= 0], return_counts=True)
    return owners, positions
