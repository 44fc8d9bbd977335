"""The constants that weigh, which a mask sets to zero, and what stands for zero in each."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.errors import InvalidPlan
from onnxprune.graph import Graph
from onnxprune.ops import Axes, Moves, Node, parse
from onnxprune.surgery.editor import copy_model


def weighing_constants(graph: Graph) -> dict[str, npt.NDArray[Any]]:
    """Return the constants that weigh: read directly, moved, or computed so that 0 stays 0.

    Each with what stands for zero in it, broadcast to its shape: the zero point where quantised.
    """
    found: dict[str, npt.NDArray[Any]] = {}
    for node in reversed(graph.nodes):
        how = graph.how(node)
        if node.op is None:
            continue
        if node.op.zero_points:
            for index, place in node.op.zero_points.items():
                if index < len(node.inputs):
                    found[node.inputs[index]] = _zero_point(graph, node, index, place)
        elif isinstance(how, Axes):
            found.update(dict.fromkeys(node.inputs, np.zeros((), np.int8)))
        elif found.keys() & set(node.outputs) and (
            isinstance(how, Moves)
            or (graph.constant_names.issuperset(node.inputs) and _keeps_zero(graph, node))
        ):
            zero = next(found[name] for name in node.outputs if name in found)
            found.update(dict.fromkeys(node.inputs, zero))
    return {name: zero for name, zero in found.items() if name in graph.constant_tensors}


def _keeps_zero(graph: Graph, node: Node) -> bool:
    """Say whether zeros come out where zeros go in: of a Cast or a product, say."""
    elements = [graph.facts.types[name].tensor_type.elem_type for name in node.inputs]
    dtypes = [helper.tensor_dtype_to_np_dtype(element) for element in elements]
    zeros = {name: np.zeros((), dtype) for name, dtype in zip(node.inputs, dtypes, strict=True)}
    try:
        with np.errstate(all="ignore"):
            return not any(np.any(result) for result in graph.facts.run(node, zeros))
    except (TypeError, ValueError, RuntimeError, LookupError):
        return False


def _zero_point(graph: Graph, node: Node, index: int, place: int | None) -> npt.NDArray[Any]:
    """The zero point of an input, shaped to broadcast with it along the axis of the same letter."""
    how = graph.how(node)
    name = node.inputs[place] if place is not None and place < len(node.inputs) else ""
    if place is None or name not in graph.constant_tensors or not isinstance(how, Axes):
        return np.zeros((), np.int8)
    zero = graph.constant(name)
    if zero.ndim != 1 or zero.size == 1:
        return zero
    operands, _ = parse(how.pattern)
    (letter, _), *_ = operands[place].match(zero.shape, name)
    axes = operands[index].match(graph.shape(node.inputs[index]) or (), node.inputs[index])
    return zero.reshape([-1 if axis == letter else 1 for axis, _ in axes])


def mask(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model with the `dead` channels set to zero where weights make or read them.

    Only constants of weighing operators (`Axes`) are zeroed: a divisor of 0 would not be a mask.
    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied.
    """
    _refuse(groups, dead)
    masked = masked_constants(graph, groups, dead)
    for alias, name in graph.aliases.items():
        mine = masked.pop(alias, graph.constant(alias))
        if not np.array_equal(mine, masked.get(name, graph.constant(name))):
            masked[alias] = mine
    return copy_model(graph, masked)


def masked_constants(
    graph: Graph, groups: ChannelGroups, dead: BoolArray
) -> dict[str, npt.NDArray[Any]]:
    """Return the constants that `mask` changes, with zeros where the `dead` channels were.

    Shapes: dead `[channels]`.
    """
    masked = {}
    for name, zero in weighing_constants(graph).items():
        kept = groups.kept(name, dead)
        if kept:
            masked[name] = graph.constant(name).copy()
            for axis, alive in kept.items():
                places = (slice(None),) * axis + (~alive,)
                masked[name][places] = np.broadcast_to(zero, masked[name].shape)[places]
    return masked


def _refuse(groups: ChannelGroups, dead: BoolArray) -> None:
    pinned = np.flatnonzero(dead & ~groups.removable)
    if pinned.size:
        channel = int(pinned[0])
        raise InvalidPlan(
            f"group '{groups.names[groups.group[channel]]}': the plan removes channel {channel}, "
            f"which must stay: it {groups.reasons[channel]}; leave it out of the plan"
        )
    emptied = groups.emptied(dead)
    if emptied is not None:
        tensor, axis = emptied
        raise InvalidPlan(
            f"tensor '{tensor}': the plan removes all {len(groups.cuts[tensor][axis])} "
            f"positions of axis {axis}; keep at least one"
        )
