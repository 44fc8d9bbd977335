"""Channel shuffles: nodes that split an axis, reorder it and join it again.

Between the Reshape that splits the channel axis and the one that joins it, no single axis holds the
channels, so node by node they would be tied in blocks. As a whole the nodes only take the positions
of one axis in another order: channels cross a shuffle one by one, and surgery writes the order of
those that are left in place of its nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import Facts, Graph, Shape
from onnxprune.ops import Moves, Node, Op

MOST_NODES = 8
"""Nodes of a shuffle; exporters write three or four."""


@dataclass(frozen=True)
class Shuffle:
    """Position k of `axis` of the last output is position `taken[k]` of that axis of `source`.

    Shapes: taken `[n]`, the size of the axis.
    """

    source: str
    nodes: tuple[Node, ...]
    axis: int
    taken: IntArray

    @property
    def last(self) -> Node:
        """The node that makes its output."""
        return self.nodes[-1]


@dataclass(frozen=True)
class Shuffles:
    """All shuffles of a graph; they do not overlap."""

    found: tuple[Shuffle, ...]

    @cached_property
    def inner(self) -> frozenset[str]:
        """Names of the nodes inside a shuffle, all but its last."""
        return frozenset(node.name for shuffle in self.found for node in shuffle.nodes[:-1])

    @cached_property
    def ending(self) -> dict[str, Shuffle]:
        """The shuffles by the names of their last nodes."""
        return {shuffle.last.name: shuffle for shuffle in self.found}


def find_shuffles(graph: Graph) -> Shuffles:
    """Return the shuffles of a graph, each with as few nodes as possible."""
    found: list[Shuffle] = []
    spent: set[str] = set()
    for node in graph.nodes:
        if node.name not in spent and _splits(graph, node):
            shuffle = _shortest(graph, node)
            if shuffle is not None:
                found.append(shuffle)
                spent.update(node.name for node in shuffle.nodes)
    return Shuffles(tuple(found))


def _splits(graph: Graph, node: Node) -> bool:
    """Whether a node may begin a shuffle: it moves elements, and its output has more axes."""
    if len(node.inputs) == 0 or not _moves(graph, node):
        return False
    before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    return before is not None and after is not None and len(after) > len(before)


def _moves(graph: Graph, node: Node) -> bool:
    op = node.op
    return (
        op is not None
        and len(node.outputs) == 1
        and not node.nested
        and all(op.is_parameter(k) for k in range(1, len(node.inputs)))
        and isinstance(graph.how(node), Moves)
    )


def _shortest(graph: Graph, first: Node) -> Shuffle | None:
    nodes = [first]
    while len(nodes) < MOST_NODES:
        tensor = nodes[-1].outputs[0]
        readers = graph.consumers.get(tensor, [])
        if len(readers) != 1 or tensor in graph.outputs or not _moves(graph, readers[0]):
            return None
        nodes.append(readers[0])
        if nodes[-1].inputs[0] != tensor:
            return None
        shuffle = _as_shuffle(graph, nodes)
        if shuffle is not None:
            return shuffle
    return None


def _as_shuffle(graph: Graph, nodes: Sequence[Node]) -> Shuffle | None:
    """The shuffle that the nodes are, if they are one at every size of the open axes."""
    here, there = (_order(facts, nodes) for facts in (graph.facts, graph.elsewhere))
    if here is None or there is None or here[0] != there[0]:
        return None
    if not np.array_equal(here[1], there[1]):
        return None
    return Shuffle(nodes[0].inputs[0], tuple(nodes), *here)


def _order(facts: Facts, nodes: Sequence[Node]) -> tuple[int, IntArray] | None:
    """The one axis that the nodes reorder, and how; None where they do anything else."""
    shape, result = facts.shape(nodes[0].inputs[0]), facts.shape(nodes[-1].outputs[0])
    if shape is None or result is None or len(shape) != len(result):
        return None
    found = None
    for axis, size in enumerate(shape):
        taken = _follow(facts, nodes, shape, axis)
        if taken is None:
            return None
        if not np.array_equal(taken, np.arange(size)):
            if found is not None:
                return None
            found = (axis, taken)
    return found


def _follow(facts: Facts, nodes: Iterable[Node], shape: Shape, axis: int) -> IntArray | None:
    """Which position of an axis each position of that axis comes from; None if not from one."""
    column = [-1 if k == axis else 1 for k in range(len(shape))]
    moved: Any = np.broadcast_to(np.arange(shape[axis]).reshape(column), shape)
    for node in nodes:
        assert node.op is not None
        parameters = _parameters(facts, node.op, node)
        if parameters is None:
            return None
        try:
            (moved,) = node.op(node, [moved, *parameters])
        except (OnnxPruneError, ValueError):
            return None
    line = moved[tuple(slice(None) if k == axis else slice(0, 1) for k in range(moved.ndim))]
    return line.ravel() if (moved == line).all() else None


def _parameters(facts: Facts, op: Op, node: Node) -> list[npt.NDArray[Any] | Any] | None:
    found: list[Any] = []
    for k, name in enumerate(node.inputs[1:], start=1):
        value = facts.values.get(name)
        if name and value is None:
            return None
        found.append(op.parameter(k, value))
    return found
