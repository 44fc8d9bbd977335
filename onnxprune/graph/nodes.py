"""The nodes of a model as the analysis sees them.

Calls of model-local functions are replaced by the nodes of their bodies, what holds other graphs by
the nodes of these (`opened`).

Exporters store equal constants once: the biases of unrelated layers are one initializer as long as
they are equal. Such a vector must not tie its readers, so all but the first read it under an alias
of its own. The model keeps the one vector; a reader gets a copy when surgery gives it other
channels. Matrices and kernels stay shared, as a layer that is applied twice is meant to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from onnx import ModelProto, TensorProto, inliner
from onnx.checker import ValidationError

from onnxprune.errors import InvalidModel
from onnxprune.graph.opened import opened_nodes
from onnxprune.graph.storage import first_line, typed_shell
from onnxprune.ops import Node, node_of


def inlined_nodes(model: ModelProto, opsets: Mapping[str, int]) -> Iterator[Node]:
    """Yield the nodes of a model in order, with the bodies of functions in place of their calls.

    A node whose name is missing or taken is called by its first output. Nodes of a body are
    `nested`.
    """
    calls = {(function.domain, function.name) for function in model.functions}
    own = {
        name
        for node in model.graph.node
        if (node.domain, node.op_type) not in calls
        for name in node.output
        if name
    }
    flat = _inlined(model) if calls else model
    seen: set[str] = set()
    for proto, within, border in opened_nodes(model, flat.graph.node):
        name = proto.name
        if not name or name in seen:
            name = next((output for output in proto.output if output), proto.op_type)
        seen.add(name)
        nested = bool(calls) and not own.intersection(proto.output)
        node = replace(node_of(proto, opsets, name=name, nested=nested), within=within)
        yield replace(node, schema=None, border=border) if border else node


def _inlined(model: ModelProto) -> ModelProto:
    try:
        return inliner.inline_local_functions(typed_shell(model))
    except (ValidationError, RuntimeError, ValueError) as error:
        raise InvalidModel(
            f"graph '{model.graph.name}': its functions cannot be written out "
            f"({first_line(error)}); export it again"
        ) from error


def alias_vectors(
    nodes: Iterable[Node], tensors: Mapping[str, TensorProto]
) -> tuple[tuple[Node, ...], dict[str, str]]:
    """Return the nodes with aliases for shared vectors, and the vector behind each alias.

    Nodes of a function's body, which all calls share, keep what they read.
    """
    nodes = tuple(nodes)
    reads = Counter(name for node in nodes for name in node.inputs if name in tensors)
    shared = {name for name, n in reads.items() if n > 1 and _is_vector(tensors[name])}
    seen = {name for node in nodes if node.border for name in node.inputs}
    aliases: dict[str, str] = {}
    return tuple(_alias(node, shared, seen, aliases) for node in nodes), aliases


def _is_vector(tensor: TensorProto) -> bool:
    """Whether one axis, and no other, is longer than 1; 64-bit integers are indices and shapes."""
    return sum(n > 1 for n in tensor.dims) == 1 and tensor.data_type != TensorProto.INT64


def _alias(node: Node, shared: set[str], seen: set[str], aliases: dict[str, str]) -> Node:
    """The node with an alias for every shared vector that was read before; notes what it reads."""
    if node.nested or node.border or shared.isdisjoint(node.inputs):
        return node
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    for k, name in enumerate(node.inputs):
        if name in seen:
            proto.input[k] = f"{name}@{node.name}.{k}"
            aliases[proto.input[k]] = name
        elif name in shared:
            seen.add(name)
    return replace(node, proto=proto)
