"""Plan: which filters go. Target, Floor and Limits: how far, at what price, and what is spared.

A plan names filters as the user sees them, by convolution and filter number, so that it can be
read, edited and replayed on the model without any analysis of ours in between.

>>> plan = Plan({"conv1": (0, 3)})
>>> Plan.from_json(plan.to_json()) == plan, len(plan)
(True, 2)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.channels import BoolArray, ChannelGroups
from onnxprune.cost import Costs
from onnxprune.errors import InvalidPlan
from onnxprune.files import write_whole
from onnxprune.labels import IntArray
from onnxprune.rounding import Rounding

FORMAT = 1


@dataclass(frozen=True)
class Plan:
    """The filters that go, by the name of their convolution node.

    `allow_inexact` are the operators that the plan was made to prune through inexactly.
    """

    removed: Mapping[str, tuple[int, ...]]
    allow_inexact: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(filters) for filters in self.removed.values())

    @classmethod
    def of(cls, groups: ChannelGroups, dead: BoolArray, allow_inexact: Sequence[str] = ()) -> Plan:
        """Return the plan that removes the `dead` channels. Shapes: dead `[channels]`."""
        found = {f.node: np.flatnonzero(dead[f.channels]).tolist() for f in groups.filters}
        removed = {name: tuple(filters) for name, filters in found.items() if filters}
        return cls(removed, tuple(allow_inexact))

    def dead(self, groups: ChannelGroups) -> BoolArray:
        """Return which channels of a graph the plan removes, tied filters included.

        Shapes: `[channels]`.
        Raises: InvalidPlan when the graph has no such convolution or filter.
        """
        flags = np.zeros(len(groups), np.bool_)
        channels = {f.node: f.channels for f in groups.filters}
        for node, filters in self.removed.items():
            if node not in channels:
                raise InvalidPlan(
                    f"plan: the model has no convolution '{node}'; it was made for another model"
                )
            size = channels[node].size
            wrong = [k for k in filters if not 0 <= k < size]
            if wrong:
                raise InvalidPlan(
                    f"plan: convolution '{node}' has {size} filters, so there is no filter "
                    f"{wrong[0]}; it was made for another model"
                )
            flags[channels[node][list(filters)]] = True
        return flags

    def to_json(self) -> str:
        """Return the text that `plan.json` holds."""
        lines = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(list(filters))}"
            for name, filters in self.removed.items()
        )
        body = f"{{\n{lines}\n  }}" if lines else "{}"
        allowed = json.dumps(list(self.allow_inexact))
        also = f'  "allow_inexact": {allowed},\n' if self.allow_inexact else ""
        return f'{{\n  "format": {FORMAT},\n{also}  "removed": {body}\n}}\n'

    @classmethod
    def from_json(cls, text: str, where: str = "plan") -> Plan:
        """Read a plan back.

        Raises: InvalidPlan when the text is not a plan.
        """
        try:
            content = json.loads(text)
            removed = {str(k): tuple(int(i) for i in v) for k, v in content["removed"].items()}
            allowed = tuple(str(name) for name in content.get("allow_inexact", ()))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidPlan(
                f'{where}: not a plan ({error}); expected {{"format": 1, "removed": {{node: '
                f"[filter numbers]}}}}, as 'onnxprune prune' writes it"
            ) from error
        if content.get("format") != FORMAT:
            raise InvalidPlan(f"{where}: format {content.get('format')}; expected {FORMAT}")
        return cls(removed, allowed)

    def save(self, path: str | Path) -> Path:
        """Write the plan whole, or not at all."""
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan from a file.

        Raises: InvalidPlan when there is no such file or it is not a plan.
        """
        path = Path(path)
        try:
            return cls.from_json(path.read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidPlan(f"{path}: cannot be read ({error}); give a plan.json") from error


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


@dataclass(frozen=True)
class Limits:
    """What is spared.

    At least `min_channels` on every axis stay, at most `max_layer_rate` of a group goes, and only
    from groups with a convolution that matches `include` and none that matches `exclude`. Widths
    end at multiples of `round_to`, as `onnxprune.rounding` says.
    """

    min_channels: int = 1
    max_layer_rate: float = 1.0
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    round_to: int = 1

    def allowed(self, groups: ChannelGroups) -> BoolArray:
        """Return which channels may be chosen. Shapes: `[channels]`."""
        flags = groups.removable.copy()
        for group in range(len(groups.names)):
            nodes = [f.node for f in groups.filters_of(group)]
            chosen = not self.include or _matches(nodes, self.include)
            if not chosen or _matches(nodes, self.exclude):
                flags[groups.group == group] = False
        return flags


def _matches(names: Sequence[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def share_removed(groups: ChannelGroups, dead: BoolArray) -> float:
    """Return the pruning rate: removed filters over removable filters."""
    return float(groups.filter_count[dead].sum()) / max(groups.removable_filters, 1)


@dataclass
class Room:
    """What may still go: `free` channels, so many of each group (`left`) and axis (`spare`)."""

    free: BoolArray
    left: list[float]
    spare: list[int]
    picker: Picker

    def take(self, channel: int) -> None:
        """Let a channel go, and all that may not follow it stay."""
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

        `layer_share` as in `room`. Shapes: order `[n]`, dead `[channels]` -> `[m]`, m <= n.
        """
        room = self.room(dead, layer_share)
        chosen = []
        for channel in order[room.free[order]].tolist():
            if room.free[channel]:
                room.take(channel)
                chosen.append(channel)
        return np.array(chosen, np.int64)

    def room(self, dead: BoolArray, layer_share: float | None = None) -> Room:
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
        return Room(free, cap.tolist(), spare, self)

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
        """Name the limits without which more than the `dead` channels could go.

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
