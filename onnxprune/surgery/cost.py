"""Parameters and multiply-adds of a model, and what each channel saves. No operator is named.

A node that weighs repeats its weight once per output position, so its multiply-adds are
`positions * elements of the weight`, before and after pruning alike: positions do not change. What
runs several times counts as often; of the branches of an If, the one that costs more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
from onnx import TensorProto

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import DENSE, GROUPS, ChannelGroups
from onnxprune.graph import GRAPH, Graph, Shape, inner_nodes
from onnxprune.ops import Axes, Held, Node, parse

MOST_NAMED = 3
"""Nodes that a caveat names."""

NO_PARAMETERS = {TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING}
"""Element types of shapes, indices and names; smaller integers are quantised weights."""


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    `unknown` are the nodes whose multiply-adds are not known: they are in `macs` at the sizes
    supposed of them, or not at all.
    Units: params, elements of constants but shapes, indices (64-bit integers) and truth values;
    macs, multiply-adds for one image; filters, output channels of all convolutions; units, those of
    all dense layers, where they may go (None where they may not).
    """

    params: int
    macs: int
    filters: int
    unknown: tuple[str, ...] = ()
    units: int | None = None

    def figures(self) -> dict[str, int | None]:
        """Return what is shown; `macs` is None where it is not known."""
        macs = None if self.unknown else self.macs
        found = {"params": self.params, "macs": macs, "filters": self.filters}
        return found if self.units is None else {**found, "units": self.units}


@dataclass(frozen=True)
class Figure:
    """A figure of a net: the elements of its tensors, each times what one element costs, summed.

    `times[t]` is what each element of tensor t costs, `shapes[t]` the shape of t in the whole net.
    Of the figures of `either` only the largest counts, as one branch of an If runs.
    """

    groups: ChannelGroups
    shapes: Mapping[str, Shape]
    times: Mapping[str, float]
    constant: float = 0.0
    either: tuple[tuple[Figure, ...], ...] = ()

    def of(self, dead: BoolArray) -> float:
        """Return the figure when the `dead` channels are gone. Shapes: dead `[channels]`."""
        left = (self.elements(name, dead) * factor for name, factor in self.times.items())
        most = (max(figure.of(dead) for figure in branches) for branches in self.either)
        return self.constant + sum(left) + sum(most)

    def elements(self, name: str, dead: BoolArray) -> int:
        """Return how many elements of a tensor are left. Shapes: dead `[channels]`."""
        left = self.groups.sizes(name, dead)
        return math.prod(left.get(axis, size) for axis, size in enumerate(self.shapes[name]))

    def saved(self, dead: BoolArray) -> FloatArray:
        """Return what each channel's removal alone saves of the net without the `dead` ones.

        It is 0 for those. Shapes: dead `[channels]` -> `[channels]`.
        """
        saved = np.zeros(len(self.groups))
        for name, factor in self.times.items():
            elements = float(self.elements(name, dead))
            for channels in self.groups.cuts.get(name, {}).values():
                alive = channels[(channels < 0) | ~dead[channels]]
                owned = alive[alive >= 0]
                np.add.at(saved, owned, factor * elements / max(alive.size, 1))
        for branches in self.either:
            costs = np.array([figure.of(dead) for figure in branches])
            left = costs[:, None] - [figure.saved(dead) for figure in branches]
            saved += costs.max() - left.max(0)
        return saved


@dataclass(frozen=True)
class Costs:
    """The costs of a graph as functions of which channels are gone.

    `macs` are the multiply-adds for one image; `constants` are the tensors that count as
    parameters; an alias does as soon as it is cut otherwise than what it stands for. `unknown` are
    the nodes whose multiply-adds are not known, `loops` those that run them no one knows how often.
    `units` are those of all dense layers, None where they stay.
    """

    groups: ChannelGroups
    shapes: Mapping[str, Shape]
    constants: frozenset[str]
    aliases: Mapping[str, str]
    macs: Figure
    filters: int
    unknown: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    units: int | None = None

    @property
    def caveat(self) -> str:
        """What to say of multiply-adds that are not known, or an empty text."""
        if self.loops:
            held = " and ".join(f"'{name}'" for name in self.loops)
            return (
                f"how often Loop {held} runs its body is not known: it counts once in the "
                f"multiply-adds"
            )
        if not self.unknown:
            return ""
        named = ", ".join(f"'{name}'" for name in self.unknown[:MOST_NAMED])
        more = len(self.unknown) - MOST_NAMED
        return (
            f"the multiply-adds of {named}{f' and {more} more' if more > 0 else ''} are not known: "
            f"the model says neither what its own operators compute nor the shapes behind them "
            f"(value_info)"
        )

    def of(self, dead: BoolArray | None = None) -> Cost:
        """Return the cost when the `dead` channels are gone. Shapes: dead `[channels]`."""
        if dead is None:
            dead = np.zeros(len(self.groups), np.bool_)
        alike, elements = self.groups.cut_alike, self.params.elements
        own = (name for name, base in self.aliases.items() if not alike(name, base, dead))
        units = int(self.groups.unit_count[dead].sum())
        return Cost(
            params=int(self.params.of(dead)) + sum(elements(name, dead) for name in own),
            macs=int(self.macs.of(dead)),
            filters=self.filters - int(self.groups.filter_count[dead].sum()) + units,
            unknown=self.unknown,
            units=None if self.units is None else self.units - units,
        )

    @cached_property
    def params(self) -> Figure:
        """The parameters, but for aliases."""
        return self.figure({name: 1 for name in sorted(self.constants)})

    @cached_property
    def params_saved(self) -> FloatArray:
        """Parameters that each channel's removal alone saves. Shapes: `[channels]`."""
        return self.params.saved(np.zeros(len(self.groups), np.bool_))

    @cached_property
    def macs_saved(self) -> FloatArray:
        """Multiply-adds that each channel's removal alone saves. Shapes: `[channels]`."""
        return self.macs.saved(np.zeros(len(self.groups), np.bool_))

    def figure(self, times: Mapping[str, float]) -> Figure:
        """Return the figure that counts each element of these tensors so many times."""
        return Figure(self.groups, self.shapes, times)


def count(graph: Graph, *, also: Sequence[str] = (), like: ChannelGroups | None = None) -> Cost:
    """Return what a model costs as it is; with `dense` in `also` its units are counted.

    With `like` what counts is what does so of the channels of another model with its names.
    """
    whole = ChannelGroups({}, (), np.empty(0, np.int64), (), {}, also=tuple(also))
    if like is not None:
        whole = replace(whole, also=like.also, untaken=like.untaken)
    return find_costs(graph, whole).of()


def find_costs(graph: Graph, groups: ChannelGroups) -> Costs:
    """Return the cost functions of a graph.

    Raises: InvalidType for a graph or channels that are none.
    """
    GRAPH("graph", graph)
    GROUPS("groups", groups)
    shapes: dict[str, Shape] = {}
    constants = []
    ignored = _behind_computed(graph) | graph.aliases.keys()
    for name, tensor in graph.constant_tensors.items():
        if tensor.data_type not in NO_PARAMETERS:
            if name not in ignored:
                constants.append(name)
            shapes[name] = tuple(tensor.dims)
    widths = {False: 0, True: 0}
    for node in graph.nodes:
        axis, shape = graph.filter_axis(node, dense=True), graph.shape(node.outputs[0])
        if axis is not None and shape is not None:
            widths[graph.is_dense(node)] += shape[axis]
        shapes |= {name: graph.shape(name) or () for name in repeats(graph, node)}
    aliases = {a: name for a, name in graph.aliases.items() if a in shapes}
    unknown = tuple(node.name for node in graph.nodes if not knows_macs(graph, node))
    loops = {held: None for node in graph.nodes for held in _uncounted(graph, node)}
    return Costs(
        groups,
        shapes,
        frozenset(constants),
        aliases,
        figure_of(graph, groups, partial(repeats, graph)),
        widths[False],
        unknown,
        tuple(loops),
        widths[True] if DENSE in groups.also else None,
    )


def figure_of(
    graph: Graph, groups: ChannelGroups, times_of: Callable[[Node], Mapping[str, float]]
) -> Figure:
    """Return what `times_of` each node says of elements of tensors, summed over those that run."""
    return _summed(graph, groups, times_of, graph.nodes, 0)


def _summed(
    graph: Graph,
    groups: ChannelGroups,
    times_of: Callable[[Node], Mapping[str, float]],
    nodes: Sequence[Node],
    depth: int,
) -> Figure:
    """The sum over nodes that the same `depth` branches hold."""
    times: dict[str, float] = {}
    branches: dict[str, dict[int, list[Node]]] = {}
    for node in nodes:
        ifs = [held for held in node.within if held.is_branch]
        if len(ifs) > depth:
            inside = branches.setdefault(ifs[depth].by, {})
            inside.setdefault(ifs[depth].number, []).append(node)
            continue
        for name, count in times_of(node).items():
            times[name] = times.get(name, 0) + count
    either = (
        tuple(
            _summed(graph, groups, times_of, inner, depth + 1)
            for number, inner in one.items()
            if Held(by, number, is_branch=True) not in groups.untaken or len(one) == 1
        )
        for by, one in branches.items()
    )
    shapes = {name: graph.shape(name) or () for name in times}
    return Figure(groups, shapes, times, 0.0, tuple(either))


def _uncounted(graph: Graph, node: Node) -> list[str]:
    """The loops around a node that weighs, of which no one knows how often they run."""
    loops = [h.by for h in node.within if not h.is_branch and h.by not in graph.facts.trips]
    return loops if loops and repeats(graph, node) else []


def node_macs(graph: Graph, node: Node) -> int:
    """Return the multiply-adds of one node for one image; 0 for a node that does not weigh."""
    weights = repeats(graph, node)
    return sum(math.prod(graph.shape(name) or ()) * times for name, times in weights.items())


def knows_macs(graph: Graph, node: Node) -> bool:
    """Say whether the multiply-adds of a node are known: those of one that does not weigh are 0."""
    op = node.op
    if op is None:
        return not _may_weigh(graph, node)
    weights = [node.inputs[k] for k in op.weights if k < len(node.inputs)]
    shapes = {name: graph.shape(name) for name in weights}
    if any(shape is None or len(shape) > 1 for shape in shapes.values()):
        place = node.inputs[0] if op.scatters else node.outputs[0]
        sure = place not in graph.facts.unsure or not any(graph.dynamic(place)[1:])
        return sure and bool(repeats(graph, node)) and not _uncounted(graph, node)
    return True


def _may_weigh(graph: Graph, node: Node) -> bool:
    """Say whether a node that is not described reads a matrix of constants, or holds layers."""
    read = [graph.shape(name) or () for name in node.inputs if name in graph.constant_tensors]
    inside = (inner.op for inner in inner_nodes(node, graph.opsets))
    return any(len(shape) > 1 for shape in read) or any(op and op.weights for op in inside)


def _behind_computed(graph: Graph) -> set[str]:
    """Constants that only go into weights which the model computes, and which count instead."""
    inside = graph.computed.inside
    hidden = {name for node in graph.nodes if node.name in inside for name in node.inputs}
    return hidden - {n for node in graph.nodes if node.name not in inside for n in node.inputs}


def repeats(graph: Graph, node: Node) -> dict[str, int]:
    """Return how often each weight of a node is applied for one image.

    In a loop it is as often for each run of the body, for one run where no one knows how many.
    """
    op, how = node.op, graph.how(node)
    if op is None or not isinstance(how, Axes) or not op.weights:
        return {}
    place = node.inputs[0] if op.scatters else node.outputs[0]
    size = graph.shape(place)
    if size is None:
        return {}
    inputs, outputs = parse(how.pattern)
    placed = inputs[0] if op.scatters else outputs[0]
    there = {axis.letter for axis in placed.axes if axis.names and axis.letter.islower()}
    found = {}
    for index in op.weights:
        shape = graph.shape(node.inputs[index])
        if shape is None or len(shape) < 2 or not inputs[index].takes(shape):
            continue  # where sizes are only supposed, nobody knows whether it is a weight
        pairs = inputs[index].match(shape, str(node))
        shared = [n for axis, n in pairs if axis.names and axis.letter in there]
        found[node.inputs[index]] = runs(graph, node) * math.prod(size) // max(math.prod(shared), 1)
    return found


def runs(graph: Graph, node: Node) -> int:
    """Return how often a node runs for one image; a loop of which no one knows counts once."""
    return math.prod(graph.facts.trips.get(held.by, 1) for held in node.within)
