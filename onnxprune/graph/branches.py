"""The branches of an If, opened: their nodes are nodes of the graph around it.

Each output of an opened If is a choice between what its branches make. That needs names that are
unique in the whole model, and weights that stand in the graph itself; a model whose branches have
others is copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from onnx import GraphProto, ModelProto, NodeProto

from onnxprune.graph.order import with_subgraphs
from onnxprune.ops import Node, node_of, subgraphs

INITIALIZERS_APART = 4
"""The first IR version in which an initializer need not be an input of the graph."""


def open_bodies(model: ModelProto) -> Iterator[GraphProto]:
    """Yield the graph of a model, and the branches of each If that is opened."""
    found = [model.graph]
    for body in found:
        yield body
        found += [branch for node in body.node for branch in open_branches(model, node)]


def open_branches(model: ModelProto, node: NodeProto) -> list[GraphProto]:
    """Return the branches of a node, the first one first, if it is an If that is opened."""
    if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
        return []
    held = {attribute.name: attribute.g for attribute in node.attribute}
    branches = [held[name] for name in ("then_branch", "else_branch") if name in held]
    if model.functions or model.ir_version < INITIALIZERS_APART or len(branches) != 2:
        return []
    return branches if all(_may_open(branch, node) for branch in branches) else []


def _may_open(branch: GraphProto, node: NodeProto) -> bool:
    """Whether all that a branch returns is written by its own nodes."""
    written = {name for inner in branch.node for name in inner.output if name}
    plain = not branch.input and not branch.sparse_initializer
    returned = [value.name for value in branch.output]
    return plain and written.issuperset(returned) and len(returned) == len(node.output)


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
    copy = ModelProto()
    copy.CopyFrom(model)
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
    for value in (*body.value_info, *body.output, *body.initializer):
        value.name = new.get(value.name, value.name)
