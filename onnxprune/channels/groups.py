"""Which channels must go together, and which must stay and why. No operator is named here.

Every tensor is a box: along an axis it is **cut** into labelled positions, and removing a label
removes its positions from every cut that holds it. An axis without a cut never shrinks. One walk
over the nodes gives labels to all tensors, each operator saying how channels cross it; labels that
meet are united. What comes out:

* a **channel** is a class of labels that can only go together and holds at least one filter;
* a **group** is a set of channels that share their cuts (a layer, or layers tied by residuals);
* `reasons[channel]` says why a channel must stay.

Source: the dependency graph of Fang et al. 2023, found by labels in place of pairwise rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from onnxprune.arrays import BoolArray, IntArray, Kept
from onnxprune.channels.labels import Labels, Reason, balance
from onnxprune.channels.propagate import Propagation
from onnxprune.channels.requests import ALLOW_INEXACT, ALSO, BRANCHES, DENSE, why_no_filters
from onnxprune.channels.whole_branches import find_whole
from onnxprune.checks import Object
from onnxprune.errors import InvalidModel, InvalidPlan, UnknownName
from onnxprune.graph import GRAPH, Called, Graph, call, nearest
from onnxprune.ops import Held, Node

Cuts = Mapping[str, Mapping[int, IntArray]]

STAYS = -1
"""In a cut: a position that no channel owns."""


@dataclass(frozen=True)
class Filters:
    """The filters of one convolution: `channels[k]` is the channel that filter k belongs to.

    They lie along `axis` of the output; a convolution may be written as a product of matrices. Of a
    `dense` layer they are its units.
    Shapes: channels `[filters]`.
    """

    node: str
    weight: str
    output: str
    channels: IntArray
    axis: int = 1
    dense: bool = False


@dataclass(frozen=True)
class ChannelGroups:
    """All channels of a graph, numbered in the order in which their filters run.

    `cuts[tensor][axis]` gives the channel of each position, or STAYS. `group[channel]` is the group
    of a channel, `names[group]` the name of its first convolution. `inexact[node]` are the channels
    that cross a node whose result would change with them, as the user allowed. `called` says how
    people know the convolutions, by the names of their nodes; it has all of them, those whose
    filters are not followed included. `also` says what counts as filters beside those of
    convolutions: with `dense` the units of dense layers, which are then meant by filters here.
    `untaken` are the branches of an If that no sample takes.
    `whole` are the sets of channels that may all go, and a branch with them.
    Shapes: cuts `[size]` of the axis, group `[channels]`.
    """

    cuts: Cuts
    filters: tuple[Filters, ...]
    group: IntArray
    names: tuple[str, ...]
    reasons: Mapping[int, Reason]
    inexact: Mapping[str, IntArray] = field(default_factory=dict)
    called: Mapping[str, Called] = field(default_factory=dict)
    also: tuple[str, ...] = ()
    untaken: frozenset[Held] = frozenset()
    whole: tuple[IntArray, ...] = ()

    def __len__(self) -> int:
        return int(self.group.size)

    @cached_property
    def removable(self) -> BoolArray:
        """Whether each channel may go. Shapes: `[channels]`."""
        flags = np.ones(len(self), np.bool_)
        flags[list(self.reasons)] = False
        return flags

    @cached_property
    def filter_count(self) -> IntArray:
        """How many filters each channel holds. Shapes: `[channels]`."""
        return self._count(self.filters)

    @cached_property
    def unit_count(self) -> IntArray:
        """How many of these are units of dense layers. Shapes: `[channels]`."""
        return self._count([f for f in self.filters if f.dense])

    def _count(self, filters: Sequence[Filters]) -> IntArray:
        found = [f.channels for f in filters] or [np.empty(0, np.int64)]
        return np.bincount(np.concatenate(found), minlength=len(self))

    @property
    def removable_filters(self) -> int:
        """How many filters may go in all."""
        return int(self.filter_count[self.removable].sum())

    @cached_property
    def pinned(self) -> dict[int, Reason]:
        """The reason of every group in which nothing may go."""
        found: dict[int, Reason] = {}
        for channel, reason in self.reasons.items():
            found.setdefault(int(self.group[channel]), reason)
        free = set(self.group[self.removable].tolist())
        return {group: reason for group, reason in found.items() if group not in free}

    def title(self, node: str) -> str:
        """Return the name under which a convolution is shown: that of its module, where known."""
        return self.called[node].title if node in self.called else node

    def find(self, what: str, patterns: Sequence[str]) -> set[str]:
        """Return the nodes of the convolutions that match one of the patterns.

        Raises: UnknownName naming `what` and the pattern, where one matches no convolution.
        """
        found: set[str] = set()
        for pattern in patterns:
            matching = {node for node, one in self.called.items() if one.matches(pattern)}
            if not matching:
                near = ", ".join(f"'{name}'" for name in nearest(pattern, self.called.values()))
                raise UnknownName(
                    f"{what} '{pattern}': matches no convolution; near names are {near}; "
                    f"'onnxprune inspect' lists all"
                )
            found |= matching
        return found

    def members(self, group: int) -> list[tuple[str, int]]:
        """Return the (tensor, axis) cuts of a group."""
        own = self.channels_of(group)
        return [(t, axis) for t, axis, channels in self._each_cut if np.isin(own, channels).any()]

    def channels_of(self, group: int) -> IntArray:
        """Return the channels of a group. Shapes: `[n]`."""
        return self._channels_by_group[group]

    @cached_property
    def _channels_by_group(self) -> list[IntArray]:
        ends = np.cumsum(np.bincount(self.group, minlength=len(self.names)))
        return np.split(np.argsort(self.group, kind="stable"), ends[:-1])

    def filters_of(self, group: int) -> list[Filters]:
        """Return the convolutions whose filters belong to a group."""
        return self._filters_by_group[group]

    @cached_property
    def _filters_by_group(self) -> list[list[Filters]]:
        found: list[list[Filters]] = [[] for _ in self.names]
        for filters in self.filters:
            for group in np.unique(self.group[filters.channels]).tolist():
                found[group].append(filters)
        return found

    @cached_property
    def _each_cut(self) -> list[tuple[str, int, IntArray]]:
        return [(t, axis, c) for t, axes in self.cuts.items() for axis, c in axes.items()]

    def kept(self, tensor: str, dead: BoolArray) -> Kept:
        """Return which positions of a tensor survive, for each axis that loses some.

        Shapes: dead `[channels]`.
        """
        cuts = self.cuts.get(tensor, {}).items()
        found = {axis: (channels == STAYS) | ~dead[channels] for axis, channels in cuts}
        return {axis: alive for axis, alive in found.items() if not alive.all()}

    def sizes(self, tensor: str, dead: BoolArray) -> dict[int, int]:
        """Return how many positions survive on each axis of a tensor that loses some.

        Shapes: dead `[channels]`.
        """
        return {axis: int(alive.sum()) for axis, alive in self.kept(tensor, dead).items()}

    def cut_alike(self, one: str, other: str, dead: BoolArray) -> bool:
        """Say whether two tensors lose the same positions. Shapes: dead `[channels]`."""
        mine, its = self.kept(one, dead), self.kept(other, dead)
        return mine.keys() == its.keys() and all(
            np.array_equal(alive, its[axis]) for axis, alive in mine.items()
        )

    def check(self, dead: BoolArray) -> None:
        """Refuse to remove what must stay, or all of an axis.

        Shapes: dead `[channels]`.
        Raises: InvalidPlan naming the first such channel or axis.
        """
        pinned = np.flatnonzero(dead & ~self.removable)
        if pinned.size:
            channel = int(pinned[0])
            raise InvalidPlan(
                f"group '{self.names[self.group[channel]]}': the plan removes channel {channel}, "
                f"which must stay: it {self.reasons[channel]}; leave it out of the plan"
            )
        emptied = self.emptied(dead)
        if emptied is not None:
            tensor, axis = emptied
            raise InvalidPlan(
                f"tensor '{tensor}': the plan removes all {len(self.cuts[tensor][axis])} "
                f"positions of axis {axis}; keep at least one"
            )

    def emptied(self, dead: BoolArray) -> tuple[str, int] | None:
        """Return a (tensor, axis) that would lose every position, or None.

        Shapes: dead `[channels]`.
        """
        for tensor, axis, channels in self._each_cut:
            if channels.min() >= 0 and dead[channels].all() and not self.may_empty(channels):
                return tensor, axis
        return None

    def may_empty(self, channels: IntArray) -> bool:
        """Say whether all channels of an axis may go, and a branch with them. Shapes: `[n]`."""
        return bool(self._whole) and np.unique(channels).tobytes() in self._whole

    @cached_property
    def _whole(self) -> frozenset[bytes]:
        return frozenset(channels.tobytes() for channels in self.whole)

    def last(self, dead: BoolArray) -> BoolArray:
        """Return one channel of each axis that the `dead` ones empty. Shapes: `[channels]`."""
        found = np.zeros(len(self), np.bool_)
        found[[channels[0] for channels in self.whole if dead[channels].all()]] = True
        return found

    @cached_property
    def axes(self) -> tuple[IntArray, ...]:
        """The distinct sets of channels of which at least one must stay. Shapes: each `[n]`."""
        found = {}
        for channels in {id(channels): channels for _, _, channels in self._each_cut}.values():
            if channels.min() >= 0:
                owners = np.unique(channels)
                found[owners.tobytes()] = owners
        return tuple(found.values())

    def without(self, dead: BoolArray) -> ChannelGroups:
        """Return the groups of the graph that is left when the `dead` channels are gone.

        Shapes: dead `[channels]`. Surviving channels keep their order; groups keep their numbers.
        """
        number = np.where(dead, STAYS, np.cumsum(~dead) - 1)

        def renumber(channels: IntArray) -> IntArray:
            owned = channels >= 0
            left = np.where(owned, number[channels], STAYS)
            return left[~owned | (left >= 0)]

        cuts = {t: {a: renumber(c) for a, c in axes.items()} for t, axes in self.cuts.items()}
        filters = (replace(f, channels=renumber(f.channels)) for f in self.filters)
        return ChannelGroups(
            {t: axes for t, axes in cuts.items() if all(c.size for c in axes.values())},
            tuple(f for f in filters if f.channels.size),
            self.group[~dead],
            self.names,
            {int(number[c]): why for c, why in self.reasons.items()},
            {node: number[c][number[c] >= 0] for node, c in self.inexact.items()},
            self.called,
            self.also,
            self.untaken,
            tuple(left for channels in self.whole if (left := renumber(channels)).size),
        )

    def on(self, graph: Graph) -> ChannelGroups:
        """Return the same for a graph from which branches are gone: filters that it still has."""
        left = tuple(f for f in self.filters if f.output in graph.producers)
        return self if len(left) == len(self.filters) else replace(self, filters=left)

    def crossed(self, dead: BoolArray) -> list[str]:
        """Return the nodes whose result changes, beyond the lack of the `dead` channels.

        Shapes: dead `[channels]`.
        """
        return [node for node, channels in self.inexact.items() if dead[channels].any()]


GROUPS = Object(kind=ChannelGroups, how="as find_groups returns it")
"""The rule of an argument that is the channels of a graph."""


def find_groups(
    graph: Graph, *, allow_inexact: Sequence[str] = (), also: Sequence[str] = ()
) -> ChannelGroups:
    """Return the channels of a graph and what ties them.

    `allow_inexact` names operators, or the beginnings of their names, through which channels may be
    removed although the result changes: `["layernorm", "ReduceMean"]`. With `also=["dense"]` the
    units of dense layers are filters as well; with `branches` the last filters of a branch may go.
    Raises: InvalidModel when the graph has no convolution; UnknownName for an operator that there
    is not, or for another `also`; InvalidType for a graph or a list that is none.
    """
    GRAPH("graph", graph)
    asked: tuple[str, ...] = ALSO("also", also)
    dense = DENSE in asked
    walk = Propagation(graph, ALLOW_INEXACT("allow_inexact", allow_inexact), dense)
    sources: list[Filters] = []
    convolutions: list[tuple[Node, str]] = []
    for node in graph.nodes:
        walk.step(node)
        axis = graph.filter_axis(node, dense=dense)
        if node.op is None or axis is None:
            continue
        weight = node.inputs[node.op.weights[0]]
        convolutions.append((node, weight))
        labels = walk.cuts.get(node.outputs[0], {}).get(axis)
        if labels is not None:
            units = graph.is_dense(node)
            sources.append(Filters(node.name, weight, node.outputs[0], labels, axis, units))
    if not convolutions:
        raise InvalidModel(why_no_filters(graph, dense=dense))
    for name in graph.outputs:
        for labels in walk.cuts.get(name, {}).values():
            walk.labels.pin(labels, Reason(f"is the graph output '{name}'"))
        walk.pin_counted(name, Reason(f"their number goes into the graph output '{name}'"))
    balance(walk.labels, walk.balances)
    found = replace(_number(walk, sources), called=call(convolutions), also=asked)
    if BRANCHES not in asked:
        return found
    axes = [channels for channels in found.axes if found.removable[channels].all()]
    return replace(found, whole=tuple(find_whole(graph, found.cuts, axes, len(found))))


def _number(walk: Propagation, sources: Sequence[Filters]) -> ChannelGroups:
    """Number the classes that hold filters by first appearance, and express the cuts in them.

    The sources hold labels in place of channels.
    """
    classes = walk.labels.solve()
    held = [classes.of[found.channels] for found in sources]
    owners = np.concatenate(held or [np.empty(0, np.int64)])
    order, first = np.unique(owners, return_index=True)
    order = order[np.argsort(first)]
    number = np.full(int(classes.of.max()) + 1, STAYS)
    number[order] = np.arange(order.size)
    of = number[classes.of]
    of[0] = STAYS
    filters = tuple(replace(found, channels=of[found.channels]) for found in sources)
    known: dict[int, IntArray] = {}
    owned = {t: dict(_owned(axes, of, known)) for t, axes in walk.cuts.items()}
    owned = {t: axes for t, axes in owned.items() if axes}
    reasons = {int(number[c]): why for c, why in classes.reason.items() if number[c] >= 0}
    group, names = _connect(owned, filters, order.size)
    crossed = {node: np.unique(of[labels]) for node, labels in walk.inexact.items()}
    crossed = {node: channels[channels >= 0] for node, channels in crossed.items()}
    groups = ChannelGroups(owned, filters, group, names, dict(sorted(reasons.items())), crossed)
    return _keep_sole(groups)


def _owned(
    axes: Mapping[int, IntArray], of: IntArray, known: dict[int, IntArray]
) -> Iterator[tuple[int, IntArray]]:
    """The channels of each axis that has any; what carries the same labels shares one array."""
    for axis, labels in axes.items():
        channels = known.get(id(labels))
        if channels is None:
            channels = known[id(labels)] = of[labels]
        if (channels >= 0).any():
            yield axis, channels


def _connect(
    cuts: Cuts, filters: Sequence[Filters], count: int
) -> tuple[IntArray, tuple[str, ...]]:
    """Group the channels that share a convolution; number groups by first appearance."""
    ties = Labels(count + 1)
    for found in filters:
        ties.unite(found.channels[:-1] + 1, found.channels[1:] + 1, Reason(""))
    of = ties.solve().of[1:]
    names: dict[int, str] = {}
    for found in filters:
        for one in np.unique(of[found.channels]).tolist():
            names.setdefault(one, found.node)
    number = np.full(int(of.max(initial=0)) + 1, STAYS)
    number[list(names)] = np.arange(len(names))
    return number[of], tuple(names.values())


def _keep_sole(groups: ChannelGroups) -> ChannelGroups:
    """Pin the channels that alone fill an axis: without them nothing would be left of it."""
    reasons = dict(groups.reasons)
    for tensor, axis, channels in groups._each_cut:
        if channels.min() >= 0 and (channels == channels[0]).all():
            reason = Reason(f"alone fills axis {axis} of '{tensor}'")
            reasons.setdefault(int(channels[0]), reason)
    if len(reasons) == len(groups.reasons):
        return groups
    return replace(groups, reasons=dict(sorted(reasons.items())))
