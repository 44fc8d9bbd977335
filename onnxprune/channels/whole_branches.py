"""What is left of a branch all of whose filters are gone.

A layer that reads nothing makes its bias, the same for every image. What is computed from that
alone is a constant too, up to the node where the branch meets another: a sum or a gate, which then
reads the constant. Here nodes are followed with such constants, held at a single pixel and spread
by broadcasting; where one cannot say what a node makes of them, the branch has to stay.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Moves, Node, Op, Relevance

Array = npt.NDArray[Any]
Cuts = Mapping[str, Mapping[int, IntArray]]


@dataclass
class Remains:
    """What is left where the tensors `empty` have no channels.

    `held` are the tensors that are constants now, `computes` the nodes that make some of them of
    others, `meets` those that go on to read some beside what depends on the image.
    Shapes: held each as its tensor, or 1 along axes on which it is the same everywhere.
    """

    empty: frozenset[str]
    held: dict[str, Array] = field(default_factory=dict)
    computes: list[Node] = field(default_factory=list)
    meets: list[Node] = field(default_factory=list)


def empty_tensors(cuts: Cuts, dead: BoolArray) -> frozenset[str]:
    """Return the tensors of which an axis has lost all its channels. Shapes: dead `[channels]`."""
    return frozenset(
        tensor
        for tensor, axes in cuts.items()
        if any(channels.min() >= 0 and dead[channels].all() for channels in axes.values())
    )


def find_whole(graph: Graph, cuts: Cuts, axes: Sequence[IntArray], count: int) -> list[IntArray]:
    """Return the axes that may lose all of their channels, alone and together.

    Shapes: axes each `[n]`, of which at least one channel stays otherwise -> each `[n]`.
    Units: count, all channels.
    """
    together = np.zeros(count, np.bool_)
    found = []
    for axis in axes:
        alone = np.zeros(count, np.bool_)
        alone[axis] = True
        if all(
            find_remains(graph, empty_tensors(cuts, dead)) is not None
            for dead in (alone, together | alone)
        ):
            together |= alone
            found.append(axis)
    return found


def find_remains(graph: Graph, empty: frozenset[str]) -> Remains | None:
    """Return what is left of a graph where tensors have no channels; None where no one can say."""
    remains = Remains(empty)
    for node in graph.nodes:
        if empty.isdisjoint(node.captures) and remains.held.keys().isdisjoint(node.captures):
            if not _follow(graph, node, remains):
                return None
        else:
            return None
    return None if remains.held.keys() & set(graph.outputs) else remains


def _follow(graph: Graph, node: Node, remains: Remains) -> bool:
    """Note what a node makes of what is left; False where no one can say."""
    signals = [name for name in node.inputs if name and name not in graph.constant_names]
    gone = remains.empty.intersection(signals)
    held = remains.held.keys() & signals
    outputs = [name for name in node.outputs if name]
    if not gone and not held:
        return True
    if gone and remains.empty.issuperset(outputs):
        return True
    if node.op is None or node.nested or node.within or len(outputs) != 1:
        return False
    if not gone and not held.issuperset(signals):
        if not _broadcasts(graph, node, set(signals) - held):
            return False
        remains.meets.append(node)
        return True
    found = _left(graph, node, node.op) if gone else _computed(graph, node, node.op, remains.held)
    if found is None or not _fits(found, graph.shape(outputs[0])):
        return False
    remains.held[outputs[0]] = found
    if not gone:
        remains.computes.append(node)
    return True


def _fits(value: Array, shape: Sequence[int] | None) -> bool:
    """Say whether a value stands for a whole tensor by broadcasting, with all of its axes."""
    return (
        shape is not None
        and value.ndim == len(shape)
        and all(size in (1, whole) for size, whole in zip(value.shape, shape, strict=True))
    )


def _broadcasts(graph: Graph, node: Node, others: Collection[str]) -> bool:
    """Say whether a node goes on when it reads constants of one pixel beside the others."""
    y = node.outputs[0]
    known = all(n in graph.constant_tensors for n in node.inputs if n in graph.constant_names)
    return (
        isinstance(graph.how(node), Aligns)
        and known
        and all(
            graph.shape(n) == graph.shape(y) and graph.dynamic(n) == graph.dynamic(y)
            for n in others
        )
    )


def _left(graph: Graph, node: Node, op: Op) -> Array | None:
    """What a layer makes of nothing: its bias, at one pixel. None for what is no such layer."""
    axis, shape = graph.filter_axis(node, dense=True), graph.shape(node.outputs[0])
    if axis is None or shape is None or op.relevance is not Relevance.LINEAR:
        return None
    element = graph.facts.types[node.outputs[0]].tensor_type.elem_type
    zero = np.zeros((1,) * axis + (shape[axis],) + (1,) * (len(shape) - axis - 1))
    bias = [node.inputs[k] for k in op.biases if k < len(node.inputs) and node.inputs[k]]
    if bias and bias[0] not in graph.constant_tensors:
        return None
    for name in bias:
        value = graph.constant(name) * node.attributes.get("beta", 1.0)
        if value.ndim == 1:
            value = value.reshape(-1, *(1,) * (len(shape) - axis - 1))
        zero = zero + value
    return zero.astype(helper.tensor_dtype_to_np_dtype(element))


def _computed(graph: Graph, node: Node, op: Op, held: Mapping[str, Array]) -> Array | None:
    """What a node makes of constants at one pixel; None where it looks at several."""
    if not _is_pointwise(graph, node, op):
        return None
    given = {}
    for name in filter(None, node.inputs):
        if name in held:
            given[name] = held[name]
        elif name in graph.constant_tensors:
            given[name] = graph.constant(name)
        else:
            return None
    try:
        return np.asarray(graph.facts.run(node, given)[0])
    except (TypeError, ValueError, RuntimeError, LookupError):
        return None


def _is_pointwise(graph: Graph, node: Node, op: Op) -> bool:
    """Say whether a node computes each pixel from the same pixel, or only turns axes round."""
    how = graph.how(node)
    before, after = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    if isinstance(how, Aligns):
        return True
    if before is None or after is None:
        return False
    if isinstance(how, Moves):
        return len(op.inputs) == 1 and sorted(before) == sorted(after)
    if not isinstance(how, Axes) or op.relevance is not Relevance.LINEAR or op.scatters:
        return False
    kernels = [(graph.shape(node.inputs[k]) or ())[2:] for k in op.weights]
    padded = any(node.attributes.get("pads", ())) or len(before) != len(after)
    return not padded and all(size == 1 for kernel in kernels for size in kernel)
