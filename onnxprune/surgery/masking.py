"""Set channels to zero in place of removing them: the oracle of what removal has to compute.

The masked model has the shapes of the original and computes what the pruned one does. Zeros are
written into weights only: a divisor of 0 would not be a mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, helper

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.ops import Axes, Moves, Node, parse
from onnxprune.surgery.editor import Constants, copy_model

Array = npt.NDArray[Any]

ZERO = np.zeros((), np.int8)
"""What stands for zero in a weight that is not quantised."""


def mask(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model with the `dead` channels set to zero where weights make or read them.

    Only constants of weighing operators (`Axes`) are zeroed: a divisor of 0 would not be a mask.
    A product of two activations that sums over channels gets one of them times 0 there.
    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied.
    """
    groups.check(dead)
    masked = _masked_constants(graph, groups, dead)
    for alias, name in graph.aliases.items():
        mine = masked.pop(alias, graph.constant(alias))
        if not np.array_equal(mine, masked.get(name, graph.constant(name))):
            masked[alias] = mine
    model = copy_model(graph, masked)
    _silence(graph, groups, dead, model)
    return model


def _silence(graph: Graph, groups: ChannelGroups, dead: BoolArray, model: ModelProto) -> None:
    """Multiply what products of two activations sum over by 0 where the `dead` channels are.

    Shapes: dead `[channels]`.
    """
    constants = Constants(graph, model)
    for node in graph.nodes:
        for index, axis, alive in _summed(graph, groups, dead, node):
            shape = graph.shape(node.inputs[index]) or ()
            element = graph.facts.types[node.inputs[index]].tensor_type.elem_type
            factor = alive.astype(helper.tensor_dtype_to_np_dtype(element))
            column = factor.reshape(-1, *(1,) * (len(shape) - axis - 1))
            constants.scale_input(node, index, column)


def _summed(
    graph: Graph, groups: ChannelGroups, dead: BoolArray, node: Node
) -> Iterator[tuple[int, int, BoolArray]]:
    """The inputs of a product of two activations that lose channels which it sums over.

    A convolution whose weights are computed is one. Of each letter one input is enough: it comes
    with the axis, and what survives there.
    Shapes: dead `[channels]`.
    """
    how = graph.how(node)
    if not isinstance(how, Axes) or not (how.inner or _computes_weights(graph, node)):
        return
    inputs, outputs = parse(how.inner or how.pattern)
    done = {axis.names for axis in outputs[0].axes}
    for index, (name, operand) in enumerate(zip(node.inputs, inputs, strict=False)):
        kept = groups.kept(name, dead)
        axes = operand.match(graph.shape(name) or (), str(node)) if kept else ()
        for k, (axis, _) in enumerate(axes):
            if k in kept and axis.names not in done:
                done.add(axis.names)
                yield index, k, kept[k]


def _computes_weights(graph: Graph, node: Node) -> bool:
    """Say whether both factors of a node vary with the inputs, so that no weight can be zeroed."""
    op, names = node.op, node.inputs
    if op is None or op.zero_points or not op.weights:
        return False
    factors = {names[k] for k in (0, *op.weights) if k < len(names)}
    return graph.constant_names.isdisjoint(factors)


def _masked_constants(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> dict[str, Array]:
    """Return the constants that `mask` changes, with zeros where the `dead` channels were.

    Shapes: dead `[channels]`.
    """
    masked = {}
    for name, zero in _weights(graph).items():
        kept = groups.kept(name, dead)
        if kept:
            masked[name] = graph.constant(name).copy()
            for axis, alive in kept.items():
                places = (slice(None),) * axis + (~alive,)
                masked[name][places] = np.broadcast_to(zero, masked[name].shape)[places]
    return masked


def _weights(graph: Graph) -> dict[str, Array]:
    """The constants that are weights, each with what stands for zero in it."""
    found: dict[str, Array] = {}
    for node in reversed(graph.nodes):
        found.update(_weights_of(graph, node, found))
    return {name: zero for name, zero in found.items() if name in graph.constant_tensors}


def _weights_of(graph: Graph, node: Node, known: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs of a node that are weights, each with what stands for zero in it.

    1. A node that is told the zero points of its inputs names those that are quantised.
    2. A node that relates named axes (`Axes`) multiplies its inputs: there 0 is zero.
    3. A node that makes a weight of later nodes hands it on, if it copies elements or works it
       out from constants so that zeros stay zeros.
    """
    how, names = graph.how(node), node.inputs
    if node.op is not None and node.op.zero_points:  # 1
        places = node.op.zero_points.items()
        return {names[k]: _zero_point(graph, node, k, at) for k, at in places if k < len(names)}
    if isinstance(how, Axes):  # 2
        return dict.fromkeys(names, ZERO)
    made = [known[name] for name in node.outputs if name in known]
    if made and (isinstance(how, Moves) or _keeps_zero(graph, node)):  # 3
        return dict.fromkeys(names, made[0])
    return {}


def _keeps_zero(graph: Graph, node: Node) -> bool:
    """Say whether a node makes zeros out of constants that are zero: a Cast, or a product."""
    known = graph.constant_names & graph.facts.types.keys()
    if node.op is None or not known.issuperset(node.inputs):
        return False
    elements = [graph.facts.types[name].tensor_type.elem_type for name in node.inputs]
    dtypes = [helper.tensor_dtype_to_np_dtype(element) for element in elements]
    zeros = {name: np.zeros((), dtype) for name, dtype in zip(node.inputs, dtypes, strict=True)}
    try:
        return not any(np.any(result) for result in graph.facts.run(node, zeros))
    except ValueError:
        return False


def _zero_point(graph: Graph, node: Node, index: int, place: int | None) -> Array:
    """The zero point of an input, shaped to broadcast with it along the axis of the same letter."""
    how = graph.how(node)
    name = node.inputs[place] if place is not None and place < len(node.inputs) else ""
    if place is None or name not in graph.constant_tensors or not isinstance(how, Axes):
        return ZERO
    zero = graph.constant(name)
    if block := int(node.attributes.get("block_size", 0)):
        axis, shape = int(node.attributes.get("axis", 1)), graph.shape(node.inputs[index]) or ()
        return np.repeat(zero, block, axis).take(np.arange(shape[axis]), axis)
    if zero.ndim != 1 or zero.size == 1:
        return zero
    operands, _ = parse(how.pattern)
    (letter, _), *_ = operands[place].match(zero.shape, name)
    axes = operands[index].match(graph.shape(node.inputs[index]) or (), node.inputs[index])
    return zero.reshape([-1 if axis == letter else 1 for axis, _ in axes])
