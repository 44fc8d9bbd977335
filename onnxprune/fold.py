"""Constants computed once, and batch normalisation folded, on the mirror only.

Given `y = W * x + b` and `z = gamma (y - mu) / sqrt(var + eps) + beta`, with
`g = gamma / sqrt(var + eps)`: `z = (g W) * x + g (b - mu) + beta`. The normalisation becomes an
identity, so that relevance meets one weighted sum instead of two. The user's graph is not touched.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from onnx import helper

from onnxprune.mirror import Mirror, Step
from onnxprune.node import Node, node_of
from onnxprune.ops import require_op
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def folded(mirror: Mirror) -> Mirror:
    """Return the mirror with constants computed and batch normalisation folded."""
    twin = copy(mirror)
    twin.constants = dict(mirror.constants)
    twin.steps = _fold_constants(twin)
    twin.steps = _fold_batchnorm(twin)
    return twin


def _fold_constants(mirror: Mirror) -> list[Step]:
    """Run the nodes that read constants alone, into the mirror's constants; return the others."""
    left = []
    for node, op in mirror.steps:
        known = [
            not name or name in mirror.constants or op.annotation(k).startswith("Kind")
            for k, name in enumerate(node.inputs)
        ]
        if all(known):
            mirror.execute((node, op), mirror.constants)
        else:
            left.append((node, op))
    return left


def _fold_batchnorm(mirror: Mirror) -> list[Step]:
    """Return the steps with every foldable normalisation folded into the mirror's constants."""
    constants = mirror.constants
    steps = {node.name: (node, op) for node, op in mirror.steps}
    readers = mirror.graph.consumers
    for node, _ in mirror.steps:
        if node.op_type != "BatchNormalization":
            continue
        conv = mirror.graph.producers.get(node.inputs[0])
        alone = len(readers.get(node.inputs[0], ())) == 1
        shared = node.inputs[0] in mirror.graph.outputs
        if conv is None or conv.op_type != "Conv" or not alone or shared:
            continue
        if not {conv.inputs[1], *conv.inputs[2:3], *node.inputs[1:]} - {""} <= constants.keys():
            continue
        folded = _fold_one(steps[conv.name][0], node, constants)
        steps[conv.name] = (folded, require_op(folded))
        identity = node_of(
            helper.make_node("Identity", node.inputs[:1], node.outputs[:1]), {"": 13}
        )
        steps[node.name] = (replace(identity, name=node.name), require_op(identity))
    return list(steps.values())


def _fold_one(conv: Node, norm: Node, constants: dict[str, Tensor]) -> Node:
    """Add the folded weight and bias to the constants and return the node that reads them."""
    gamma, beta, mu, var = (constants[name] for name in norm.inputs[1:5])
    scale = gamma / torch.sqrt(var + norm.attributes.get("epsilon", 1e-5))
    weight = constants[conv.inputs[1]]
    has_bias = len(conv.inputs) > 2 and conv.inputs[2]
    bias = constants[conv.inputs[2]] if has_bias else torch.zeros_like(mu)
    names = [f"{conv.name}.folded_weight", f"{conv.name}.folded_bias"]
    constants[names[0]] = weight * scale.reshape([-1] + [1] * (weight.ndim - 1))
    constants[names[1]] = (bias - mu) * scale + beta
    proto = type(conv.proto)()
    proto.CopyFrom(conv.proto)
    del proto.input[1:]
    proto.input.extend(names)
    return replace(conv, proto=proto)
