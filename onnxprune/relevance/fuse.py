"""Compute constants once, and fold normalisation into the convolution before it, on the mirror.

A convolution `y = W * x + b` and a normalisation `z = s y + t`, with one `s` and `t` for each
channel, are one convolution: `z = (s W) * x + s b + t`. The normalisation becomes an identity, so
relevance meets one weighted sum instead of two.

No operator is named. Batch normalisation, and the products and sums that exporters write for it,
are found by running them: on 0 and 1 for `s` and `t`, and on 2 to see that they are affine. The
user's graph is not touched.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from onnxprune.graph import Graph
from onnxprune.ops import Node, Relevance, as_identity, require_op
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror, Step

if TYPE_CHECKING:
    from torch import Tensor

AFFINE = 1e-9
"""Relative tolerance; the three points are computed in float64."""


def folded(mirror: Mirror) -> Mirror:
    """Return a copy of the mirror with constants computed and normalisation folded."""
    twin = copy(mirror)
    twin.constants = dict(mirror.constants)
    twin.steps = _fold_constants(twin)
    twin.steps = _fold_affine(twin)
    return twin


def _fold_constants(mirror: Mirror) -> list[Step]:
    """Run the steps that read only constants, into the mirror's constants; return the others."""
    left = []
    for step in mirror.steps:
        known = [
            not name or name in mirror.constants or step.op.annotation(k).startswith("Kind")
            for k, name in enumerate(step.node.inputs)
        ]
        if all(known):
            mirror.execute(step, mirror.constants)
        else:
            left.append(step)
    return left


def _fold_affine(mirror: Mirror) -> list[Step]:
    """Fold every foldable node into the mirror's constants; return the steps that are left."""
    steps = {step.node.name: step for step in mirror.steps}
    readers, kept = mirror.graph.consumers, {*mirror.graph.outputs, *mirror.outputs}
    behind: dict[str, str] = {}  # the convolution whose output a tensor is, after folding
    for step in mirror.steps:
        node = step.node
        if _can_absorb(mirror, step):
            behind[node.outputs[0]] = node.name
            continue
        signals = [name for name in node.inputs if name and name not in mirror.constants]
        if len(signals) != 1 or signals[0] not in behind or not _may_be_affine(mirror.graph, step):
            continue
        if len(readers.get(signals[0], ())) != 1 or signals[0] in kept:
            continue
        conv = behind[signals[0]]
        affine = _affine(mirror, step, signals[0], steps[conv])
        if affine is not None:
            steps[conv] = _absorb(mirror, steps[conv], *affine)
            identity = as_identity(node, signals[0])
            steps[node.name] = Step(identity, require_op(identity))
            behind[node.outputs[0]] = conv
    return list(steps.values())


def _can_absorb(mirror: Mirror, step: Step) -> bool:
    """Whether a node is a convolution with filters along axis 0 of a constant weight."""
    node, op = step
    if op.relevance is not Relevance.LINEAR or not op.filters or op.scatters:
        return False
    given = {node.inputs[k] for k in (*op.weights, *op.biases) if k < len(node.inputs)} - {""}
    return given <= mirror.constants.keys()


def _may_be_affine(graph: Graph, step: Step) -> bool:
    """Whether a node adds or multiplies element by element, or weighs each channel alone."""
    kind = step.op.relevance
    if kind is Relevance.LINEAR:
        return bool(step.op.weights) and is_diagonal(graph, step)
    return kind in (Relevance.SHARE, Relevance.GATE)


def is_diagonal(graph: Graph, step: Step) -> bool:
    """Say whether a layer weighs each channel alone, as batch normalisation does."""
    node, op = step
    weights = [graph.shape(node.inputs[k]) for k in op.weights]
    ends = graph.shape(node.inputs[0]), graph.shape(node.outputs[0])
    return all(w is not None and len(w) == 1 for w in weights) and ends[0] == ends[1]


def _affine(mirror: Mirror, step: Step, signal: str, conv: Step) -> tuple[Tensor, Tensor] | None:
    """The scale and the shift of each channel, or None where the node is not affine.

    Shapes: both `[C]`, in float64.
    """
    node, op = step
    weight = mirror.constants[conv.node.inputs[conv.op.weights[0]]]
    shape = (1, weight.shape[0], *(1,) * (weight.ndim - 2))
    wide = {n: _double(mirror.constants[n]) for n in node.inputs if n and n != signal}
    found = []
    for point in (0.0, 1.0, 2.0):
        x = torch.full(shape, point, dtype=torch.float64, device=weight.device)
        value = op(node, mirror.arguments(step, {**wide, signal: x}))[0]
        if value.shape != x.shape or not value.isfinite().all():
            return None
        found.append(value.flatten())
    shift, scale, further = found[0], found[1] - found[0], found[2] - found[1]
    affine = torch.allclose(scale, further, rtol=AFFINE, atol=AFFINE)
    return (scale, shift) if affine else None


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _absorb(mirror: Mirror, conv: Step, scale: Tensor, shift: Tensor) -> Step:
    """Add the folded weight and bias to the constants, and return the step that reads them."""
    node, op = conv
    constants = mirror.constants
    place, bias_place = op.weights[0], op.biases[0]
    weight = constants[node.inputs[place]]
    given = node.inputs[bias_place] if bias_place < len(node.inputs) else ""
    bias = constants[given].double() if given else torch.zeros_like(scale)
    inputs = [*node.inputs, *[""] * (bias_place + 1 - len(node.inputs))]
    inputs[place], inputs[bias_place] = (f"{node.name}.folded_{k}" for k in ("weight", "bias"))
    column = scale.reshape(-1, *(1,) * (weight.ndim - 1))
    constants[inputs[place]] = (weight.double() * column).to(weight)
    constants[inputs[bias_place]] = (bias * scale + shift).to(weight)
    return Step(_reading(node, inputs), op)


def _reading(node: Node, inputs: list[str]) -> Node:
    """The node with other inputs."""
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(inputs)
    return replace(node, proto=proto)
