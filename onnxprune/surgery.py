"""Remove channels from a model, or zero them. No operator is named here.

Surgery is one loop: every constant keeps the surviving positions of its cuts. Then the nodes are
followed in order as the analysis followed them: a node that states a channel count a second time
(the group of a convolution, a target shape) restates it, and the shape that ONNX infers for every
output must be the one its cuts predict. `mask` is the same loop with zeros: the same shapes, the
same function, and so the oracle of `prune`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from onnxprune.channels import STAYS, BoolArray, ChannelGroups
from onnxprune.errors import InvalidPlan, SurgeryError
from onnxprune.graph import Graph, dims, is_float, start_facts
from onnxprune.node import Node, node_of
from onnxprune.ops import Axes, Edit, Moves, Site, find_op
from onnxprune.propagate import site_of
from onnxprune.shapes import Facts, Shape

Kept = dict[int, BoolArray]


def prune(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model without the `dead` channels.

    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied; SurgeryError when the
    result is not the predicted one.
    """
    _refuse(groups, dead)
    if not dead.any():
        return _copy(graph.model)
    return _Surgery(graph, groups, dead).run()


def mask(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model with the `dead` channels set to zero where weights make or read them.

    Only constants of weighing operators (`Axes`) are zeroed: a divisor of 0 would not be a mask.
    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied.
    """
    _refuse(groups, dead)
    model = _copy(graph.model)
    constants = Constants(model)
    for name, array in masked_constants(graph, groups, dead).items():
        constants.set(name, array)
    return model


def masked_constants(
    graph: Graph, groups: ChannelGroups, dead: BoolArray
) -> dict[str, npt.NDArray[Any]]:
    """Return the constants that `mask` changes, with zeros where the `dead` channels were.

    Shapes: dead `[channels]`.
    """
    masked = {}
    for name in weighing_constants(graph):
        kept = kept_positions(groups, dead, name)
        if kept:
            masked[name] = graph.constant(name).copy()
            for axis, alive in kept.items():
                masked[name][(slice(None),) * axis + (~alive,)] = 0
    return masked


def kept_positions(groups: ChannelGroups, dead: BoolArray, tensor: str) -> Kept:
    """Return, for the cuts of a tensor that lose positions, which positions survive."""
    found = {}
    for axis, channels in groups.cuts.get(tensor, {}).items():
        alive = (channels == STAYS) | ~dead[channels]
        if not alive.all():
            found[axis] = alive
    return found


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


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def weighing_constants(graph: Graph) -> list[str]:
    """Return the constants that weigh, read directly or through operators that move."""
    found: dict[str, None] = {}
    constant = set(graph.constant_tensors)
    for node in reversed(graph.nodes):
        op = find_op(node)
        if op is None:
            continue
        how = op.channels(site_of(graph, node, constant))
        if isinstance(how, Axes) or (isinstance(how, Moves) and found.keys() & set(node.outputs)):
            found.update(dict.fromkeys(node.inputs))
    known = graph.constant_tensors
    return [name for name in found if name in known and is_float(graph.constant(name))]


class Constants:
    """The constants of a model under surgery, by tensor name: initializers and Constant nodes."""

    def __init__(self, model: ModelProto) -> None:
        self._model = model
        self._places: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    self._places[node.output[0]] = attribute.t
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}

    def array(self, name: str) -> npt.NDArray[Any]:
        """Return a constant as it is now."""
        return numpy_helper.to_array(self._places[name])

    def set(self, name: str, array: npt.NDArray[Any]) -> None:
        """Give a constant another array of the same type."""
        place = self._places[name]
        element, label = place.data_type, place.name
        place.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), label))
        if place.data_type != element:
            raise SurgeryError(f"constant '{name}': its element type changed; report this")

    def add(self, hint: str, array: npt.NDArray[Any]) -> TensorProto:
        """Add an initializer with a name nobody has, and return it."""
        name = next(n for n in (f"{hint}_{k}" for k in range(1 << 30)) if n not in self._taken)
        self._taken.add(name)
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        graph = self._model.graph
        graph.initializer.append(tensor)
        if self._model.ir_version < 4:  # there, every initializer is an input as well
            info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            graph.input.append(info)
        self._places[name] = graph.initializer[-1]
        return tensor


@dataclass
class _Surgery:
    graph: Graph
    groups: ChannelGroups
    dead: BoolArray
    model: ModelProto = field(init=False)

    def run(self) -> ModelProto:
        self.model = _copy(self.graph.model)
        constants = Constants(self.model)
        for name in self.graph.constant_tensors:
            kept = self._kept(name)
            if kept:
                constants.set(name, _compress(self.graph.constant(name), kept))
        self._declare()
        facts = start_facts(self.model, self.graph.input_shapes)
        opsets = self.graph.opsets
        for before, proto in zip(self.graph.nodes, self.model.graph.node, strict=True):
            if self._touched(before):
                self._restate(before, proto, facts, constants)
            facts.follow(node_of(proto, opsets, name=before.name))
            self._compare(before, facts)
        return self.model

    def _kept(self, name: str) -> Kept:
        return kept_positions(self.groups, self.dead, name)

    def _touched(self, node: Node) -> bool:
        return any(self._kept(name) for name in (*node.inputs, *node.outputs) if name)

    def _predicted(self, name: str) -> Shape | None:
        shape = self.graph.shape(name)
        if shape is None:
            return None
        kept = self._kept(name)
        return tuple(int(kept[k].sum()) if k in kept else n for k, n in enumerate(shape))

    def _restate(self, node: Node, proto: NodeProto, facts: Facts, constants: Constants) -> None:
        op = find_op(node)
        if op is None or op.restate is None:
            return
        edit = op.restate(self._site(node, facts))
        if edit is not None:
            _apply(edit, node, proto, facts, constants)

    def _site(self, node: Node, facts: Facts) -> Site:
        before = site_of(self.graph, node, set())
        return replace(
            before,
            values=[facts.values.get(name) for name in node.inputs],
            before=before,
            shapes=[facts.shape(name) if name else None for name in node.inputs],
            kept=[self._kept(name) for name in node.inputs],
            output_kept=[self._kept(name) for name in node.outputs],
            predicted=[self._predicted(name) if name else None for name in node.outputs],
            dynamic=self.graph.dynamic,
        )

    def _compare(self, node: Node, facts: Facts) -> None:
        for name in node.outputs:
            predicted, found = self._predicted(name), facts.shape(name)
            if name and predicted is not None and found != predicted:
                raise SurgeryError(
                    f"{node}: output '{name}' should have shape {dims(predicted)}, ONNX infers "
                    f"{dims(found)}; does operator {node.op_type} restate a channel count?"
                )

    def _declare(self) -> None:
        """Correct the sizes that the model declares for its cut tensors."""
        graph = self.model.graph
        for value in (*graph.value_info, *graph.input, *graph.output):
            kept = self._kept(value.name)
            if kept and value.type.HasField("tensor_type"):
                _resize(value, {axis: int(alive.sum()) for axis, alive in kept.items()})


def _resize(value: ValueInfoProto, sizes: Mapping[int, int]) -> None:
    declared = value.type.tensor_type.shape.dim
    for axis, size in sizes.items():
        if axis < len(declared) and declared[axis].HasField("dim_value"):
            declared[axis].dim_value = size


def _compress(array: npt.NDArray[Any], kept: Kept) -> npt.NDArray[Any]:
    for axis, alive in kept.items():
        array = np.compress(alive, array, axis)
    return array


def _apply(edit: Edit, node: Node, proto: NodeProto, facts: Facts, constants: Constants) -> None:
    """Write an edit into the node; an input that changes gets a constant of the node's own."""
    changed = {**edit.attributes, **dict.fromkeys(edit.drop)}
    kept = [attribute for attribute in proto.attribute if attribute.name not in changed]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    proto.attribute.extend(helper.make_attribute(n, v) for n, v in edit.attributes.items())
    if edit.op_type is not None:
        proto.op_type = edit.op_type
    for index, array in edit.inputs.items():
        proto.input.extend([""] * (index + 1 - len(proto.input)))
        own = constants.add(f"{proto.input[index] or node.name}_pruned", array)
        facts.set_constant(own.name, own)
        proto.input[index] = own.name
    if edit.op_type is not None:
        del proto.input[max(edit.inputs, default=len(proto.input) - 1) + 1 :]
