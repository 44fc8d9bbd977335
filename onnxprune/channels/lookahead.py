"""Which axes of a tensor a node further on needs whole.

Where labels may be placed along several axes, an axis that a sum over time or a mean needs whole is
the wrong one, also where activations and transpositions lie in between. Each axis is followed on
its own, as far as it stays one axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnxprune.errors import OnnxPruneError
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Moves, Node, Writes, parse

FARTHEST = 64
"""Tensors that an axis is followed through; one that goes on is taken for one that may shrink."""


def freest_axis(graph: Graph, name: str, classes: Mapping[int, int], *, inner: bool = False) -> int:
    """Return the axis that leaves most classes, of those that no node needs whole if any does.

    With `inner` a product of two activations does not need the axis that it sums over.
    """
    if sum(count > 1 for count in classes.values()) > 1:
        closed = closed_axes(graph, name, inner=inner)
        left = {k: n for k, n in classes.items() if k not in closed}
        classes = left if any(count > 1 for count in left.values()) else classes
    return max(classes, key=lambda axis: classes[axis])


def closed_axes(graph: Graph, name: str, *, inner: bool = False) -> set[int]:
    """Return the axes of a tensor that a later node, or the graph's output, needs whole."""
    wide = (axis for axis, size in enumerate(graph.shape(name) or ()) if size > 1)
    return {axis for axis in wide if _is_closed(graph, name, axis, inner=inner)}


def _is_closed(graph: Graph, name: str, axis: int, *, inner: bool) -> bool:
    todo, seen = [(name, axis)], {(name, axis)}
    while todo and len(seen) <= FARTHEST:
        tensor, here = todo.pop(0)
        if tensor in graph.outputs:
            return True
        for node in graph.consumers.get(tensor, ()):
            for index, read in enumerate(node.inputs):
                if read != tensor:
                    continue
                after = _after(graph, node, index, here, inner=inner)
                if after is None:
                    return True
                fresh = [place for place in after if place not in seen]
                seen.update(fresh)
                todo += fresh
    return False


def _after(
    graph: Graph, node: Node, index: int, axis: int, *, inner: bool
) -> list[tuple[str, int]] | None:
    """Where an axis of an input goes on in the outputs; None where the node needs it whole."""
    how = graph.how(node)
    if isinstance(how, Axes):
        pattern = how.pattern_for(loose=False, inner=inner)
        return _along_letter(graph, node, pattern, index, axis)
    if isinstance(how, Aligns):
        return list(_aligned(graph, node, index, axis))
    if isinstance(how, Writes):
        return [(node.outputs[0], axis)] if index == 0 else []
    if isinstance(how, Moves):
        return list(_moved(graph, node, index, axis))
    return []


def _along_letter(
    graph: Graph, node: Node, pattern: str, index: int, axis: int
) -> list[tuple[str, int]] | None:
    """The output axes that have the letter of the axis; None where it never shrinks."""
    inputs, outputs = parse(pattern)
    shape = graph.shape(node.inputs[index])
    if index >= len(inputs) or shape is None:
        return []
    mine, _ = inputs[index].match(shape, str(node))[axis]
    if mine.fixed:
        return None
    found = []
    for name, operand in zip(node.outputs, outputs, strict=False):
        sizes = graph.shape(name) if name else None
        axes = operand.match(sizes, str(node)) if sizes is not None else []
        found += [(name, k) for k, (one, _) in enumerate(axes) if one.names == mine.names]
    return found


def _aligned(graph: Graph, node: Node, index: int, axis: int) -> Iterator[tuple[str, int]]:
    before = graph.shape(node.inputs[index]) or ()
    for name in node.outputs:
        after = graph.shape(name) if name else None
        if after is not None and len(after) >= len(before):
            yield name, axis + len(after) - len(before)


def _moved(graph: Graph, node: Node, index: int, axis: int) -> Iterator[tuple[str, int]]:
    """The output axis along which the positions of the axis lie, if it is one."""
    op, site = node.op, graph.site(node)
    assert op is not None
    shape = site.shapes[index]
    if op.is_parameter(index) or shape is None:
        return
    column = np.arange(1, shape[axis] + 1).reshape(
        [-1 if k == axis else 1 for k in range(len(shape))]
    )
    arguments = []
    for k, name in enumerate(node.inputs):
        if op.is_parameter(k) and name and site.values[k] is None:
            return  # computed from the input: nobody knows where positions go
        if op.is_parameter(k):
            arguments.append(op.parameter(k, site.values[k]))
        else:
            known = site.shapes[k] if name else None
            blank = None if known is None else np.broadcast_to(np.int64(0), known)
            arguments.append(np.broadcast_to(column, shape) if k == index else blank)
    try:
        moved = op(node, arguments)
    except (OnnxPruneError, TypeError, ValueError):
        return
    for name, labels in zip(node.outputs, moved, strict=False):
        along = [k for k, stride in enumerate(labels.strides) if stride and labels.shape[k] > 1]
        if name and len(along) == 1:
            yield name, along[0]
