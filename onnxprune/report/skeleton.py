"""A network reduced to what a drawing shows: weights, joins, pools, and nodes that pin channels.

Activations, normalisations, reshapes and shape arithmetic are contracted: an edge passes them. A
product with a gate made of the same tensor (swish) counts as an activation. No operator is named:
what a node is follows from how channels cross it and from its shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from onnxprune.channels import DENSE, ChannelGroups
from onnxprune.graph import Graph, Shape
from onnxprune.ops import Moves, Node, Op, Shapes

Kind = Literal["input", "filters", "dense", "join", "other", "output"]

SCALED = 1.5
"""A node that changes the number of pixels by less pads or crops, and is not drawn."""

MOST_ADDED = 64
"""Tensors that a join has more than an earlier one whose place it takes."""


@dataclass(frozen=True)
class Vertex:
    """What is drawn as one box.

    `sources` are the numbers of the vertices that it reads, `tensor` is its output. `node` is None
    for inputs and outputs of the network.
    """

    kind: Kind
    tensor: str
    node: Node | None = None
    sources: tuple[int, ...] = ()


def find_vertices(graph: Graph, groups: ChannelGroups) -> list[Vertex]:
    """Return the vertices of a network in topological order."""
    walk = _Walk(graph, pinning(groups), DENSE in groups.also)
    for name in graph.inputs:
        walk.add(Vertex("input", name), [name])
    for node in graph.nodes:
        walk.step(node)
    for name in graph.outputs:
        walk.add(Vertex("output", name, sources=walk.read([name])), [])
    return _reaching_outputs(walk.vertices)


def pinning(groups: ChannelGroups) -> frozenset[str]:
    """Return the names of the nodes that keep channels."""
    return frozenset(why.node for why in groups.reasons.values() if why.node is not None)


@dataclass
class _Walk:
    """One pass over the nodes.

    `behind[tensor]` is the vertex whose output the tensor is, contracted nodes aside;
    `joined[sources]` is the join of several vertices.
    """

    graph: Graph
    pinning: frozenset[str]
    dense: bool = False
    vertices: list[Vertex] = field(default_factory=list)
    behind: dict[str, int] = field(default_factory=dict)
    joined: dict[tuple[int, ...], int] = field(default_factory=dict)

    def add(self, vertex: Vertex, outputs: Sequence[str]) -> None:
        self.behind.update(dict.fromkeys(outputs, len(self.vertices)))
        self.vertices.append(vertex)

    def read(self, names: Sequence[str]) -> tuple[int, ...]:
        """Return the distinct vertices behind tensors; constants have none."""
        return tuple(dict.fromkeys(self.behind[name] for name in names if name in self.behind))

    def step(self, node: Node) -> None:
        op = node.op
        if op is not None and isinstance(op.how, Shapes):
            return
        data = [n for k, n in enumerate(node.inputs) if op is None or not op.is_parameter(k)]
        sources = self.read([*data, *node.captures])
        if not sources:
            return
        moves = isinstance(self.graph.how(node), Moves)
        if self.graph.filter_axis(node, dense=self.dense) is not None:
            kind: Kind | None = "filters"
        else:
            kind = self._kind(node, op, sources, moves=moves)
        if kind is None:
            self.behind.update(dict.fromkeys(node.outputs, sources[0]))
            return
        if kind == "join" and moves:
            sources = self._shorten(sources)
        self.add(Vertex(kind, node.outputs[0], node, sources), node.outputs)

    def _kind(
        self, node: Node, op: Op | None, sources: Sequence[int], *, moves: bool
    ) -> Kind | None:
        """Return what a node is drawn as, or None for one that is contracted."""
        if op is None:
            return "other"
        shapes = [self.graph.shape(name) for name in (node.inputs[0], node.outputs[0])]
        if any(len(self.graph.shape(node.inputs[k]) or ()) > 1 for k in op.weights):
            return "dense"
        if len(sources) > 1:
            return "join"
        if node.name in self.pinning or "kernel_shape" in op.attributes:
            return "other"
        if moves and any(op.is_parameter(k) for k in range(len(op.inputs))):
            return None
        return "other" if _rescales(*shapes) and not (moves and _permutes(*shapes)) else None

    def _shorten(self, sources: tuple[int, ...]) -> tuple[int, ...]:
        """Replace the sources that an earlier join has already by that join, as in a DenseNet."""
        number = len(self.vertices)
        least = max(2, len(sources) - MOST_ADDED)
        for count in range(len(sources) - 1, least - 1, -1):
            earlier = self.joined.get(sources[:count])
            if earlier is not None:
                self.joined.setdefault(sources, number)
                return (earlier, *sources[count:])
        self.joined.setdefault(sources, number)
        return sources


def _rescales(before: Shape | None, after: Shape | None) -> bool:
    """Say whether a node changes the number of pixels by more than padding."""
    if before is None or after is None or len(before) < 3:
        return False
    if sum(n > 1 for n in after[1:]) <= 1 < sum(n > 1 for n in before[1:]):
        return bool(np.prod(after) < np.prod(before))
    pixels = [max(int(np.prod(shape[2:])), 1) for shape in (before, after)]
    return len(after) > 2 and max(pixels) >= SCALED * min(pixels)


def _permutes(before: Shape | None, after: Shape | None) -> bool:
    return before is not None and after is not None and sorted(before) == sorted(after)


def _reaching_outputs(vertices: Sequence[Vertex]) -> list[Vertex]:
    """Drop the vertices that no output depends on, and renumber the others."""
    wanted = {k for k, vertex in enumerate(vertices) if vertex.kind == "output"}
    for number in reversed(range(len(vertices))):
        if number in wanted:
            wanted.update(vertices[number].sources)
    place = {number: k for k, number in enumerate(sorted(wanted))}
    return list(_renumbered(vertices, place))


def _renumbered(vertices: Sequence[Vertex], place: Mapping[int, int]) -> Iterator[Vertex]:
    for number in place:
        vertex = vertices[number]
        yield replace(vertex, sources=tuple(place[source] for source in vertex.sources))
