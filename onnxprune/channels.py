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
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxprune.errors import InvalidModel
from onnxprune.graph import Graph
from onnxprune.labels import IntArray, Labels
from onnxprune.ops import find_op
from onnxprune.propagate import Propagation

BoolArray = npt.NDArray[np.bool_]
Cuts = Mapping[str, Mapping[int, IntArray]]

STAYS = -1
"""In a cut: a position that no channel owns."""


@dataclass(frozen=True)
class Filters:
    """The filters of one convolution: `channels[k]` is the channel that filter k belongs to."""

    node: str
    weight: str
    output: str
    channels: IntArray


@dataclass(frozen=True)
class ChannelGroups:
    """All channels of a graph, numbered in the order in which their filters run.

    `cuts[tensor][axis]` gives the channel of each position, or STAYS. `group[channel]` is the group
    of a channel, `names[group]` the name of its first convolution.
    """

    cuts: Cuts
    filters: tuple[Filters, ...]
    group: IntArray
    names: tuple[str, ...]
    reasons: Mapping[int, str]

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
        found = [f.channels for f in self.filters] or [np.empty(0, np.int64)]
        return np.bincount(np.concatenate(found), minlength=len(self))

    @property
    def removable_filters(self) -> int:
        """How many filters may go in all."""
        return int(self.filter_count[self.removable].sum())

    @cached_property
    def pinned(self) -> dict[int, str]:
        """The reason of every group in which nothing may go."""
        found: dict[int, str] = {}
        for channel, reason in self.reasons.items():
            found.setdefault(int(self.group[channel]), reason)
        free = set(self.group[self.removable].tolist())
        return {group: reason for group, reason in found.items() if group not in free}

    def members(self, group: int) -> list[tuple[str, int]]:
        """Return the (tensor, axis) cuts of a group."""
        return [
            (tensor, axis)
            for tensor, axis, channels in self._each_cut
            if (self.group[channels[channels >= 0]] == group).any()
        ]

    def filters_of(self, group: int) -> list[Filters]:
        """Return the convolutions whose filters belong to a group."""
        return [f for f in self.filters if (self.group[f.channels] == group).any()]

    @cached_property
    def _each_cut(self) -> list[tuple[str, int, IntArray]]:
        return [(t, axis, c) for t, axes in self.cuts.items() for axis, c in axes.items()]

    def emptied(self, dead: BoolArray) -> tuple[str, int] | None:
        """Return a (tensor, axis) that would lose every position, or None.

        Shapes: dead `[channels]`.
        """
        for tensor, axis, channels in self._each_cut:
            if channels.min() >= 0 and dead[channels].all():
                return tensor, axis
        return None

    @cached_property
    def axes(self) -> tuple[IntArray, ...]:
        """The distinct sets of channels of which at least one must stay. Shapes: each `[n]`."""
        found = {}
        for _, _, channels in self._each_cut:
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

        return ChannelGroups(
            {t: {a: renumber(c) for a, c in axes.items()} for t, axes in self.cuts.items()},
            tuple(Filters(f.node, f.weight, f.output, renumber(f.channels)) for f in self.filters),
            self.group[~dead],
            self.names,
            {int(number[c]): why for c, why in self.reasons.items()},
        )


def find_groups(graph: Graph) -> ChannelGroups:
    """Return the channels of a graph and what ties them.

    Raises: InvalidModel when the graph has no convolution.
    """
    walk = Propagation(graph)
    sources: list[tuple[str, str, str, IntArray]] = []
    for node in graph.nodes:
        walk.step(node)
        op = find_op(node)
        if op is not None and op.filters and 1 in walk.cuts.get(node.outputs[0], {}):
            cut = walk.cuts[node.outputs[0]][1]
            sources.append((node.name, node.inputs[1], node.outputs[0], cut))
    if not any(op is not None and op.filters for op in map(find_op, graph.nodes)):
        raise InvalidModel(
            f"graph '{graph.proto.name}': has no convolutions, so there are no filters to prune; "
            f"onnxprune is made for CNNs"
        )
    for name in graph.outputs:
        for labels in walk.cuts.get(name, {}).values():
            walk.labels.pin(labels, f"is the graph output '{name}'")
    return _number(walk.labels, walk.cuts, sources)


def _number(
    labels: Labels,
    cuts: Mapping[str, Mapping[int, IntArray]],
    sources: Sequence[tuple[str, str, str, IntArray]],
) -> ChannelGroups:
    """Number the classes that hold filters by first appearance, and express the cuts in them."""
    classes = labels.solve()
    owners = np.concatenate([classes.of[cut] for *_, cut in sources] or [np.empty(0, np.int64)])
    order, first = np.unique(owners, return_index=True)
    order = order[np.argsort(first)]
    number = np.full(int(classes.of.max()) + 1, STAYS)
    number[order] = np.arange(order.size)
    of = number[classes.of]
    of[0] = STAYS
    filters = tuple(Filters(name, weight, output, of[cut]) for name, weight, output, cut in sources)
    owned = {t: dict(_owned(axes, of)) for t, axes in cuts.items()}
    owned = {t: axes for t, axes in owned.items() if axes}
    reasons = {int(number[c]): why for c, why in classes.reason.items() if number[c] >= 0}
    group, names = _connect(owned, filters, order.size)
    groups = ChannelGroups(owned, filters, group, names, dict(sorted(reasons.items())))
    return _keep_sole(groups)


def _owned(axes: Mapping[int, IntArray], of: IntArray) -> Iterator[tuple[int, IntArray]]:
    for axis, labels in axes.items():
        channels = of[labels]
        if (channels >= 0).any():
            yield axis, channels


def _connect(
    cuts: Cuts, filters: Sequence[Filters], count: int
) -> tuple[IntArray, tuple[str, ...]]:
    """Group the channels that share a convolution; number groups by first appearance."""
    ties = Labels(count + 1)
    for found in filters:
        ties.unite(found.channels[:-1] + 1, found.channels[1:] + 1, "")
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
            reasons.setdefault(int(channels[0]), f"alone fills axis {axis} of '{tensor}'")
    if len(reasons) == len(groups.reasons):
        return groups
    ordered = dict(sorted(reasons.items()))
    return ChannelGroups(groups.cuts, groups.filters, groups.group, groups.names, ordered)
