"""Operators that an exporter leaves in a model as its framework calls them, in those of ONNX.

tf2onnx knows no GELU: it leaves TensorFlow Lite's, and the Erfc that TensorFlow computes it with.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

Steps = list[tuple[str, str, str]]
"""Operator, first and second input. An input is the node's `x`, a constant, or `@` and a step."""

PREFIX = "onnxprune_"
CONSTANTS = {
    "one": 1.0,
    "half": 0.5,
    "root": 0.5**0.5,
    "cubic": 0.044715,
    "scale": (2 / np.pi) ** 0.5,
}
ERFC: Steps = [("Erf", "x", ""), ("Sub", "one", "@0")]
GELU: Steps = [
    ("Mul", "x", "root"),
    ("Erf", "@0", ""),
    ("Add", "@1", "one"),
    ("Mul", "x", "@2"),
    ("Mul", "@3", "half"),
]
GELU_BY_TANH: Steps = [
    ("Mul", "x", "x"),
    ("Mul", "@0", "x"),
    ("Mul", "@1", "cubic"),
    ("Add", "x", "@2"),
    ("Mul", "@3", "scale"),
    ("Tanh", "@4", ""),
    ("Add", "@5", "one"),
    ("Mul", "x", "@6"),
    ("Mul", "@7", "half"),
]
"""An operator that reads one input, step by step."""


def _gelu(node: NodeProto) -> Steps:
    stated = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    return GELU_BY_TANH if stated.get("approximate") else GELU


WRITTEN: Mapping[str, Callable[[NodeProto], Steps]] = {
    "Erfc": lambda node: ERFC,
    "TFL_GELU": _gelu,
}


def in_onnx(model: ModelProto) -> None:
    """Write what ONNX does not have in operators that it has, where it is known how.

    Numbers are 32-bit floats; a model that computes this in others is refused when it is checked.
    """
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        nodes += _written(node) if node.op_type in WRITTEN else [node]
    if len(nodes) > len(model.graph.node):
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        for name, number in CONSTANTS.items():
            tensor = numpy_helper.from_array(np.asarray(number, np.float32), PREFIX + name)
            if any(tensor.name in node.input for node in nodes):
                model.graph.initializer.append(tensor)


def _written(node: NodeProto) -> Iterator[NodeProto]:
    """The nodes that compute what a node does; the last one writes its output."""
    steps, output = WRITTEN[node.op_type](node), node.output[0]
    names = [f"{output}_{k}" for k in range(len(steps) - 1)] + [output]
    places = {"x": node.input[0], **{name: PREFIX + name for name in CONSTANTS}}
    places |= {f"@{k}": name for k, name in enumerate(names)}
    for k, (kind, *inputs) in enumerate(steps):
        read = [places[name] for name in inputs if name]
        yield helper.make_node(kind, read, names[k : k + 1], node.name and f"{node.name}_{k}")
