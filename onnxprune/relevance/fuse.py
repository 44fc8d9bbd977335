"""Compute constants once, and fold normalisation into the layer before it, on the mirror.

A convolution `y = W * x + b` and a normalisation `z = s y + t`, with one `s` and `t` for each
channel, are one convolution: `z = (s W) * x + s b + t`. The normalisation becomes an identity, so
relevance meets one weighted sum instead of two. So it is with a product by a matrix, which has no
bias of its own, and the sum that gives it one.

No operator is named. Batch normalisation, and the products and sums that exporters write for it,
are found by running them: on 0 and 1 for `s` and `t`, and on 2 to see that they are affine. The
user's graph is not touched.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx import TensorProto

from onnxprune.graph import Graph
from onnxprune.ops import Node, Op, Relevance, as_identity, quick_bytes, require_op
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror, Step
from onnxprune.relevance.real import in_real_numbers

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16)
AFFINE = 1e-9
"""Relative tolerance; the three points are computed in float64."""
QUICK = 256 * 2**20
"""Bytes of weights as quick convolutions take them, beside the weights of a mirror."""


def folded(mirror: Mirror) -> Mirror:
    """Return a copy of the mirror in real numbers, with constants computed and norms folded."""
    twin = copy(mirror)
    twin.constants = dict(mirror.constants)
    twin.steps = in_real_numbers(twin)
    twin.steps = _fold_constants(twin)
    twin.steps = _fold_affine(twin)
    twin.quick = _find_quick(twin)
    return twin


def _find_quick(mirror: Mirror) -> frozenset[str]:
    """The first nodes that gain by being computed quickly, as many as `QUICK` has room for."""
    found, room = [], QUICK
    for node, op in mirror.steps:
        names = [node.inputs[k] for k in op.weights] if op.quick else []
        taken = sum(quick_bytes(mirror.constants[n]) for n in names if n in mirror.constants)
        if 0 < taken <= room:
            found.append(node.name)
            room -= taken
    return frozenset(found)


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
    behind: dict[str, _Layer] = {}  # the layer whose output a tensor is, after folding
    for step in mirror.steps:
        node = step.node
        layer = _layer(mirror, step)
        if layer is not None:
            behind[node.outputs[0]] = layer
            continue
        signals = [name for name in node.inputs if name and name not in mirror.constants]
        if len(signals) != 1 or signals[0] not in behind:
            continue
        if len(readers.get(signals[0], ())) != 1 or signals[0] in kept:
            continue
        if not (_hands_on(step) or _may_be_affine(mirror.graph, step)):
            continue
        layer = behind[signals[0]]
        if _hands_on(step):
            behind[node.outputs[0]] = layer
            continue
        affine = _affine(mirror, step, signals[0], layer)
        if affine is not None:
            steps[layer.name] = _absorb(mirror, steps[layer.name], layer, *affine)
            identity = as_identity(node, signals[0])
            steps[node.name] = Step(identity, require_op(identity))
            behind[node.outputs[0]] = layer
    return list(steps.values())


@dataclass(frozen=True)
class _Layer:
    """A layer that can absorb: the axis of its weight along which its filters lie.

    Shapes: shape, `[1, .., C, .., 1]`, that of one number for each filter in its output.
    """

    name: str
    axis: int
    shape: tuple[int, ...]
    device: torch.device


def _layer(mirror: Mirror, step: Step) -> _Layer | None:
    """The layer that a node is: a convolution, or a product by a matrix, of constant weights."""
    node, op = step
    if op.relevance is not Relevance.LINEAR:
        return None
    given = {node.inputs[k] for k in (*op.weights, *op.biases) if k < len(node.inputs)} - {""}
    if not given or not given <= mirror.constants.keys():
        return None
    weight = mirror.constants[node.inputs[op.weights[0]]]
    if op.filters and not op.scatters:
        shape = (1, len(weight), *(1,) * (weight.ndim - 2))
        return _Layer(node.name, 0, shape, weight.device)
    ends = mirror.graph.shape(node.outputs[0])
    if _is_plain_product(step) and weight.ndim == 2 and ends:
        shape = (*(1,) * (len(ends) - 1), weight.shape[1])
        return _Layer(node.name, 1, shape, weight.device)
    return None


def _is_plain_product(step: Step) -> bool:
    """Whether a node multiplies its input by a matrix, not transposed, and adds nothing."""
    node, op = step
    return (
        op.columns_along is not None and op.weights == (1,) and not (op.biases or node.attributes)
    )


def _hands_on(step: Step) -> bool:
    """Whether a node changes no value: an identity, or another floating type."""
    node, op = step
    return op.name == "Identity" or (op.name == "Cast" and node.attributes["to"] in FLOATS)


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


def _affine(mirror: Mirror, step: Step, signal: str, layer: _Layer) -> tuple[Tensor, Tensor] | None:
    """The scale and the shift of each channel, or None where the node is not affine.

    Shapes: both `[C]`, in float64.
    """
    node, op = step
    wide = {n: _double(mirror.constants[n]) for n in node.inputs if n and n != signal}
    found = []
    for point in (0.0, 1.0, 2.0):
        x = torch.full(layer.shape, point, dtype=torch.float64, device=layer.device)
        value = op(node, mirror.arguments(step, {**wide, signal: x}))[0]
        if value.shape != x.shape or not value.isfinite().all():
            return None
        found.append(value.flatten())
    shift, scale, further = found[0], found[1] - found[0], found[2] - found[1]
    affine = torch.allclose(scale, further, rtol=AFFINE, atol=AFFINE)
    return (scale, shift) if affine else None


def _double(value: Tensor) -> Tensor:
    return value.double() if value.is_floating_point() else value


def _absorb(mirror: Mirror, step: Step, layer: _Layer, scale: Tensor, shift: Tensor) -> Step:
    """Add the folded weight and bias to the constants, and return the step that reads them."""
    node, op = step.node, step.op if step.op.biases else _with_bias(step.op)
    constants = mirror.constants
    place, bias_place = op.weights[0], op.biases[0]
    weight = constants[node.inputs[place]]
    given = node.inputs[bias_place] if bias_place < len(node.inputs) else ""
    bias = constants[given].double() if given else torch.zeros_like(scale)
    inputs = [*node.inputs, *[""] * (bias_place + 1 - len(node.inputs))]
    inputs[place], inputs[bias_place] = (f"{node.name}.folded_{k}" for k in ("weight", "bias"))
    column = scale.reshape([-1 if k == layer.axis else 1 for k in range(weight.ndim)])
    constants[inputs[place]] = (weight.double() * column).to(weight)
    constants[inputs[bias_place]] = (bias * scale + shift).to(weight)
    return Step(_reading(node, inputs), op)


def _with_bias(op: Op) -> Op:
    """A product of two inputs that adds a third."""

    def biased(a: Tensor, b: Tensor, c: Tensor, /) -> Tensor:
        total: Tensor = op.forward(a, b) + c
        return total

    return replace(op, forward=biased, biases=(2,))


def _reading(node: Node, inputs: list[str]) -> Node:
    """The node with other inputs."""
    proto = type(node.proto)()
    proto.CopyFrom(node.proto)
    del proto.input[:]
    proto.input.extend(inputs)
    return replace(node, proto=proto)
