"""Pools over windows of all axes, as JAX has them, become pools over the axes that are pooled.

JAX pools windows of every axis, such as 1 x 2 x 2 x 1 of [N, H, W, C]. jax2onnx writes that as a
pool with four spatial axes behind two axes of 1, and a sum over windows as such a convolution with
ones: right ONNX, but onnxruntime pools three at most, and other runtimes convolve no more.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

POOLS = ("MaxPool", "AveragePool", "LpPool")
MOST = 3
"""Spatial axes that onnxruntime pools."""
FRONT = 2
"""Axes in front of the spatial ones, of samples and of channels."""
AXES_OPSET = 13
"""The first opset in which the axes of Squeeze are an input."""


def from_jax(model: ModelProto) -> ModelProto:
    """Return a model of jax2onnx as runtimes take it."""
    del model.graph.value_info[:]  # shapes of before its optimiser moved the axes
    return pool_few_axes(model)


def pool_few_axes(model: ModelProto) -> ModelProto:
    """Let pools of more than three axes pool those alone along which windows are larger than one.

    A pool whose windows are larger than one along too many axes stays as it is.
    """
    opset = next((one.version for one in model.opset_import if not one.domain), 1)
    if opset >= AXES_OPSET:
        _average_sums(model)
    wide = {node.output[0] for node in model.graph.node if len(_kernel(node)) > MOST}
    if not wide or opset < AXES_OPSET:
        return model
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {one.name: one.type.tensor_type.shape.dim for one in inferred.value_info}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        found = None
        if node.output[0] in wide:
            front = [dim.dim_value for dim in shapes.get(node.input[0], ())[:FRONT]]
            found = _over_few(node) if front == [1] * FRONT else None
        nodes += [node] if found is None else _moved(node, *found, model)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _average_sums(model: ModelProto) -> None:
    """Write convolutions over too many axes, of weights all alike, as averages times their sum."""
    known = {one.name: one for one in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        found = None
        if node.op_type == "Conv" and len(node.input) == FRONT and node.input[1] in known:
            found = _averaged(node, numpy_helper.to_array(known[node.input[1]]), model)
        nodes += found or [node]
    gone = {name for node in model.graph.node for name in node.input}
    gone -= {name for node in nodes for name in node.input}
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    for name in gone & known.keys():
        model.graph.initializer.remove(known[name])


def _averaged(
    node: NodeProto, weight: npt.NDArray[Any], model: ModelProto
) -> list[NodeProto] | None:
    """The average and the product that do what a convolution does, None where none do.

    Shapes: weight `[1, 1, *kernel]`.
    """
    kernel = weight.shape[FRONT:]
    told: dict[str, Any] = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if len(kernel) <= MOST or weight.shape[:FRONT] != (1, 1) or np.ptp(weight):
        return None
    if told.get("auto_pad", b"NOTSET") != b"NOTSET" or {*told.get("dilations", [1])} != {1}:
        return None
    if any(pad >= size for pad, size in zip(told.get("pads", ()), kernel * 2, strict=False)):
        return None
    (y,) = node.output
    kept = {name: told[name] for name in ("strides", "pads") if name in told}
    total = numpy_helper.from_array(np.asarray(weight.sum(), weight.dtype), f"{y}.total")
    model.graph.initializer.append(total)
    mean = f"{y}.mean"
    return [
        helper.make_node(
            "AveragePool",
            [node.input[0]],
            [mean],
            node.name,
            kernel_shape=kernel,
            count_include_pad=1,
            **kept,
        ),
        helper.make_node("Mul", [mean, total.name], [y], mean),
    ]


def _kernel(node: NodeProto) -> list[int]:
    """The sizes of a pool's windows, nothing of another node or of a pool that also says where."""
    if node.op_type not in POOLS or len(node.output) > 1:
        return []
    return next((list(one.ints) for one in node.attribute if one.name == "kernel_shape"), [])


def _over_few(node: NodeProto) -> tuple[list[int], dict[str, Any]] | None:
    """The order of the axes, with those pooled last, and the attributes of a pool over these."""
    found: dict[str, Any] = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if found.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    count = len(found["kernel_shape"])
    along: dict[str, list[int]] = {
        name: list(found.get(name, [usual] * count))
        for name, usual in (("kernel_shape", 1), ("strides", 1), ("dilations", 1))
    }
    pads = list(found.get("pads", [0] * (2 * count)))
    still = [
        along["kernel_shape"][k] == along["strides"][k] == 1 and not pads[k] + pads[count + k]
        for k in range(count)
    ]
    pooled = [k for k in range(count) if not still[k]]
    inner = [k for k in (*range(1, count - 1), count - 1, 0) if still[k]]
    spatial = sorted((pooled + inner)[: count - FRONT])
    if not set(pooled) <= set(spatial) or len(spatial) > MOST:
        return None
    kept = {name: [sizes[k] for k in spatial] for name, sizes in along.items()}
    kept["pads"] = [pads[start + k] for start in (0, count) for k in spatial]
    order = [k for k in range(count) if k not in spatial] + spatial
    return order, {name: kept.get(name, value) for name, value in found.items()}


def _moved(
    node: NodeProto, order: Sequence[int], attributes: Mapping[str, Any], model: ModelProto
) -> list[NodeProto]:
    """The nodes that pool without the two axes in front, with the others in that order."""
    (y,) = node.output
    few, moved, pooled, back = (f"{y}.{part}" for part in ("few", "moved", "pooled", "back"))
    axes = numpy_helper.from_array(np.arange(FRONT), f"{y}.axes")
    model.graph.initializer.append(axes)
    inverse = np.argsort(order).tolist()
    return [
        helper.make_node("Squeeze", [node.input[0], axes.name], [few], few),
        helper.make_node("Transpose", [few], [moved], moved, perm=order),
        helper.make_node(node.op_type, [moved], [pooled], node.name, **attributes),
        helper.make_node("Transpose", [pooled], [back], back, perm=inverse),
        helper.make_node("Unsqueeze", [back, axes.name], [y], f"{y}.whole"),
    ]
