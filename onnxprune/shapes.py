"""Shapes and small values of every tensor, node by node, without running the model.

ONNX's own inference gives each node's output types from its input types. Where all inputs of a
node are known (shape arithmetic around a Flatten, say) the node is evaluated by ONNX's reference
implementation, and what it yields is known too. Nothing is written back: the user's graph keeps
its dynamic axes and its arithmetic.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from onnxprune.node import Node

logger = logging.getLogger(__name__)

Shape = tuple[int, ...]
Array = npt.NDArray[Any]

SMALL = 1024
"""Elements; larger tensors are never shape arithmetic, their values are not followed."""

KEEPS_SHAPE = frozenset({"GroupNormalization"})
"""Operators whose schema infers nothing, and whose output is like their first input."""

RANDOM = frozenset({"RandomNormal", "RandomUniform", "Multinomial", "Bernoulli", "Dropout"})


@dataclass
class Facts:
    """What is known of each tensor so far; `follow` adds one node.

    `counts[t]` names the tensors whose shape went into the known value of t.
    """

    opsets: Mapping[str, int]
    ir_version: int
    declared: Mapping[str, TypeProto] = field(default_factory=dict)
    types: dict[str, TypeProto] = field(default_factory=dict)
    values: dict[str, Array] = field(default_factory=dict)
    counts: dict[str, frozenset[str]] = field(default_factory=dict)

    def shape(self, name: str) -> Shape | None:
        """Return the static shape of a tensor, or None where it is not known."""
        kind = self.types.get(name)
        if kind is None or not kind.HasField("tensor_type"):
            return None
        if not kind.tensor_type.HasField("shape"):
            return None
        dims = kind.tensor_type.shape.dim
        if not all(dim.HasField("dim_value") for dim in dims):
            return None
        return tuple(dim.dim_value for dim in dims)

    def set_input(self, name: str, element: int, shape: Iterable[int]) -> None:
        """Record a graph input with its analysis shape."""
        self.types[name] = helper.make_tensor_type_proto(element, tuple(shape))

    def set_constant(self, name: str, tensor: onnx.TensorProto) -> None:
        """Record an initializer."""
        self.types[name] = helper.make_tensor_type_proto(tensor.data_type, tuple(tensor.dims))
        if np.prod(tensor.dims, dtype=np.int64) <= SMALL:
            self.values[name] = numpy_helper.to_array(tensor)
            self.counts[name] = frozenset()

    def follow(self, node: Node) -> None:
        """Record the outputs of `node`, whose inputs are already recorded."""
        for name, kind in self._infer(node).items():
            self.types[name] = kind
        for name in node.outputs:
            if name and self.shape(name) is None and name in self.declared:
                self.types[name] = self.declared[name]
        self._evaluate(node)

    def _infer(self, node: Node) -> Mapping[str, TypeProto]:
        if node.schema is None or node.captures:
            return {}
        present = [name for name in node.inputs if name]
        if any(name not in self.types for name in present):
            return {}
        if node.op_type in KEEPS_SHAPE and not node.domain:
            return {node.outputs[0]: self.types[node.inputs[0]]}
        known = {n: numpy_helper.from_array(self.values[n]) for n in present if n in self.values}
        try:
            return infer_node_outputs(
                node.schema,
                node.proto,
                {name: self.types[name] for name in present},
                known,
                opset_imports=[helper.make_opsetid(d, v) for d, v in self.opsets.items()],
                ir_version=self.ir_version,
            )
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
            logger.debug("%s: no shape: %s", node, error)
            return {}

    def _evaluate(self, node: Node) -> None:
        if node.domain or node.op_type in RANDOM or node.captures or node.schema is None:
            return
        if node.op_type in ("Shape", "Size"):
            shape = self.shape(node.inputs[0])
            if shape is not None:
                self._set_value(node.outputs[0], _shape_value(node, shape), node.inputs)
            return
        sizes = [self.shape(name) for name in node.outputs if name]
        if any(size is None or np.prod(size) > SMALL for size in sizes):
            return
        present = [name for name in node.inputs if name]
        if any(name not in self.values for name in present):
            return
        try:
            results = self._run(node, present)
        except (TypeError, ValueError, RuntimeError, LookupError) as error:
            logger.debug("%s: no value: %s", node, error)
            return
        sources = frozenset[str]().union(*(self.counts[name] for name in present))
        for name, value in zip(filter(None, node.outputs), results, strict=True):
            self._set_value(name, np.asarray(value), sources)

    def _run(self, node: Node, present: Iterable[str]) -> list[Array]:
        """Evaluate one node by ONNX's reference, in the model's own opset.

        In a graph: given a bare node, the evaluator takes the newest opset.
        """
        graph = onnx.GraphProto(node=[node.proto])
        graph.input.extend(onnx.ValueInfoProto(name=name) for name in present)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.outputs if name)
        evaluator = ReferenceEvaluator(graph, opsets={"": 1, **self.opsets})
        feeds = {name: self.values[name] for name in present}
        return list(evaluator.run(None, feeds))

    def _set_value(self, name: str, value: Array, sources: Iterable[str]) -> None:
        self.values[name] = value
        self.counts[name] = frozenset(sources)


def _shape_value(node: Node, shape: Shape) -> Array:
    if node.op_type == "Size":
        return np.array(int(np.prod(shape)), np.int64)
    start, end = node.attributes.get("start", 0), node.attributes.get("end", len(shape))
    return np.array(shape[start:end], np.int64)
