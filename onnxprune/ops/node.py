"""One node of a graph, decoded: its attributes as Python values, its operator's version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any, NamedTuple

import onnx
from onnx import AttributeProto, GraphProto, NodeProto

from onnxprune.ops._op import Op, find_op
from onnxprune.ops.choice import CHOICE


class Border(Enum):
    """How values cross the border of an opened graph."""

    CHOICE = "choice"
    ENTRY = "entry"
    EXIT = "exit"


class Held(NamedTuple):
    """A graph that a node holds: the first output of that node, and which of its graphs it is.

    Of the branches of an If one runs; the body of a loop runs any number of times.
    """

    by: str
    number: int
    is_branch: bool


@dataclass(frozen=True)
class Node:
    """One node: its protobuf, a name that is unique in the graph, and its attributes decoded.

    `captures` are the outer tensors that its subgraphs read; `version` is the operator's
    since-version under the model's opset. A `nested` node is part of a model-local function.
    `within` are the opened graphs that hold it, the outermost first. A node of a `border` stands
    for what crosses that of an opened graph: a choice is an output of an If, which reads the
    condition and what each branch makes; what enters the body of a Loop or a Scan stands before
    its nodes, and what leaves it behind them.
    """

    proto: NodeProto
    name: str
    domain: str
    version: int
    schema: onnx.defs.OpSchema | None
    attributes: Mapping[str, Any]
    captures: tuple[str, ...] = ()
    nested: bool = False
    within: tuple[Held, ...] = ()
    border: Border | None = None

    @property
    def op_type(self) -> str:
        """The operator's name."""
        return self.proto.op_type

    @cached_property
    def op(self) -> Op | None:
        """The description of its operator, or None where there is none."""
        if self.border is not None:
            return CHOICE if self.border is Border.CHOICE else None
        return find_op(self.domain, self.op_type, self.version)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs; an empty name is an input left out."""
        return tuple(self.proto.input)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs; an empty name is an output left out."""
        return tuple(self.proto.output)

    def __str__(self) -> str:
        return f"{self.op_type} '{self.name}'"


def node_of(
    proto: NodeProto, opsets: Mapping[str, int], *, name: str = "", nested: bool = False
) -> Node:
    """Return the decoded view of one node."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    opset = opsets.get(domain, opsets.get("ai.onnx", 1) if not domain else 1)
    schema = None
    if onnx.defs.has(proto.op_type, domain):
        try:
            schema = onnx.defs.get_schema(proto.op_type, opset, domain)
        except onnx.defs.SchemaError:
            schema = None
    return Node(
        proto,
        name or proto.name or next((o for o in proto.output if o), ""),
        domain,
        schema.since_version if schema else opset,
        schema,
        {a.name: _decode(a) for a in proto.attribute if a.type != AttributeProto.GRAPH},
        tuple(captures(proto)),
        nested,
    )


def _decode(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS):
        return tuple(value)
    if attribute.type == AttributeProto.STRINGS:
        return tuple(v.decode("utf-8", "replace") for v in value)
    return value


def subgraphs(proto: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs that a node holds: the branches of an If, the body of a Loop."""
    for attribute in proto.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def captures(proto: NodeProto) -> list[str]:
    """Return the names that the subgraphs of a node read from outside of themselves."""
    found: dict[str, None] = {}
    for graph in subgraphs(proto):
        found.update(dict.fromkeys(_free_names(graph)))
    return list(found)


def _free_names(graph: GraphProto) -> Iterator[str]:
    bound = {value.name for value in (*graph.input, *graph.initializer)}
    bound.update(name for node in graph.node for name in node.output)
    for node in graph.node:
        yield from (name for name in (*node.input, *captures(node)) if name and name not in bound)
    yield from (value.name for value in graph.output if value.name not in bound)
