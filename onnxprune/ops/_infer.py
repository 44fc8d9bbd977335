"""Infer the shapes of a node's outputs by running the operator's forward, where ONNX cannot.

If ONNX has a schema for the operator, the inputs are arrays of zeros with stride 0, which take no
memory. Otherwise they are tensors on torch's meta device, which have a shape and a type, no values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, TypeProto, helper

from onnxprune.errors import MissingPackage
from onnxprune.ops._op import Op
from onnxprune.ops._torch import torch
from onnxprune.ops.node import Node

logger = logging.getLogger(__name__)


def infer_outputs(
    op: Op,
    node: Node,
    kinds: Sequence[TypeProto | None],
    values: Sequence[npt.NDArray[Any] | None],
) -> dict[str, TypeProto]:
    """Return the type and shape of each output of a node, or nothing if they cannot be inferred.

    `kinds` and `values` have an entry for each input. It is None for an input that the node leaves
    out, and for one whose type or value is not known.
    Shapes: `values[k]` has the shape that `kinds[k]` states.
    Raises: MissingPackage where only torch can tell, and it is not installed.
    """
    try:
        arguments = [
            None if not name else _argument(op, node, k, kinds[k], values[k])
            for k, name in enumerate(node.inputs)
        ]
        results = op(node, arguments)
    except MissingPackage:
        if node.schema is None:
            raise
        return {}
    except Exception as error:  # the forward may be anybody's
        logger.debug("%s: no shape from its forward: %s", node, error)
        return {}
    return {
        name: helper.make_tensor_type_proto(_element(result), tuple(result.shape))
        for name, result in zip(node.outputs, results, strict=False)
        if name
    }


def _argument(op: Op, node: Node, index: int, kind: TypeProto | None, value: Any) -> Any:
    """Return what the forward gets for an input: a parameter's value, else a tensor of zeros."""
    if op.annotation(index).startswith("Kind"):
        return None
    if op.is_parameter(index):
        if value is None:
            raise ValueError(f"input {index} is not known")
        return op.parameter(index, value)
    if kind is None:
        raise ValueError(f"the type of input {index} is not known")
    tensor = kind.tensor_type
    dtype = helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if not all(dim.HasField("dim_value") for dim in tensor.shape.dim):
        raise ValueError(f"the shape of input {index} is not known")
    if node.schema is not None:
        return np.broadcast_to(np.zeros((), dtype), sizes)
    return torch.empty(sizes, dtype=getattr(torch, dtype.name), device="meta")


def _element(result: Any) -> int:
    """Return ONNX's number for the element type of an array or a tensor."""
    name = str(result.dtype).removeprefix("torch.").upper()
    names = {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}
    return int(TensorProto.DataType.Value(names.get(name, name)))
