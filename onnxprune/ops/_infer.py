"""Output shapes where ONNX infers none: those of the operator's own forward.

It runs on arrays of zeros that take no memory, or, where ONNX has no schema for the operator, on
torch's meta device, where tensors have shapes and types and no values.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, TypeProto, helper

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
    """Return the types of a node's outputs; nothing where they depend on what is not known.

    Shapes: kinds and values, one for each input; None where it is left out or not known.
    """
    try:
        arguments = [
            None if not name else _argument(op, node, k, kinds[k], values[k])
            for k, name in enumerate(node.inputs)
        ]
        results = op(node, arguments)
    except Exception as error:  # the forward may be anybody's
        logger.debug("%s: no shape from its forward: %s", node, error)
        return {}
    return {
        name: helper.make_tensor_type_proto(_element(result), tuple(result.shape))
        for name, result in zip(node.outputs, results, strict=False)
        if name
    }


def _argument(op: Op, node: Node, index: int, kind: TypeProto | None, value: Any) -> Any:
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
    name = str(result.dtype).removeprefix("torch.").upper()
    names = {"FLOAT32": "FLOAT", "FLOAT64": "DOUBLE"}
    return int(TensorProto.DataType.Value(names.get(name, name)))
