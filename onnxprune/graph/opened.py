"""Graphs that nodes hold, opened: their nodes are nodes of the graph around them.

The branches of an If and the bodies of Loop and Scan are graphs of their own. What crosses the
border of an opened graph is a node of its own (`onnxprune.ops.Border`): an output of an If is a
choice between what its branches make; what goes into a body and comes out of it stays as it is.
That needs names that are unique in the whole model, and weights that stand in the graph itself; a
model whose branches and bodies have others is copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from onnx import GraphProto, ModelProto, NodeProto

from onnxprune.graph.copies import copied
from onnxprune.graph.order import with_subgraphs
from onnxprune.ops import Border, Held, Node, node_of, subgraphs

INITIALIZERS_APART = 4
"""The first IR version in which an initializer need not be an input of the graph."""

FIRST_SCAN = 9
"""The first opset in which a Scan does not see the batch."""

GIVEN = {"Loop": 2, "Scan": 0}
"""Operators that run a body, and how many inputs the runtime gives it: the number of the run, and
whether to go on."""


def open_bodies(model: ModelProto) -> Iterator[GraphProto]:
    """Yield the graph of a model, and every graph that is opened."""
    found = [model.graph]
    for body in found:
        yield body
        found += [inner for node in body.node for inner in open_graphs(model, node)]


def open_graphs(model: ModelProto, node: NodeProto) -> list[GraphProto]:
    """Return the graphs of a node that are opened: branches, or a body."""
    return open_branches(model, node) or _open_body(model, node)


def open_branches(model: ModelProto, node: NodeProto) -> list[GraphProto]:
    """Return the branches of a node, the first one first, if it is an If that is opened."""
    if node.op_type != "If" or not _may_open(model, node):
        return []
    held = {attribute.name: attribute.g for attribute in node.attribute}
    branches = [held[name] for name in ("then_branch", "else_branch") if name in held]
    fits = all(_is_branch(branch, node) for branch in branches)
    return branches if fits and len(branches) == 2 else []


def _open_body(model: ModelProto, node: NodeProto) -> list[GraphProto]:
    """The body of a Loop or a Scan that is opened."""
    bodies = [attribute.g for attribute in node.attribute if attribute.name == "body"]
    if node.op_type not in GIVEN or not _may_open(model, node) or len(bodies) != 1:
        return []
    body, given = bodies[0], GIVEN[node.op_type]
    inputs = {value.name for value in body.input}
    written = inputs | {name for inner in body.node for name in inner.output if name}
    fits = (
        len(body.input) == len(node.input)
        and len(body.output) == len(node.output) + given // 2
        and inputs.isdisjoint(tensor.name for tensor in body.initializer)
        and written.issuperset(value.name for value in body.output)
        and not body.sparse_initializer
    )
    return bodies if fits else []


def _may_open(model: ModelProto, node: NodeProto) -> bool:
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    new = node.op_type != "Scan" or opsets.get("", opsets.get("ai.onnx", 1)) >= FIRST_SCAN
    plain = not model.functions and model.ir_version >= INITIALIZERS_APART
    return new and plain and node.domain in ("", "ai.onnx")


def _is_branch(branch: GraphProto, node: NodeProto) -> bool:
    """Whether all that a branch returns is written by its own nodes."""
    written = {name for inner in branch.node for name in inner.output if name}
    plain = not branch.input and not branch.sparse_initializer
    returned = [value.name for value in branch.output]
    return plain and written.issuperset(returned) and len(returned) == len(node.output)


def opened_nodes(
    model: ModelProto, protos: Iterable[NodeProto], within: tuple[Held, ...] = ()
) -> Iterator[tuple[NodeProto, tuple[Held, ...], Border | None]]:
    """Yield nodes in order, those of opened graphs in place of what holds these.

    Each comes with the graphs that hold it, and with what it stands for where it is no node of the
    model.
    """
    for proto in protos:
        graphs = open_graphs(model, proto)
        first = next(filter(None, proto.output), proto.name)
        inside = [(*within, Held(first, k, proto.op_type == "If")) for k in range(len(graphs))]
        inner = (
            opened_nodes(model, graph.node, place)
            for graph, place in zip(graphs, inside, strict=True)
        )
        if not graphs:
            yield proto, within, None
        elif proto.op_type == "If":
            yield from chain.from_iterable(inner)
            for k, name in enumerate(proto.output):
                if name:
                    read = [proto.input[0], *(graph.output[k].name for graph in graphs)]
                    yield _border(proto, read, [name]), within, Border.CHOICE
        else:
            (body,) = graphs
            given, made = ([value.name for value in side] for side in (body.input, body.output))
            entry = _border(proto, proto.input, given)
            entry.name = ""
            yield entry, inside[0], Border.ENTRY
            yield from chain.from_iterable(inner)
            yield _border(proto, [*proto.input, *made], proto.output), within, Border.EXIT


def _border(proto: NodeProto, read: Iterable[str], made: Iterable[str]) -> NodeProto:
    """A node of that name and attributes which reads and makes something else."""
    kept = [attribute for attribute in proto.attribute if not attribute.HasField("g")]
    return NodeProto(
        op_type=proto.op_type, name=proto.name, input=read, output=made, attribute=kept
    )


def inner_nodes(node: Node, opsets: Mapping[str, int]) -> Iterator[Node]:
    """Yield the nodes of the graphs that a node holds, at any depth."""
    for held in subgraphs(node.proto):
        for body in with_subgraphs(held):
            yield from (node_of(proto, opsets) for proto in body.node)


def prepare_branches(model: ModelProto) -> ModelProto:
    """Return the model, or a copy in which branches have names and weights as described above."""
    main, *branches = open_bodies(model)
    names = [name for body in (main, *branches) for name in _own_names(body)]
    if len(names) == len(set(names)) and not any(branch.initializer for branch in branches):
        return model
    copy = copied(model)
    main, *branches = open_bodies(copy)
    taken = set(names)
    seen = set(_own_names(main))
    for branch in branches:
        new: dict[str, str] = {}
        for name in _own_names(branch):
            if name in seen:
                new[name] = next(
                    n for n in (f"{name}_{k}" for k in range(1 << 30)) if n not in taken
                )
                taken.add(new[name])
            seen.add(name)
        _rename(branch, new)
        main.initializer.extend(branch.initializer)
        del branch.initializer[:]
    return copy


def _own_names(body: GraphProto) -> Iterator[str]:
    yield from dict.fromkeys(value.name for value in (*body.input, *body.initializer))
    yield from (name for node in body.node for name in node.output if name)


def _rename(body: GraphProto, new: Mapping[str, str]) -> None:
    """Give tensors of a body other names, also where the graphs that its nodes hold read them."""
    if not new:
        return
    for node in body.node:
        for names in (node.input, node.output):
            for k, name in enumerate(names):
                names[k] = new.get(name, name)
        for inner in subgraphs(node):
            own = {*_own_names(inner)}
            _rename(inner, {name: to for name, to in new.items() if name not in own})
    for value in (*body.value_info, *body.input, *body.output, *body.initializer):
        value.name = new.get(value.name, value.name)
