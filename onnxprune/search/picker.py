"""Which channels may go, and which are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.search.limits import AUTO, Limits
from onnxprune.search.rounding import Rounding


@dataclass
class Allowance:
    """What may still go: the `free` channels, at most `left` of each group, `spare` of each axis.

    The widths of the `gone` channels of a group are rounded as `rounding` says.
    Shapes: free `[channels]`; left, gone `[groups]`; spare `[axes]`.
    """

    free: BoolArray
    left: list[float]
    spare: list[int]
    gone: list[int]
    picker: Picker
    rounding: Rounding

    def block(self, group: int) -> int:
        """Return how many channels of a group have to go at once; 0 where that is too many."""
        size = self.rounding.block(group, self.gone[group])
        fits = size <= self.left[group] and all(
            size <= self.spare[axis] for axis in self.picker.axes_of_group(group)
        )
        return size if fits else 0

    def among(self, channels: IntArray) -> Among:
        """Return the same as seen by a net that has only some of the channels."""
        return Among(self, channels)

    def take(self, channel: int) -> None:
        """Take a channel; what may not follow it is free no longer."""
        groups = self.picker.groups
        self.free[channel] = False
        group = int(groups.group[channel])
        self.left[group] -= 1
        self.gone[group] += 1
        if self.left[group] < 1:
            self.free[groups.group == group] = False
        for axis in self.picker.axes_of(channel):
            self.spare[axis] -= 1
            if self.spare[axis] <= 0:
                self.free[self.picker.axes[axis]] = False


@dataclass
class Among:
    """An allowance in which channels are numbered as in a net that has only some of them.

    Shapes: channels `[n]`.
    """

    allowance: Allowance
    channels: IntArray

    @property
    def group(self) -> IntArray:
        """The group of each channel. Shapes: `[n]`."""
        return self.allowance.picker.groups.group[self.channels]

    def free(self) -> BoolArray:
        """Return which channels may still go. Shapes: `[n]`."""
        return self.allowance.free[self.channels]

    def blocks(self) -> IntArray:
        """Return how many of each channel's group have to go at once. Shapes: `[n]`.

        Where so many may not go it is more than the group has.
        """
        if self.allowance.rounding.multiple == 1:
            return np.ones(self.channels.size, np.int64)
        groups = range(len(self.allowance.left))
        sizes = [self.allowance.block(group) or self.channels.size + 1 for group in groups]
        return np.array(sizes)[self.group]

    def take(self, channel: int) -> None:
        """Take a channel."""
        self.allowance.take(int(self.channels[channel]))


@dataclass
class Picker:
    """Chooses channels from a ranking, never against the limits.

    An axis never falls under `min_channels`. `block` is how many channels the runtime computes at
    once, to which widths are rounded where the limits leave that to the device. Groups that have to
    lose a share go before the others, or alone where the `rest` stays. Of `axes` a channel stays.
    Shapes: axes each `[n]`.
    """

    groups: ChannelGroups
    limits: Limits
    block: int = 1
    rest: bool = True
    axes: list[IntArray] = field(init=False)
    _members: list[int] = field(init=False)
    _ends: list[int] = field(init=False)
    _first: list[int] = field(init=False)
    _rounded: tuple[bytes, Rounding] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Index which axes each channel is on."""
        may_empty = self.groups.may_empty if self.limits.min_channels == 1 else lambda _: False
        axes = self.axes = [axis for axis in self.groups.axes if not may_empty(axis)]
        owners = np.concatenate(axes or [np.empty(0, np.int64)])
        members = np.repeat(np.arange(len(axes)), [channels.size for channels in axes])
        self._members = members[np.argsort(owners, kind="stable")].tolist()
        counts = np.bincount(owners, minlength=len(self.groups))
        self._ends = [0, *np.cumsum(counts).tolist()]
        self._first = np.unique(self.groups.group, return_index=True)[1].tolist()
        self.allowed = self.limits.allowed(self.groups)
        self.counted = self.limits.counted(self.groups)
        self._roundings = [Rounding(self.groups, multiple) for multiple in self._multiples()]
        self.quotas = {
            group: self._quota(group, share)
            for group, share in self.limits.shares(self.groups).items()
        }
        if not self.rest:
            self.allowed &= np.isin(self.groups.group, [*self.quotas])

    def may_halve(self, dead: BoolArray) -> bool:
        """Return whether channels go in blocks after the `dead` ones that nobody asked for.

        Shapes: dead `[channels]`.
        """
        return self.limits.round_to == AUTO and self.rounding(dead).multiple > 1

    def halved(self, times: int) -> Picker:
        """Return the same with blocks that are halved so often."""
        return replace(self, block=max(self.block >> times, 1))

    def _quota(self, group: int, share: float) -> int:
        """How many channels are the share of a group: whole blocks where it has as many."""
        most = np.floor(share * int((self.groups.group == group).sum()) + 1e-9)
        stops = (one.stops[group] for one in self._roundings)
        return next((int(fit) for s in stops if (fit := s[s <= most].max(initial=0))), 0)

    def due(self, dead: BoolArray) -> dict[int, int]:
        """Return how many more channels groups have to lose, for those that do.

        Shapes: dead `[channels]`.
        """
        gone = np.bincount(self.groups.group[dead], minlength=len(self.groups.names))
        left = {group: quota - int(gone[group]) for group, quota in self.quotas.items()}
        return {group: count for group, count in left.items() if count > 0}

    def _multiples(self) -> list[int]:
        """What widths are rounded to: the first with which something may still go."""
        asked = self.limits.round_to
        return [asked] if isinstance(asked, int) else [self.block, 1]

    def pick(
        self,
        order: IntArray,
        dead: BoolArray,
        *,
        layer_share: float | None = None,
        barred: Sequence[int] = (),
    ) -> IntArray:
        """Return the channels of `order` that may go one after another, after the `dead` ones.

        `layer_share` and `barred` as in `allowance`.
        Shapes: order `[n]`, dead `[channels]` -> `[m]`, m <= n.
        """
        allowance = self.allowance(dead, layer_share, barred)
        order = self._in_blocks(order, allowance)
        chosen = []
        for channel in order[allowance.free[order]].tolist():
            if allowance.free[channel]:
                allowance.take(channel)
                chosen.append(channel)
        return np.array(chosen, np.int64)

    def _in_blocks(self, order: IntArray, allowance: Allowance) -> IntArray:
        """Bring the channels of a block together, at the place of their middle.

        Shapes: order `[n]` -> `[n]`.
        """
        if allowance.rounding.multiple == 1:
            return order
        place = np.empty(len(self.groups))
        place[order] = np.arange(order.size)
        order = order[allowance.free[order]]
        for group in np.unique(self.groups.group[order]).tolist():
            own = order[self.groups.group[order] == group]
            stops = allowance.rounding.stops[group] - allowance.gone[group]
            for block in np.split(own, stops[(stops > 0) & (stops < own.size)]):
                place[block] = place[block].mean()
        return order[np.argsort(place[order], kind="stable")]

    def rounding(self, dead: BoolArray) -> Rounding:
        """Return the first rounding with which something may go after the `dead` channels.

        Shapes: dead `[channels]`.
        """
        key = dead.tobytes()
        if self._rounded is None or self._rounded[0] != key:
            fitting = (one for one in self._roundings[:-1] if self._fits(one, dead))
            self._rounded = key, next(fitting, self._roundings[-1])
        return self._rounded[1]

    def _fits(self, rounding: Rounding, dead: BoolArray) -> bool:
        """Whether a block of any group may go."""
        allowance = self._allowance(dead, rounding, None)
        open_groups = np.unique(self.groups.group[allowance.free]).tolist()
        return any(map(allowance.block, open_groups))

    def allowance(
        self, dead: BoolArray, layer_share: float | None = None, barred: Sequence[int] = ()
    ) -> Allowance:
        """Return what may go after the `dead` channels.

        `layer_share` caps what goes from each group, as a share of what it has left; nothing goes
        from the `barred` groups. Shapes: dead `[channels]`.
        """
        allowance = self._allowance(dead, self.rounding(dead), layer_share)
        allowance.free[np.isin(self.groups.group, barred)] = False
        return allowance

    def _allowance(
        self, dead: BoolArray, rounding: Rounding, layer_share: float | None
    ) -> Allowance:
        group = self.groups.group
        whole = np.bincount(group, minlength=len(self.groups.names))
        gone = np.bincount(group[dead], minlength=len(self.groups.names))
        cap = np.floor(self.limits.max_layer_rate * whole + 1e-9) - gone
        if layer_share is not None:
            least = rounding.multiple
            cap = np.minimum(cap, np.maximum(np.floor(layer_share * (whole - gone)), least))
        for one, quota in self.quotas.items():
            cap[one] = min(cap[one], quota - gone[one])
        axes = self.axes
        spare = [int(c.size - dead[c].sum()) - self.limits.min_channels for c in axes]
        free = self.allowed & ~dead & (cap[group] >= 1)
        if due := self.due(dead):
            free &= np.isin(group, [*due])
        for channels, count in zip(axes, spare, strict=True):
            if count <= 0:
                free[channels] = False
        return Allowance(free, cap.tolist(), spare, gone.tolist(), self, rounding)

    def axes_of(self, channel: int) -> list[int]:
        """Return the axes that a channel is on."""
        return self._members[self._ends[channel] : self._ends[channel + 1]]

    def thinned(self, shares: Mapping[int, float]) -> BoolArray:
        """Return a net without a share of each group, rounded, spread over all of its channels.

        No axis is left with fewer than `min_channels`, rounded or not.
        Shapes: -> gone `[channels]`.
        """
        dead = np.zeros(len(self.groups), np.bool_)
        rounding = self.rounding(dead)
        for group, share in shares.items():
            own = np.flatnonzero((self.groups.group == group) & self.allowed)
            stops = rounding.stops[group]
            most = stops[stops <= min(share * own.size, own.size - self.limits.min_channels)]
            count = int(most.max(initial=0))
            dead[own[np.arange(count) * own.size // max(count, 1)]] = True
        for axis in self.axes:  # the parts of a Split are axes of one group
            missing = self.limits.min_channels - int((~dead[axis]).sum())
            dead[axis[dead[axis]][: max(missing, 0)]] = False
        return dead

    def axes_of_group(self, group: int) -> list[int]:
        """Return the axes that the channels of a group are on."""
        return self.axes_of(self._first[group])

    def remove(self, chosen: IntArray, dead: BoolArray) -> BoolArray:
        """Return what is gone after the `dead` channels when `chosen` go, too, rounded.

        Shapes: chosen `[n]`, dead `[channels]` -> `[channels]`.
        """
        rounding = self.rounding(dead)
        if rounding.multiple > 1:
            return rounding.remove(chosen, dead)
        gone = dead.copy()
        gone[chosen] = True
        return gone

    def without_a_block(
        self, chosen: IntArray, dead: BoolArray
    ) -> Iterator[Callable[[IntArray], IntArray]]:
        """Yield functions that leave out the last block of a group, the latest chosen one first.

        Nothing is yielded where channels go one by one.
        Shapes: chosen `[n]`, dead `[channels]`.
        """
        rounding, group = self.rounding(dead), self.groups.group
        if rounding.multiple == 1:
            return
        gone = np.bincount(group[dead], minlength=len(self.groups.names))
        for number in dict.fromkeys(group[chosen[::-1]].tolist()):

            def without(chosen: IntArray, number: int = number) -> IntArray:
                own = np.flatnonzero(group[chosen] == number)
                size = rounding.last_block(number, int(gone[number]) + own.size)
                return np.delete(chosen, own[max(own.size - size, 0) :])

            yield without

    def most(self) -> BoolArray:
        """Return what is gone when as much goes as may. Shapes: `[channels]`."""
        dead, before = np.zeros(len(self.groups), np.bool_), None
        while before is None or (dead != before).any():
            before = dead
            dead = self.remove(self.pick(np.flatnonzero(~dead), dead), dead)
        return dead

    def stopped_by(self, dead: BoolArray) -> tuple[str, ...]:
        """Return the names of the limits without which more than the `dead` channels could go.

        Shapes: dead `[channels]`.
        """
        usual, asked = asdict(Limits()), asdict(self.limits)
        names = [name for name in asked if asked[name] != usual[name]]
        alone = [name for name in names if self._goes_on(dead, **{name: usual[name]})]
        return tuple(alone or (names if self._goes_on(dead, **usual) else ()))

    def _goes_on(self, dead: BoolArray, **limits: Any) -> bool:
        picker = Picker(self.groups, replace(self.limits, **limits), self.block)
        chosen = picker.pick(np.flatnonzero(~dead), dead)
        return bool((picker.remove(chosen, dead) != dead).any())
