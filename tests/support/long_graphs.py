"""Graphs of any size, each large in another way; `n` is about the number of nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

node = helper.make_node


def _weight(name: str, *shape: int) -> TensorProto:
    return numpy_helper.from_array(np.ones(shape, np.float32), name)


def _ints(name: str, *values: int) -> TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def _model(nodes: Iterable[NodeProto], weights: Sequence[TensorProto], *outputs: str) -> ModelProto:
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])
    made = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", None, 8, 8])
        for name in outputs
    ]
    first = node("Conv", ["x", "w"], ["t0"])
    graph = helper.make_graph(
        [first, *nodes], "g", [image], made, [_weight("w", 4, 3, 1, 1), *weights]
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def _closed(nodes: list[NodeProto], weights: list[TensorProto], last: str) -> ModelProto:
    """A model with a convolution behind its nodes."""
    end = node("Conv", [last, "v"], ["y"])
    return _model([*nodes, end], [*weights, _weight("v", 2, 4, 1, 1)], "y")


def relus(n: int) -> ModelProto:
    """A chain of activations."""
    return _closed([node("Relu", [f"t{k}"], [f"t{k + 1}"]) for k in range(n)], [], f"t{n}")


def convolutions(n: int) -> ModelProto:
    """A chain of convolutions."""
    nodes = [node("Conv", [f"t{k}", f"w{k}"], [f"t{k + 1}"]) for k in range(n)]
    return _model(nodes, [_weight(f"w{k}", 4, 4, 1, 1) for k in range(n)], f"t{n}")


def grouped(n: int) -> ModelProto:
    """A chain of grouped convolutions."""
    nodes = [node("Conv", [f"t{k}", f"w{k}"], [f"t{k + 1}"], group=2) for k in range(n)]
    return _model(nodes, [_weight(f"w{k}", 4, 2, 1, 1) for k in range(n)], f"t{n}")


def residuals(n: int) -> ModelProto:
    """A chain of residual blocks of a convolution each."""
    nodes = []
    for k in range(n // 2):
        nodes.append(node("Conv", [f"t{k}", f"w{k}"], [f"c{k}"]))
        nodes.append(node("Add", [f"c{k}", f"t{k}"], [f"t{k + 1}"]))
    weights = [_weight(f"w{k}", 4, 4, 1, 1) for k in range(n // 2)]
    return _closed(nodes, weights, f"t{n // 2}")


def constants(n: int) -> ModelProto:
    """Constant nodes that nobody reads."""
    nodes = [node("Constant", [], [f"k{k}"], value=_weight("", 1)) for k in range(n)]
    return _closed(nodes, [], "t0")


def concat(n: int) -> ModelProto:
    """A Concat of many tensors."""
    nodes = [node("Relu", ["t0"], [f"r{k}"]) for k in range(n)]
    nodes.append(node("Concat", [f"r{k}" for k in range(n)], ["c"], axis=1))
    return _model([*nodes, node("ReduceMean", ["c"], ["y"], axes=[1])], [], "y")


def repeated(n: int) -> ModelProto:
    """A Concat of one tensor, many times."""
    nodes = [node("Concat", ["t0"] * n, ["c"], axis=1)]
    return _model([*nodes, node("ReduceMean", ["c"], ["y"], axes=[1])], [], "y")


def split(n: int) -> ModelProto:
    """A Split into many tensors."""
    nodes = [
        node("Conv", ["t0", "wide"], ["t1"]),
        node("Split", ["t1"], [f"s{k}" for k in range(n)], axis=1),
        node("Conv", ["s0", "v"], ["y"]),
    ]
    return _model(nodes, [_weight("wide", n, 4, 1, 1), _weight("v", 2, 1, 1, 1)], "y")


def unknown(n: int) -> ModelProto:
    """A node of an operator that nobody knows, with many outputs."""
    nodes = [node("Own", ["t0"], [f"s{k}" for k in range(n)], domain="own")]
    return _closed(nodes, [], "s0")


def outputs(n: int) -> ModelProto:
    """A model with many outputs."""
    return _model(
        [node("Relu", ["t0"], [f"y{k}"]) for k in range(n)], [], *(f"y{k}" for k in range(n))
    )


def total(n: int) -> ModelProto:
    """A sum of many convolutions."""
    nodes = [node("Conv", ["x", f"w{k}"], [f"c{k}"]) for k in range(n)]
    nodes.append(node("Sum", [f"c{k}" for k in range(n)], ["y"]))
    return _model(nodes, [_weight(f"w{k}", 4, 3, 1, 1) for k in range(n)], "y")


def shared(n: int) -> ModelProto:
    """A vector that all nodes read."""
    nodes = [node("Add", [f"t{k}", "b"], [f"t{k + 1}"]) for k in range(n)]
    return _closed(nodes, [_weight("b", 4, 1, 1)], f"t{n}")


def shuffles(n: int) -> ModelProto:
    """A chain of channel shuffles."""
    nodes = []
    for k in range(n // 4):
        nodes.append(node("Reshape", [f"t{k}", "five"], [f"a{k}"]))
        nodes.append(node("Transpose", [f"a{k}"], [f"b{k}"], perm=[0, 2, 1, 3, 4]))
        nodes.append(node("Reshape", [f"b{k}", "four"], [f"c{k}"]))
        nodes.append(node("Conv", [f"c{k}", f"w{k}"], [f"t{k + 1}"]))
    weights = [_weight(f"w{k}", 4, 4, 1, 1) for k in range(n // 4)]
    forms = [_ints("five", 0, 2, 2, 8, 8), _ints("four", 0, 4, 8, 8)]
    return _closed(nodes, [*forms, *weights], f"t{n // 4}")


def shapes(n: int) -> ModelProto:
    """A chain of Reshapes to shapes that are worked out."""
    nodes = []
    for k in range(n // 3):
        nodes.append(node("Shape", [f"t{k}"], [f"a{k}"]))
        nodes.append(node("Reshape", [f"t{k}", f"a{k}"], [f"b{k}"]))
        nodes.append(node("Relu", [f"b{k}"], [f"t{k + 1}"]))
    return _closed(nodes, [], f"t{n // 3}")


GRAPHS: dict[str, Callable[[int], ModelProto]] = {
    one.__name__: one
    for one in (
        *(relus, convolutions, grouped, residuals, constants, concat, repeated, split, unknown),
        *(outputs, total, shared, shuffles, shapes),
    )
}
