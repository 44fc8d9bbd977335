"""Task: what one search is asked and given. State: where it is. Both are values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.search.control import Control, Strategy
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.search.protocols import (
    Clock,
    Compensate,
    Complete,
    Evaluate,
    Foresee,
    HoldOut,
    Judge,
    MeasureDamage,
    OnOthers,
    Profile,
    Rank,
    Restore,
)
from onnxprune.search.protocols import Measured as Measured
from onnxprune.search.target import Floor, Target, share_removed
from onnxprune.surgery import Costs, find_costs

Net = tuple[bytes, bool]
"""A net as a key: which channels are gone, and whether its weights are corrected for that."""


@dataclass(frozen=True, eq=False)
class State:
    """A net on the way down, and what its controller remembers. One line of the journal.

    `dead`: the channels that are gone; `size`: the next step; `accuracy`: on the reference samples,
    if it was measured; `stopped`: what ended the search, if anything did; `corrected`: whether
    weights are corrected from this state on; `limit`: below this soft harmonic mean, correction is
    tried; `barred`: the groups of which the smallest step broke the floor; `since`: the channels
    that went since relevance was measured, in steps that come to `followed` together; `halved`: how
    often the blocks that channels go in were halved; `took`: the order that the last step followed;
    `better`: the one that was best when several were tried last, and `won` times in a row; `rests`:
    for how many steps the others are not tried; `apart`: where the same searches without some
    samples are. Orders are numbered as `onnxprune.search.orders` tries them. States are equal by
    value and have no hash.
    Shapes: dead `[channels]`. Units: size, followed, share of what was left.
    """

    dead: BoolArray
    size: float = 1.0
    accuracy: Measured | None = None
    stopped: str = ""
    corrected: bool = False
    limit: float = 1.0
    barred: tuple[int, ...] = ()
    since: tuple[int, ...] = ()
    followed: float = 0.0
    halved: int = 0
    took: int = 0
    better: int = 0
    won: int = 0
    rests: int = 0
    apart: tuple[State, ...] = ()

    @property
    def net(self) -> Net:
        """The net that the state is of: all that its model depends on."""
        return self.dead.tobytes(), self.corrected and bool(self.dead.any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self._value == other._value

    __hash__ = None  # type: ignore[assignment]

    @property
    def _value(self) -> tuple[object, ...]:
        way = self.since, self.followed, self.halved, self.apart
        orders = self.took, self.better, self.won, self.rests
        end = self.accuracy, self.stopped, self.limit, self.barred
        return self.net, self.corrected, self.size, *end, way, orders


@dataclass(frozen=True, eq=False)
class Task:
    """One search: the graph, what is asked for, and how its nets are ranked and measured.

    Without `evaluate` no net is measured on the way; with `glance` tries are measured on a part of
    the samples, and the one that is kept on the `rest`; without `hold_out` a correction is judged
    on the samples that it was fitted on; `unseen` says that the part judges by samples that neither
    orders nor fits on the way see, a correction as `judged` has it, and `relevance` ranks for one
    order more. `foresee` is what a floor asks of unseen samples: nets of the searches `apart`,
    or, without them, those that were corrected `on_others`; `few` says that a floor looks at shrunk
    shares; `sketch` corrects roughly, for nets on the way. `aims` are what the search brings down,
    of `onnxprune.search.objective.AIMS`; `block` is how many channels the runtime computes at once;
    `said` goes into the metadata of pruned nets.
    """

    graph: Graph
    groups: ChannelGroups
    rank: Rank
    evaluate: Evaluate | None = None
    glance: Evaluate | None = None
    rest: Complete | None = None
    damage: MeasureDamage | None = None
    compensate: Compensate | None = None
    sketch: Compensate | None = None
    hold_out: HoldOut | None = None
    judged: Judge | None = None
    foresee: Foresee | None = None
    on_others: OnOthers | None = None
    apart: tuple[Apart, ...] = ()
    few: bool = False
    restore: Restore | None = None
    relevance: Rank | None = None
    unseen: bool = False
    clock: Clock | None = None
    profile: Profile | None = None
    target: Target = field(default_factory=Target)
    floor: Floor = field(default_factory=Floor)
    limits: Limits = field(default_factory=Limits)
    tuning: Control = field(default_factory=Control)
    strategy: Strategy = field(default_factory=Strategy)
    aims: tuple[str, ...] = ("rate",)
    block: int = 1
    said: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def costs(self) -> Costs:
        """The cost functions of the graph."""
        return find_costs(self.graph, self.groups)

    @cached_property
    def picker(self) -> Picker:
        """What chooses channels within the limits."""
        alone = self.limits.layer_rate and not self.target and not self.floor
        return Picker(self.groups, self.limits, self.block, rest=not alone)

    @property
    def goals(self) -> tuple[str, ...]:
        """The names of the options that say what to reach; with none a search ends at its floor."""
        asked = self.target.asked
        rates = self.limits.layer_rate and (asked or not self.floor)
        return (*asked, "layer_rate") if rates else asked

    def way(self, dead: BoolArray) -> float | None:
        """Return which share of the steps to the target is done, None where nobody can know.

        Shapes: dead `[channels]`.
        """
        return self.target.way(self.costs, dead, self.picker.counted)

    def rate(self, dead: BoolArray) -> float:
        """Return the pruning rate: removed filters over those of which it is a share.

        Shapes: dead `[channels]`.
        """
        return share_removed(self.groups, dead, self.picker.counted)


@dataclass(frozen=True, eq=False)
class Apart:
    """The same search without some samples, and which these are.

    Shapes: rows `[n]`.
    """

    task: Task
    rows: IntArray
