"""Output types of a node that holds subgraphs (If, Loop, Scan), by ONNX's inference of a model.

Inference of one node alone knows nothing of the tensors that a subgraph reads from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import onnx
from onnx import GraphProto, TypeProto, ValueInfoProto, helper, numpy_helper

from onnxprune.node import Node


def infer_holder(
    node: Node,
    types: Mapping[str, TypeProto],
    values: Mapping[str, npt.NDArray[Any]],
    opset_imports: Sequence[onnx.OperatorSetIdProto],
) -> dict[str, TypeProto]:
    """Return the types of a node's outputs; axes that ONNX leaves open are left out.

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
