"""A net that is mostly weights."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper


def wide_net(wide: int) -> ModelProto:
    """A net whose weights are in one kernel, which is computed at one place."""
    rng = np.random.default_rng(0)
    shapes = {"v": (wide, 3, 1, 1), "w": (wide, wide, 1, 1), "m": (4, wide)}
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape, np.float32) / wide, name)
        for name, shape in shapes.items()
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["p"]),
        helper.make_node("Conv", ["p", "v"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["b"]),
        helper.make_node("Flatten", ["b"], ["f"]),
        helper.make_node("Gemm", ["f", "m"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "wide", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
