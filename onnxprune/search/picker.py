"""Which channels may go, and which are taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.checks import Checked, Names, Number, asked
from onnxprune.search.rounding import Rounding

PATTERNS = "patterns of names"


@dataclass(frozen=True)
class Limits(Checked):
    """What is spared.

    At least `min_channels` on every axis stay, at most `max_layer_rate` of a group goes, and only
    from groups with a convolution that matches `include` and none that matches `exclude`: shell
    patterns of the names that `onnxprune.graph.Called` has. Widths end at multiples of `round_to`,
    as `onnxprune.search.rounding` says.
    """

    min_channels: int = asked(
        Number(
            whole=True,
            least=1,
            metavar="N",
            help="Leave at least this many channels in every layer.",
        ),
        1,
    )
    max_layer_rate: float = asked(
        Number(
            least=0,
            most=1,
            share=True,
            metavar="SHARE",
            help="Remove at most this share of any layer.",
        ),
        1.0,
    )
    include: Sequence[str] = asked(
        Names(
            of=PATTERNS,
            metavar="PATTERN",
            help="Prune only convolutions whose name, or a module around them, matches, such as "
            "layer3 or 'layer3.*'; repeatable.",
        ),
        (),
    )
    exclude: Sequence[str] = asked(
        Names(
            of=PATTERNS,
            metavar="PATTERN",
            help="Spare convolutions whose name, or a module around them, matches; repeatable.",
        ),
        (),
    )
    round_to: int = asked(
        Number(
            whole=True,
            least=1,
            metavar="N",
            help="Leave widths at multiples of N, such as 8, which runtimes compute faster.",
        ),
        1,
    )

    def allowed(self, groups: ChannelGroups) -> BoolArray:
        """Return which channels may be chosen. Shapes: `[channels]`.

        Raises: UnknownName for a pattern that no convolution matches.
        """
        include = groups.find("include", self.include)
        exclude = groups.find("exclude", self.exclude)
        flags = groups.removable.copy()
        for group in range(len(groups.names)):
            nodes = {f.node for f in groups.filters_of(group)}
            if (self.include and not nodes & include) or nodes & exclude:
                flags[groups.group == group] = False
        return flags


@dataclass
class Allowance:
    """What may still go: the `free` channels, at most `left` of each group, `spare` of each axis.

    Shapes: free `[channels]`.
    """

    free: BoolArray
    left: list[float]
    spare: list[int]
    picker: Picker

    def take(self, channel: int) -> None:
        """Take a channel; what may not follow it is free no longer."""
        groups = self.picker.groups
        self.free[channel] = False
        group = int(groups.group[channel])
        self.left[group] -= 1
        if self.left[group] < 1:
            self.free[groups.group == group] = False
        for axis in self.picker.axes_of(channel):
            self.spare[axis] -= 1
            if self.spare[axis] <= 0:
                self.free[groups.axes[axis]] = False


@dataclass
class Picker:
    """Chooses channels from a ranking, never against the limits.

    An axis never falls under `min_channels`.
    """

    groups: ChannelGroups
    limits: Limits
    _members: list[int] = field(init=False)
    _ends: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Index which axes each channel is on."""
        axes = self.groups.axes
        owners = np.concatenate(axes or [np.empty(0, np.int64)])
        members = np.repeat(np.arange(len(axes)), [channels.size for channels in axes])
        self._members = members[np.argsort(owners, kind="stable")].tolist()
        counts = np.bincount(owners, minlength=len(self.groups))
        self._ends = [0, *np.cumsum(counts).tolist()]
        self.allowed = self.limits.allowed(self.groups)
        self._rounding = Rounding(self.groups, self.limits.round_to)

    def pick(
        self, order: IntArray, dead: BoolArray, *, layer_share: float | None = None
    ) -> IntArray:
        """Return the channels of `order` that may go one after another, after the `dead` ones.

        `layer_share` as in `allowance`. Shapes: order `[n]`, dead `[channels]` -> `[m]`, m <= n.
        """
        allowance = self.allowance(dead, layer_share)
        chosen = []
        for channel in order[allowance.free[order]].tolist():
            if allowance.free[channel]:
                allowance.take(channel)
                chosen.append(channel)
        return np.array(chosen, np.int64)

    def allowance(self, dead: BoolArray, layer_share: float | None = None) -> Allowance:
        """Return what may go after the `dead` channels.

        `layer_share` caps what goes from each group, as a share of what it has left.
        Shapes: dead `[channels]`.
        """
        group = self.groups.group
        whole = np.bincount(group, minlength=len(self.groups.names))
        gone = np.bincount(group[dead], minlength=len(self.groups.names))
        cap = np.floor(self.limits.max_layer_rate * whole + 1e-9) - gone
        if layer_share is not None:
            least = self.limits.round_to
            cap = np.minimum(cap, np.maximum(np.floor(layer_share * (whole - gone)), least))
        axes = self.groups.axes
        spare = [int(c.size - dead[c].sum()) - self.limits.min_channels for c in axes]
        free = self.allowed & ~dead & (cap[group] >= 1)
        for channels, count in zip(axes, spare, strict=True):
            if count <= 0:
                free[channels] = False
        return Allowance(free, cap.tolist(), spare, self)

    def axes_of(self, channel: int) -> list[int]:
        """Return the axes that a channel is on."""
        return self._members[self._ends[channel] : self._ends[channel + 1]]

    def remove(self, chosen: IntArray, dead: BoolArray) -> BoolArray:
        """Return what is gone after the `dead` channels when `chosen` go, too, rounded.

        Shapes: chosen `[n]`, dead `[channels]` -> `[channels]`.
        """
        if self.limits.round_to > 1:
            return self._rounding.remove(chosen, dead)
        gone = dead.copy()
        gone[chosen] = True
        return gone

    def stopped_by(self, dead: BoolArray) -> tuple[str, ...]:
        """Return the names of the limits without which more than the `dead` channels could go.

        Shapes: dead `[channels]`.
        """
        usual, asked = asdict(Limits()), asdict(self.limits)
        names = [name for name in asked if asked[name] != usual[name]]
        alone = [name for name in names if self._goes_on(dead, **{name: usual[name]})]
        return tuple(alone or (names if self._goes_on(dead, **usual) else ()))

    def _goes_on(self, dead: BoolArray, **limits: Any) -> bool:
        picker = Picker(self.groups, replace(self.limits, **limits))
        chosen = picker.pick(np.flatnonzero(~dead), dead)
        return bool((picker.remove(chosen, dead) != dead).any())
