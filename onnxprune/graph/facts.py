"""Shapes and small values of every tensor, node by node, without running the model.

The type of an output is, in this order, what ONNX's shape inference says, what the model declares,
and what the operator's own forward returns. Where the values of all inputs are known, as in the
shape arithmetic around a Flatten, ONNX's reference implementation evaluates the node, and the
values of its outputs are known too. Nothing is written back: the user's graph keeps its dynamic
axes and its arithmetic.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import (
    GraphProto,
    ModelProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)
from onnx.shape_inference import infer_node_outputs

from onnxprune.arrays import dims
from onnxprune.errors import InvalidModel
from onnxprune.graph.borders import cross
from onnxprune.graph.inputs import DYNAMIC_SIZE, Shape, look
from onnxprune.graph.opened import open_bodies
from onnxprune.graph.reference import run_nodes
from onnxprune.graph.storage import first_line
from onnxprune.ops import Holds, Node, Op, Shapes, infer_outputs

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

INVALID = (
    onnx.shape_inference.InferenceError,
    onnx.checker.ValidationError,
    RuntimeError,
    ValueError,
)
"""What ONNX raises on a node that contradicts its schema."""

SMALL = 1024
"""Elements; a larger tensor is no shape arithmetic, and its values are not followed."""

MOST = 2**32
"""Elements of one tensor, of one image: 16 GB where they are float32."""

FLOATS = 16
"""Elements; a shape may depend on so many floating-point numbers (Resize's roi and scales)."""


@dataclass
class Facts:
    """What is known of each tensor so far; `follow` adds one node.

    `declared` are the types that the model states. `counts[t]` names the tensors whose shapes went
    into the known value of t. `symbols` are the sizes assumed for axes that the model leaves open,
    by the names that it gives them; heights and widths are `more` than usual. `supposed` are
    tensors of which nothing is known but what reads them, `unsure` those and all whose sizes follow
    from theirs.
    `unsteady` are states of loops that have no shape of their own, `changing` those that turned out
    so; `trips` is how often the body of a loop runs, where that is known, by its first output.
    `refused` are nodes whose inputs contradict each other, and what ONNX says of them.
    Shapes: `values[t]` is `shape(t)`.
    """

    opsets: Mapping[str, int]
    ir_version: int
    declared: Mapping[str, TypeProto] = field(default_factory=dict)
    symbols: Mapping[str, int] = field(default_factory=dict)
    batch: int = 1
    more: int = 0
    unsteady: frozenset[str] = frozenset()
    changing: set[str] = field(default_factory=set)
    trips: dict[str, int] = field(default_factory=dict)
    entered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    supposed: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, frozenset[str]] = field(default_factory=dict)
    _shapes: dict[str, tuple[TypeProto, Shape | None]] = field(default_factory=dict, repr=False)
    _near: dict[str, Shape] = field(default_factory=dict, repr=False)

    def shape(self, name: str) -> Shape | None:
        """Return the static shape of a tensor, or None where it is not known.

        Raises: InvalidModel for one that no runtime could hold.
        """
        kind = self.types.get(name)
        if kind is None:
            return None
        known = self._shapes.get(name)
        if known is None or known[0] is not kind:
            known = self._shapes[name] = (kind, _static_shape(kind))
            if math.prod(known[1] or ()) > MOST:
                raise InvalidModel(
                    f"tensor '{name}': has shape {dims(known[1])}, more than {MOST:,} elements; "
                    f"give smaller sizes, or export the model again"
                )
        return known[1]

    def set_input(self, name: str, element: int, shape: Iterable[int]) -> None:
        """Record a graph input with the shape that the analysis assumes."""
        self.types[name] = helper.make_tensor_type_proto(element, tuple(shape))

    def set_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        """Record an initializer."""
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, tuple(tensor.dims))
        if math.prod(tensor.dims) <= SMALL:
            self.values[name] = numpy_helper.to_array(tensor)
            self.counts[name] = frozenset()

    def follow(self, node: Node) -> None:
        """Record the outputs of `node`, whose inputs are already recorded.

        Raises: InvalidModel for a node that states more than memory holds.
        """
        op = node.op
        held = node.attributes.get("value")
        if op is not None and isinstance(op.how, Holds) and isinstance(held, onnx.TensorProto):
            self.set_constant(node.outputs[0], held)
            return
        if op is not None and op.filters:
            self._suppose(node, op)
        self.types.update(self._infer(node, op))
        unsure = not self.unsure.isdisjoint((*node.inputs, *node.captures))
        for name in filter(None, node.outputs):
            if name in self.declared and (unsure or self.shape(name) is None):
                self._declare(name, unsure)
            elif unsure:
                self.unsure.add(name)
        if op is not None and not node.border and self._unknown(node):
            kinds = [self.types.get(name) for name in node.inputs]
            values = [self.values.get(name) for name in node.inputs]
            self.types.update(infer_outputs(op, node, kinds, values))
        if self._unknown(node):
            self._note_near(node)
        if op is not None and not node.captures and node.schema is not None:
            self._evaluate(node, op)

    def _declare(self, name: str, unsure: bool) -> None:
        """Take what the model declares of a tensor, which is surer than what is supposed of it."""
        kind = self._resolve(self.declared[name])
        if not unsure or _static_shape(kind) is not None:
            self.types[name] = kind
        else:
            self.unsure.add(name)

    def _suppose(self, node: Node, op: Op) -> None:
        """Suppose a shape for what a convolution reads behind an operator that nobody knows.

        Its weight says how many axes and channels there are. The other sizes are those of what the
        unknown operator read, and other ones `elsewhere`, so that nothing is made to rest on them.
        """
        name, weight = node.inputs[0], self.types.get(node.inputs[op.weights[0]])
        held = None if weight is None else _static_shape(weight)
        if self.shape(name) is not None or weight is None or not held or len(held) < 2:
            return
        near = self._near.get(name, ())
        if len(near) == len(held):
            sizes = [near[0], *(n + self.more for n in near[1:])]
        else:
            sizes = [self.batch, *(DYNAMIC_SIZE + self.more for _ in held[1:])]
        sizes[1] = op.channels_read(held, node.attributes.get("group", 1))
        declared = self.types[name].tensor_type.shape.dim if name in self.types else ()
        if len(declared) == len(sizes):
            sizes = [
                dim.dim_value if dim.HasField("dim_value") else n
                for dim, n in zip(declared, sizes, strict=True)
            ]
        self.set_input(name, weight.tensor_type.elem_type, sizes)
        self.supposed.add(name)
        self.unsure.add(name)

    def _note_near(self, node: Node) -> None:
        """Remember the shape of what went into a tensor of which no shape is known."""
        read = (self.shape(name) or self._near.get(name) for name in node.inputs if name)
        near = next(filter(None, read), None)
        if near is not None:
            self._near |= {n: near for n in node.outputs if n and self.shape(n) is None}

    def _unknown(self, node: Node) -> bool:
        return any(name and self.shape(name) is None for name in node.outputs)

    def _infer(self, node: Node, op: Op | None) -> Mapping[str, TypeProto]:
        """The types that ONNX's shape inference finds, or none."""
        if node.border:
            return cross(node, self)
        if node.schema is None:
            return {}
        present = [name for name in node.inputs if name]
        if any(name not in self.types for name in present):
            return {}
        if op is not None and op.keeps_shape:
            return {node.outputs[0]: self.types[node.inputs[0]]}
        known = {
            name: numpy_helper.from_array(self.values[name])
            for name in present
            if name in self.values and _may_tell_shape(self.values[name])
        }
        try:
            if node.captures:
                found = _infer_with_subgraphs(node, self.types, self.values, self._opset_imports)
                return {name: self._resolve(kind) for name, kind in found.items()}
            return infer_node_outputs(
                node.schema,
                node.proto,
                {name: self.types[name] for name in present},
                known,
                opset_imports=self._opset_imports,
                ir_version=self.ir_version,
            )
        except INVALID as error:
            logger.debug("%s: no shape: %s", node, error)
            self.refused[node.name] = first_line(error)
            return {}
        except MemoryError as error:
            raise InvalidModel(
                f"{node}: states more than memory holds; export the model again"
            ) from error

    @cached_property
    def _opset_imports(self) -> list[onnx.OperatorSetIdProto]:
        return [helper.make_opsetid(domain, v) for domain, v in self.opsets.items()]

    def _resolve(self, declared: TypeProto) -> TypeProto:
        """A declared type with the sizes assumed for its open axes, where these have names."""
        kind = TypeProto()
        kind.CopyFrom(declared)
        for dim in kind.tensor_type.shape.dim:
            if dim.dim_param in self.symbols:
                dim.dim_value = self.symbols[dim.dim_param]
        return kind

    def _evaluate(self, node: Node, op: Op) -> None:
        """Record the values of the outputs where all that the node reads is known."""
        sizes = [self.shape(name) for name in node.outputs if name]
        if any(size is None or math.prod(size) > SMALL for size in sizes):
            return
        present = [name for name in node.inputs if name]
        if isinstance(op.how, Shapes):
            shapes = [self.shape(name) for name in present]
            if None in shapes:
                return
            feeds = {
                n: np.broadcast_to(np.uint8(0), s or ())
                for n, s in zip(present, shapes, strict=True)
            }
            sources = frozenset(present)
        elif all(name in self.values for name in present):
            feeds = {name: self.values[name] for name in present}
            sources = frozenset[str]().union(*(self.counts[name] for name in present))
        else:
            return
        try:
            results = self.run(node, feeds)
        except ValueError as error:
            logger.debug("%s: no value: %s", node, error)
            return
        for name, value in zip(filter(None, node.outputs), results, strict=True):
            self.values[name], self.counts[name] = np.asarray(value), sources

    def run(self, node: Node, feeds: Mapping[str, Array]) -> list[Array]:
        """Evaluate one node by ONNX's reference implementation, in the model's own opset.

        Shapes: as the operator's schema says, one array for each output that has a name.
        Raises: ValueError, whatever goes wrong.
        """
        outputs = [name for name in node.outputs if name]
        return run_nodes([node.proto], outputs, feeds, self.opsets)


def start_facts(
    model: ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    batch: int = 1,
    more: int = 0,
    unsteady: frozenset[str] = frozenset(),
) -> Facts:
    """Return what is known before the first node: inputs, initializers, declared types.

    An open axis of an input has the size that `input_shapes` gives; else the first is 1 long, any
    other `DYNAMIC_SIZE`. The first is taken `batch` times, the others are `more`. `unsteady` are
    states of loops whose shapes change.
    """
    shapes, symbols = look(model.graph, input_shapes or {}, batch=batch, more=more)
    facts = Facts(
        opsets={entry.domain: entry.version for entry in model.opset_import},
        ir_version=model.ir_version,
        declared={
            value.name: value.type
            for body in open_bodies(model)
            for value in (*body.value_info, *body.output)
        },
        symbols=symbols,
        batch=batch,
        more=more,
        unsteady=unsteady,
    )
    for tensor in model.graph.initializer:
        facts.set_constant(tensor.name, tensor)
    for value in model.graph.input:
        if value.name in shapes:
            facts.set_input(value.name, value.type.tensor_type.elem_type, shapes[value.name])
    return facts


def _infer_with_subgraphs(
    node: Node,
    types: Mapping[str, TypeProto],
    values: Mapping[str, npt.NDArray[Any]],
    opset_imports: Sequence[onnx.OperatorSetIdProto],
) -> dict[str, TypeProto]:
    """The types of the outputs of a node with subgraphs, which read tensors of the graph around it.

    Raises: onnx.shape_inference.InferenceError where the node contradicts itself.
    """
    graph = GraphProto(name="one node", node=[node.proto])
    for name in dict.fromkeys((*node.inputs, *node.captures)):
        if name in values:
            graph.initializer.append(numpy_helper.from_array(values[name], name))
        elif name in types:
            graph.input.append(ValueInfoProto(name=name, type=types[name]))
    graph.output.extend(ValueInfoProto(name=name) for name in node.outputs if name)
    model = helper.make_model(graph, opset_imports=opset_imports, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    return {v.name: v.type for v in inferred.graph.output if v.type.HasField("tensor_type")}


def _static_shape(kind: TypeProto) -> Shape | None:
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    found = kind.tensor_type.shape.dim
    if not all(dim.HasField("dim_value") for dim in found):
        return None
    sizes = tuple(dim.dim_value for dim in found)
    return None if any(n < 0 for n in sizes) else sizes


def _may_tell_shape(value: Array) -> bool:
    return value.dtype.kind in "iub" or value.size <= FLOATS
