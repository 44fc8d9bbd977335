"""A model as onnxruntime runs it: without what it stumbles over, and what it computes is the same.

* It asks for inputs that nothing reads, as OpenCV's quantiser leaves those of the old weights.
* It refuses a block size beside a scale that is one in all, where a block is the whole axis.
"""

from __future__ import annotations

from collections.abc import Collection

from onnx import GraphProto, ModelProto, NodeProto

from onnxprune.graph.copies import copied
from onnxprune.graph.inputs import unread_inputs

BLOCKED = ("QuantizeLinear", "DequantizeLinear")
"""Operators that take scales by blocks."""
BLOCK = "block_size"


def runnable(model: ModelProto) -> ModelProto:
    """Return the model, or a copy without unread inputs and without blocks of one scale in all."""
    unread, alone = unread_inputs(model.graph), _alone(model.graph)
    if not unread and not any(_has_lone_block(node, alone) for node in model.graph.node):
        return model
    found = copied(model)
    kept = [value for value in model.graph.input if value.name not in unread]
    del found.graph.input[:]
    found.graph.input.extend(kept)
    for node in found.graph.node:
        if _has_lone_block(node, alone):
            others = [one for one in node.attribute if one.name != BLOCK]
            del node.attribute[:]
            node.attribute.extend(others)
    return found


def _alone(graph: GraphProto) -> Collection[str]:
    """The constants that are one number, in a row or by itself."""
    return {one.name for one in graph.initializer if list(one.dims) in ([], [1])}


def _has_lone_block(node: NodeProto, alone: Collection[str]) -> bool:
    scaled = node.op_type in BLOCKED and len(node.input) > 1 and node.input[1] in alone
    return scaled and any(one.name == BLOCK and one.i for one in node.attribute)
