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

import numpy as np
from onnx import ModelProto, NodeProto, ValueInfoProto, helper

from onnxprune.arrays import BoolArray, Kept, dims
from onnxprune.channels import ChannelGroups, Shuffle, find_shuffles
from onnxprune.errors import SurgeryError
from onnxprune.graph import Facts, Graph, Shape, Weights, fill, start_facts
from onnxprune.ops import Edit, Node, PrunedSite, as_gather, node_of
from onnxprune.surgery.editor import Constants, cut_model
from onnxprune.surgery.masking import _refuse


def prune(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> ModelProto:
    """Return the model without the `dead` channels.

    Shapes: dead `[channels]`.
    Raises: InvalidPlan when a channel must stay or an axis would be emptied; SurgeryError when the
    result is not the predicted one.
    """
    return fill(*prune_apart(graph, groups, dead))


def prune_apart(graph: Graph, groups: ChannelGroups, dead: BoolArray) -> tuple[ModelProto, Weights]:
    """Return what `prune` returns with its large weights apart, for `save_model`.

    Shapes: dead `[channels]`.
    Raises: what `prune` raises.
    """
    _refuse(groups, dead)
    if not dead.any():
        return cut_model(graph, {})
    return _Surgery(graph, groups, dead).run()


@dataclass
class _Surgery:
    graph: Graph
    groups: ChannelGroups
    dead: BoolArray
    model: ModelProto = field(init=False)
    _known: dict[str, Kept] = field(default_factory=dict)

    def run(self) -> tuple[ModelProto, Weights]:
        self.model, apart = cut_model(self.graph, self._cuts())
        self._declare()
        constants = Constants(self.graph, self.model)
        facts = start_facts(self.model, self.graph.input_shapes)
        written = {run.last.name: run for run in self._cut_runs()}
        spent = {node.name for run in written.values() for node in run.nodes[:-1]}
        for before in filter(constants.has, self.graph.nodes):
            proto = before.proto if before.nested else constants.proto(before)
            if before.name in spent:
                constants.remove(before)
                continue
            if before.name in written:
                self._write_out(written[before.name], proto, facts, constants)
            elif self._touched(before, proto, facts):
                self._restate(before, proto, facts, constants)
            facts.follow(node_of(proto, self.graph.opsets, name=before.name))
            self._compare(before, facts)
        constants.drop_unread()
        return self.model, apart

    def _cuts(self) -> dict[str, Kept]:
        """What is kept of each constant that is cut, and of each vector that is shared no more."""
        cuts = {}
        for name in self.graph.constant_tensors:
            kept, base = self._kept(name), self.graph.aliases.get(name)
            if kept if base is None else not _same(kept, self._kept(base)):
                cuts[name] = kept
        return cuts

    def _cut_runs(self) -> list[Shuffle]:
        return [run for run in find_shuffles(self.graph).found if self._kept(run.source)]

    def _write_out(
        self, run: Shuffle, proto: NodeProto, facts: Facts, constants: Constants
    ) -> None:
        """Make the last node of a run take what is left, in the run's order, from its source."""
        alive = self._kept(run.source).get(run.axis)
        if alive is None:
            alive = np.ones(run.taken.max() + 1, np.bool_)
        proto.input[0] = run.source
        _apply(as_gather(run.last, run.axis, run.taken, alive), run.last, proto, facts, constants)

    def _kept(self, name: str) -> Kept:
        if name not in self._known:
            self._known[name] = self.groups.kept(name, self.dead)
        return self._known[name]

    def _touched(self, node: Node, proto: NodeProto, facts: Facts) -> bool:
        """Say whether a node's tensors are cut, or a value that it is told has changed."""
        if any(self._kept(name) for name in (*node.inputs, *node.outputs) if name):
            return True
        told = self.graph.facts.values
        return any(
            name in told and not np.array_equal(told[name], facts.values.get(new, told[name]))
            for name, new in zip(node.inputs, proto.input, strict=True)
        )

    def _predicted(self, name: str) -> Shape | None:
        shape = self.graph.shape(name)
        if shape is None:
            return None
        kept = self._kept(name)
        return tuple(int(kept[k].sum()) if k in kept else n for k, n in enumerate(shape))

    def _restate(self, node: Node, proto: NodeProto, facts: Facts, constants: Constants) -> None:
        if node.op is None or node.op.restate is None:
            return
        edit = node.op.restate(self._site(node, proto, facts))
        if edit is not None:
            _apply(edit, node, proto, facts, constants)

    def _site(self, node: Node, proto: NodeProto, facts: Facts) -> PrunedSite:
        before = self.graph.site(node)
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

    def _compare(self, node: Node, facts: Facts) -> None:
        for name in node.outputs:
            predicted, found = self._predicted(name), facts.shape(name)
            if name and predicted is not None and found != predicted:
                raise SurgeryError(
                    f"{node}: output '{name}' should have shape {dims(predicted)}, ONNX infers "
                    f"{dims(found)}; does operator {node.op_type} restate a channel count?"
                )

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
        graph = self.model.graph
        sound = [value for value in graph.value_info if self._is_sound(value)]
        del graph.value_info[:]
        graph.value_info.extend(sound)
        for value in (*graph.value_info, *graph.input, *graph.output):
            kept = self._kept(value.name)
            if kept and value.type.HasField("tensor_type"):
                _resize(value, {axis: int(alive.sum()) for axis, alive in kept.items()})


def _resize(value: ValueInfoProto, sizes: Mapping[int, int]) -> None:
    declared = value.type.tensor_type.shape.dim
    for axis, size in sizes.items():
        if axis < len(declared) and declared[axis].HasField("dim_value"):
            declared[axis].dim_value = size


def _same(one: Kept, other: Kept) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(one[axis], other[axis]) for axis in one
    )


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
