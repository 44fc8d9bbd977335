"""Make synthetic networks of any length, to measure how the time of the analysis grows."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

WIDTH = 8
"""The channels of every tensor except the image and the concatenations."""


def chain(nodes: int, *, seed: int = 0) -> ModelProto:
    """Return a network of about `nodes` nodes, as a chain of blocks of nine nodes.

    A block is Conv-Relu-Conv-Add-Relu, a residual sum, then Conv-Relu-Concat-Conv, whose last
    convolution goes back to `WIDTH` channels.
    """
    rng = np.random.default_rng(seed)
    made: list[NodeProto] = []
    weights: list[TensorProto] = []

    def add(op_type: str, inputs: list[str], **attributes: int) -> str:
        name = f"{op_type.lower()}{len(made)}"
        made.append(helper.make_node(op_type, inputs, [name], name, **attributes))
        return name

    def conv(x: str, width: int = WIDTH) -> str:
        name = f"weight{len(weights)}"
        values = rng.normal(size=(WIDTH, width, 1, 1)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return add("Conv", [x, name])

    last = conv("x", 3)
    for _ in range(max(nodes // 9, 1)):
        branch = conv(add("Relu", [conv(last)]))
        last = add("Relu", [add("Add", [branch, last])])
        other = add("Relu", [conv(last)])
        last = conv(add("Concat", [other, last], axis=1), 2 * WIDTH)
    mean = add("GlobalAveragePool", [last])
    graph = helper.make_graph(
        made,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info(mean, TensorProto.FLOAT, ["batch", WIDTH, 1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model
