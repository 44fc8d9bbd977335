"""Remove channels from a model. No operator is named here.

Every constant keeps the surviving positions of its cuts. Then the nodes are followed in order, as
the analysis followed them. A node that states a channel count a second time (the group of a
convolution, a target shape) restates it, and the shape that ONNX infers for every output must be
the one that its cuts predict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from onnxprune.arrays import BoolArray, IntArray, Kept, dims
from onnxprune.channels import ChannelGroups, Shuffle, empty_tensors, find_shuffles, find_source
from onnxprune.errors import SurgeryError
from onnxprune.graph import NONE_APART, Graph, Shape, Weights, fill, open_bodies, start_facts
from onnxprune.ops import Edit, Node, PrunedSite, Writes, as_gather, node_of
from onnxprune.surgery.branches import drop_branches
from onnxprune.surgery.editor import Constants, cut_model


def remove_channels(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model without the `dead` channels.

    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied; SurgeryError when the
    result is not the predicted one.
    """
    return fill(*remove_channels_apart(graph, groups, dead))


def remove_channels_apart(
    graph: Graph, groups: ChannelGroups, dead: BoolArray
) -> tuple[ModelProto, Weights]:
    """Return what `remove_channels` returns with its large weights apart, for `save_model`.

    Shapes: dead `[channels]`.
    Raises: InvalidPlan and SurgeryError, as `remove_channels` does.
    """
    groups.check(dead)
    if not dead.any():
        return cut_model(graph, {})
    last = groups.last(dead)  # they stay until their branch goes
    model, apart = _Removal(graph, groups, dead & ~last).run()
    if not last.any():
        return model, apart
    net = Graph(fill(model, apart), input_shapes=graph.input_shapes)
    return drop_branches(net, empty_tensors(groups.cuts, dead)), NONE_APART


@dataclass
class _Removal:
    """One removal: `model` is the copy that is cut, `facts` what is known of its tensors so far."""

    graph: Graph
    groups: ChannelGroups
    dead: BoolArray
    _known: dict[str, Kept] = field(default_factory=dict)
    _resized: set[str] = field(default_factory=set)

    def run(self) -> tuple[ModelProto, Weights]:
        self.model, apart = cut_model(self.graph, self._cuts())
        self._declare()
        self.constants = Constants(self.graph, self.model)
        self.facts = start_facts(
            self.model, self.graph.input_shapes, unsteady=self.graph.facts.unsteady
        )
        inside = {node.name for one in self._shuffles.values() for node in one.nodes[:-1]}
        for node in filter(self.constants.has, self.graph.nodes):
            if node.name in inside:
                self.constants.remove(node)
            else:
                self._follow(node)
        self._drop_resized()
        self.constants.drop_unread()
        return self.model, apart

    def _cuts(self) -> dict[str, Kept]:
        """What is kept of each constant that changes.

        A vector that one node reads under an alias changes where it is cut otherwise than the
        vector behind the alias; the node gets one of its own then.
        """
        found = {}
        for name in self.graph.constant_tensors:
            base = self.graph.aliases.get(name)
            if base is None:
                changes = bool(self._kept(name))
            else:
                changes = not self.groups.cut_alike(name, base, self.dead)
            if changes:
                found[name] = self._kept(name)
        return found

    @cached_property
    def _shuffles(self) -> dict[str, Shuffle]:
        """The shuffles of channels that are cut, by the names of their last nodes."""
        found = find_shuffles(self.graph).ending.items()
        return {last: shuffle for last, shuffle in found if self._kept(shuffle.source)}

    @cached_property
    def _listed(self) -> dict[tuple[str, str], IntArray]:
        """Lists of positions that are written to, by the nodes that read them in a stated order.

        They are stated anew where the indices made of them follow sizes that are left open.
        """
        found: dict[tuple[str, str], IntArray] = {}
        for node in self.graph.nodes:
            how = self.graph.how(node)
            if not isinstance(how, Writes) or not self.graph.open_elements(node.inputs[1]).any():
                continue
            for axis in how.named & self._kept(node.inputs[0]).keys():
                source = find_source(self.graph, node, axis)
                if source is None:
                    continue
                left = self._kept(node.inputs[2]).get(source.row, np.ones(source.listed.size, bool))
                rank = np.cumsum(self._kept(node.inputs[0])[axis]) - 1
                array = rank[source.listed[left]]
                found |= {(one.name, source.name): array for one in source.chain}
        return found

    @cached_property
    def _following(self) -> set[str]:
        """Names of the nodes that make indices of such lists: they state nothing anew."""
        return {name for name, _ in self._listed}

    def _follow(self, node: Node) -> None:
        """Correct a node, and hold the shapes that ONNX infers against those of the cuts."""
        own = not node.nested and not node.border
        proto = self.constants.proto(node) if own else node.proto
        lists = {k: (node.name, name) for k, name in enumerate(node.inputs)}
        inputs = {k: self._listed[key] for k, key in lists.items() if key in self._listed}
        if inputs:
            self._apply(Edit(inputs=inputs), node, proto)
        if node.name in self._shuffles:
            self._write_order(self._shuffles[node.name], proto)
        elif node.name not in self._following and self._is_touched(node, proto):
            self._restate(node, proto)
        new = node if node.border else node_of(proto, self.graph.opsets, name=node.name)
        self.facts.follow(new)
        self._compare(node)

    def _write_order(self, shuffle: Shuffle, proto: NodeProto) -> None:
        """Make the last node of a shuffle take what is left of its source, in its order."""
        alive = self._kept(shuffle.source).get(shuffle.axis)
        if alive is None:
            alive = np.ones(shuffle.taken.max() + 1, np.bool_)
        proto.input[0] = shuffle.source
        edit = as_gather(shuffle.last, shuffle.axis, shuffle.taken, alive)
        self._apply(edit, shuffle.last, proto)

    def _kept(self, name: str) -> Kept:
        if name not in self._known:
            self._known[name] = self.groups.kept(name, self.dead)
        return self._known[name]

    def _is_touched(self, node: Node, proto: NodeProto) -> bool:
        """Say whether a node's tensors are cut, or a value that it is told has changed."""
        if any(self._kept(name) for name in (*node.inputs, *node.outputs) if name):
            return True
        told = self.graph.facts.values
        return any(
            name in told and not np.array_equal(told[name], self.facts.values.get(new, told[name]))
            for name, new in zip(node.inputs, proto.input, strict=True)
        )

    def _predicted(self, name: str) -> Shape | None:
        """The shape that the cuts of a tensor predict."""
        shape = self.graph.shape(name)
        if shape is None:
            return None
        kept = self._kept(name)
        return tuple(int(kept[k].sum()) if k in kept else n for k, n in enumerate(shape))

    def _restate(self, node: Node, proto: NodeProto) -> None:
        if node.op is not None and node.op.restate is not None:
            edit = node.op.restated(self._site(node, proto))
            if edit is not None:
                self._apply(edit, node, proto)

    def _site(self, node: Node, proto: NodeProto) -> PrunedSite:
        before, facts = self.graph.site(node), self.facts
        left = replace(
            before,
            shapes=[facts.shape(name) if name else None for name in proto.input],
            values=[facts.values.get(name) for name in proto.input],
            output_shapes=[self._predicted(name) if name else None for name in node.outputs],
        )
        return PrunedSite(
            **vars(left),
            before=before,
            kept=[self._kept(name) for name in node.inputs],
            output_kept=[self._kept(name) for name in node.outputs],
        )

    def _apply(self, edit: Edit, node: Node, proto: NodeProto) -> None:
        """Write an edit into a node; an input that changes gets a constant of the node's own.

        It has the element type of what it replaces, because a node may ask for one type in several
        inputs.
        """
        changed = {**edit.attributes, **dict.fromkeys(edit.drop)}
        kept = [attribute for attribute in proto.attribute if attribute.name not in changed]
        del proto.attribute[:]
        proto.attribute.extend(kept)
        proto.attribute.extend(helper.make_attribute(n, v) for n, v in edit.attributes.items())
        for index, array in edit.inputs.items():
            proto.input.extend([""] * (index + 1 - len(proto.input)))
            old = proto.input[index]
            if old in self.facts.types and edit.op_type is None:
                element = self.facts.types[old].tensor_type.elem_type
                array = array.astype(helper.tensor_dtype_to_np_dtype(element))
            own = self.constants.add(f"{old or node.name}_pruned", array)
            self.facts.set_constant(own.name, own)
            proto.input[index] = own.name
        if edit.op_type is not None:
            proto.op_type = edit.op_type
            del proto.input[max(edit.inputs, default=len(proto.input) - 1) + 1 :]

    def _compare(self, node: Node) -> None:
        for name in node.outputs:
            predicted, found = self._predicted(name), self.facts.shape(name)
            if found is None and name in self.graph.facts.supposed:
                continue  # its reader supposes a shape when it is followed
            if name and predicted is not None and found != predicted:
                if self.graph.facts.counts.get(name) or node.name in self._following:
                    self._resized.add(name)
                    continue
                raise SurgeryError(
                    f"{node}: output '{name}' should have shape {dims(predicted)}, ONNX infers "
                    f"{dims(found)}; does operator {node.op_type} restate a channel count?"
                )

    def _drop_resized(self) -> None:
        """Remove the nodes that worked out what was stated anew from numbers of channels."""
        kept = {*self.graph.outputs, *(n for node in self.graph.nodes for n in node.captures)}
        for node in reversed(self.graph.nodes):
            if (
                node.nested
                or node.border
                or self._resized.isdisjoint((*node.inputs, *node.outputs))
            ):
                continue
            read = kept.union(*(p.input for body in open_bodies(self.model) for p in body.node))
            if self.constants.has(node) and read.isdisjoint(node.outputs):
                self.constants.remove(node)

    def _is_sound(self, value: ValueInfoProto) -> bool:
        """Say whether what the model declares of a tensor agrees with the analysis."""
        known, kind = self.graph.shape(value.name), value.type.tensor_type
        if known is None or not kind.HasField("shape"):
            return True
        declared = kind.shape.dim
        return len(declared) == len(known) and all(
            dim.dim_value == n
            for dim, n in zip(declared, known, strict=True)
            if dim.HasField("dim_value")
        )

    def _declare(self) -> None:
        """Correct the sizes that the model declares for its cut tensors; drop what is not true."""
        for body in open_bodies(self.model):
            sound = [value for value in body.value_info if self._is_sound(value)]
            del body.value_info[:]
            body.value_info.extend(sound)
            for value in (*body.value_info, *body.input, *body.output):
                if value.type.HasField("tensor_type"):
                    _resize(value, self.groups.sizes(value.name, self.dead))


def _resize(value: ValueInfoProto, sizes: Mapping[int, int]) -> None:
    declared = value.type.tensor_type.shape.dim
    for axis, size in sizes.items():
        if axis < len(declared) and declared[axis].HasField("dim_value"):
            declared[axis].dim_value = size
