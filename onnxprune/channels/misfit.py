"""Nodes whose inputs and attributes do not fit together.

Either the model is broken, or the network does not take the sizes at which it is looked at: those
assumed for what the model leaves open, or supposed behind an operator that onnxprune does not know.
"""

from __future__ import annotations

from onnxprune.arrays import dims
from onnxprune.channels.labels import Reason
from onnxprune.errors import InvalidModel, InvalidOp
from onnxprune.graph import Graph
from onnxprune.ops import STUMBLES, Axes, Misfit, Node, misfit, parse

MISFITS = (*STUMBLES, Misfit, InvalidOp)
"""What an operator raises on inputs that it does not take."""

CONTRIBUTED = "com.microsoft"
"""The domain of onnxruntime's own operators."""


def why_misfit(graph: Graph, node: Node, error: Exception) -> Reason:
    """Return why what a node reads stays, where sizes are only supposed or a branch is not taken.

    Raises: InvalidModel where they are not; the error itself where it is a mistake in the
    description of an operator that is neither ONNX's nor onnxruntime's.
    """
    if isinstance(error, InvalidOp) and node.schema is None and node.domain != CONTRIBUTED:
        raise error
    node = (error.node or node) if isinstance(error, Misfit) else node
    if not graph.facts.unsure.isdisjoint(node.inputs):
        return Reason(f"feeds {node}, whose input shape is not known", node.name)
    if any(held.is_branch for held in node.within):
        return Reason(f"feeds {node}, whose branch is not for inputs of these sizes", node.name)
    found = misfit(node, [graph.shape(name) or None for name in node.inputs], error)
    if graph.assumption:
        text = str(found).removesuffix("export the model again")
        raise InvalidModel(f"{text}{graph.assumption}") from error
    raise found from error


def check_sizes(graph: Graph, node: Node) -> None:
    """Refuse sizes that no output fits, such as a window larger than what it slides over.

    Raises: Misfit saying why.
    """
    if node.name in graph.facts.refused and graph.assumption:
        raise Misfit(graph.facts.refused[node.name])
    if node.op is not None and node.op.filters:
        weight = graph.shape(node.inputs[node.op.weights[0]])
        if weight is not None and len(weight) < 2:
            raise Misfit(f"its weight has the shape {dims(weight)}")
    read, how = [graph.shape(name) or () for name in node.inputs if name], graph.how(node)
    if not isinstance(how, Axes) or any(0 in shape for shape in read):
        return
    for index in () if node.op is None else node.op.weights:
        shape = graph.shape(node.inputs[index]) if index < len(node.inputs) else None
        if shape is not None:
            parse(how.pattern)[0][index].match(shape, f"weight '{node.inputs[index]}' of {node}")
    for name in graph.read_outputs(node):
        shape = graph.shape(name)
        if shape is not None and min(shape, default=1) < 1:
            raise Misfit(f"its output would be {dims(shape)}")
