"""Whether an axis counts places that layers look at alike, or the features that one makes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxprune.errors import OnnxPruneError
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Moves, Node, parse

MOST = 2**22
"""Elements at most of a tensor that is moved to see where its axes go."""


def counts_places(graph: Graph, tensor: str) -> bool:
    """Say whether the only long axis of a tensor counts places, as moments or pixels.

    Along such an axis every layer before it slides or repeats, and none writes filters or units.
    False as well where nobody can tell.
    """
    long = [k for k, size in enumerate(graph.shape(tensor) or ()) if size > 1]
    if len(long) != 1:
        return False
    seen = set()
    waiting = [(tensor, long[0], False)]
    while waiting:
        name, axis, layered = found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        node = graph.producers.get(name)
        if node is None and layered and name in graph.inputs:
            continue
        if node is None or name != node.outputs[0]:
            return False
        before = list(_before(graph, node, axis))
        if not before:  # written by filters or units, or nobody can tell
            return False
        layered = layered or graph.filter_axis(node, dense=True) is not None
        waiting += [(one, k, layered) for one, k in before]
    return True


def _before(graph: Graph, node: Node, axis: int) -> Iterator[tuple[str, int]]:
    """The axes of a node's inputs that an axis of its output comes from, of what is data."""
    how, made = graph.how(node), graph.shape(node.outputs[0])
    shapes = {
        name: graph.shape(name) for name in node.inputs if name and name not in graph.constant_names
    }
    for name, shape in shapes.items():
        if made is None or shape is None:
            return
        if isinstance(how, Aligns):
            k = axis - len(made) + len(shape)
            if k >= 0 and shape[k] == made[axis]:
                yield name, k
        elif isinstance(how, Axes):
            yield from _related(graph, node, how.pattern, name, axis)
        elif isinstance(how, Moves) and max(math.prod(shape), math.prod(made)) <= MOST:
            yield from ((name, k) for k in range(len(shape)) if _goes(graph, node, name, k, axis))


def _related(
    graph: Graph, node: Node, pattern: str, name: str, axis: int
) -> Iterator[tuple[str, int]]:
    """The axes of an input that have the letter of an axis of the output; its place, of the rest.

    The steps that a recurrent layer writes are those that it reads.
    """
    read, made = parse(pattern)
    index = node.inputs.index(name)
    if index >= len(read):
        return
    given = read[index].match(graph.shape(name) or (), name)
    written = made[0].match(graph.shape(node.outputs[0]) or (), node.outputs[0])
    named, size = written[axis]
    for k, (one, length) in enumerate(given):
        at_place = k == axis and (len(given) == len(written) or length == size)
        if one.names == named.names if named.names else at_place:
            yield name, k


def _goes(graph: Graph, node: Node, name: str, k: int, axis: int) -> bool:
    """Say whether what varies along axis `k` of an input varies along an axis of the output."""
    op, site = node.op, graph.site(node)
    assert op is not None
    given: list[Any] = []
    for index, one in enumerate(node.inputs):
        if one and not op.is_parameter(index):
            given.append(_numbered(site.shapes[index] or (), k if one == name else None))
        else:
            given.append(op.parameter(index, site.values[index]) if one else None)
    try:
        moved = op(node, given)[0]
    except (OnnxPruneError, MemoryError, TypeError, ValueError, IndexError):
        return False
    return bool((moved != moved.take([0], axis)).any())


def _numbered(shape: tuple[int, ...], axis: int | None) -> Any:
    """The number of the position along an axis, zeros without one, as a view. Shapes: `shape`."""
    column = [-1 if k == axis else 1 for k in range(len(shape))]
    numbers = np.arange(1 if axis is None else shape[axis]).reshape(column)
    return np.broadcast_to(numbers, shape)
