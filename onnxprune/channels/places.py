"""Places that nodes write to, worked out beside sizes that the model leaves open.

`y[:, :6] = z` is written as indices that name every image and the channels 0 to 5. At an open batch
surgery cannot state them anew. But somewhere the model works out the list of channels alone, and
that can be stated anew: what follows from it comes out right. Whether it does is tried here, with
one channel less.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.channels.placement import rows_of, varying_axes
from onnxprune.graph import Facts, Graph
from onnxprune.ops import Node, Writes


@dataclass(frozen=True)
class Source:
    """The tensor that lists the positions on an axis that a node writes to.

    `chain` are the nodes that make the node's indices of it; the positions lie along `row` of them.
    Shapes: listed `[n]`.
    """

    name: str
    chain: tuple[Node, ...]
    listed: IntArray
    row: int


def can_restate(graph: Graph, node: Node, how: Writes, axis: int, along: Sequence[int]) -> bool:
    """Say whether positions may go on an axis of the first input of a node that writes.

    What is written lies `along` these of its own axes. The positions may go where the indices name
    neither the axis nor those, where they are the same at all sizes, and where a list makes them.
    """
    named = axis in how.named
    if not named and all(k >= how.rows for k in along):
        return True
    if not graph.open_elements(node.inputs[1]).any():
        return True
    source = find_source(graph, node, axis) if named else None
    return source is not None and [source.row] == list(along)


def find_source(graph: Graph, node: Node, axis: int) -> Source | None:
    """Return where the positions on an axis that a ScatterND writes to are listed, if they are."""
    indices = node.inputs[1]
    value = graph.facts.values[indices]
    if value.ndim < 2 or axis >= value.shape[-1]:
        return None
    column = value[..., axis]
    along = varying_axes(column)
    if len(along) != 1:
        return None
    listed, size = rows_of(column, along[0])[:, 0], (graph.shape(node.inputs[0]) or ())[axis]
    if listed.min() < -size or listed.max() >= size:
        return None
    for name, chain in _behind(graph, indices):
        known = graph.facts.values[name]
        if np.array_equal(known, listed) and not graph.open_elements(name).any():
            found = Source(name, _after(name, chain), listed, along[0])
            if all(
                _follows(facts, found, indices, axis) for facts in (graph.facts, graph.elsewhere)
            ):
                return found
    return None


def _behind(graph: Graph, name: str) -> Iterator[tuple[str, tuple[Node, ...]]]:
    """The known tensors that a tensor is worked out from, each with the nodes in between."""
    needed, makers = {name}, list[Node]()
    for node in reversed(graph.nodes):
        if needed.isdisjoint(node.outputs):
            continue
        if node.nested or node.border:
            return
        makers.insert(0, node)
        for read in node.inputs:
            if read and read in graph.facts.values:
                needed.add(read)
                yield read, tuple(makers)


def _after(name: str, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Those of some nodes, in order, that depend on a tensor."""
    changed, found = {name}, list[Node]()
    for node in nodes:
        if not changed.isdisjoint(node.inputs):
            changed.update(node.outputs)
            found.append(node)
    return tuple(found)


def _follows(facts: Facts, source: Source, indices: str, axis: int) -> bool:
    """Say whether the indices follow the list when its first position is left out."""
    if indices not in facts.values:
        return False
    whole, listed = facts.values[indices], source.listed
    left = listed[1:] - (listed[1:] > listed[0])
    expected = np.delete(whole, 0, source.row)
    shape = [-1 if k == source.row else 1 for k in range(whole.ndim - 1)]
    expected[..., axis] = left.reshape(shape)
    env = {source.name: left.astype(facts.values[source.name].dtype)}
    for node in source.chain:
        feeds = {n: env.get(n, facts.values.get(n)) for n in node.inputs if n}
        if any(value is None for value in feeds.values()):
            return False
        try:
            found = facts.run(node, feeds)  # type: ignore[arg-type]
        except ValueError:
            return False
        env |= dict(zip(filter(None, node.outputs), found, strict=True))
    return indices in env and np.array_equal(env[indices], expected)
