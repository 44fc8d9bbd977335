"""Find the route of relevance through a mirror, before anything runs.

Relevance starts at the ends, which are the logits or other outputs, and goes back from node to
node, as far as there are tensors whose relevance is asked for. `_way` says how it crosses a node,
by what the operator declares.

**Products of two activations**, as in attention or in a convolution whose weights a branch
computes. One factor is the signal, which gets the relevance. The other counts as a constant weight
(Ali et al. 2022, section 3.2, for attention).

**Side branches.** The gate of squeeze and excitation is such a factor, so no relevance enters it,
and the filters inside would have none. To rank them, the product gives its relevance to the gate
too. Inside the branch it is shared in proportion to contributions, and it ends where the branch
leaves the main path. The relevance on the main path stays the same, so it is conserved there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from onnx import TensorProto

from onnxprune.data import Head
from onnxprune.errors import UnsupportedOp
from onnxprune.ops import Aligns, Relevance, Shapes
from onnxprune.relevance.fuse import is_diagonal
from onnxprune.relevance.mirror import Mirror, Step
from onnxprune.relevance.rules import Composite, Rule


class Way(Enum):
    """How relevance crosses a node, from its output to its inputs."""

    PASS = auto()
    """Each input on the route gets the relevance of the output, unchanged."""
    PULL = auto()
    """Along the gradient: what a copied or largest value came from gets its relevance."""
    SHARE = auto()
    """In proportion to contributions, by the epsilon rule; constants count as biases. A
    contribution is an input times the gradient, so what is no sum is crossed to first order."""
    RULE = auto()
    """By the branches of the rule, such as those of z+ or gamma."""


@dataclass(frozen=True)
class Route:
    """How relevance crosses one node: the way, the inputs that get it, and the rule."""

    way: Way
    inputs: tuple[str, ...]
    rule: Rule


THROUGH = (Relevance.COPY, Relevance.PASS, Relevance.SLOPE, Relevance.NONE)
"""What stands between logits and class scores: softmax, sigmoid, and what moves elements."""


def find_ends(mirror: Mirror) -> dict[str, Head]:
    """Return the tensors that relevance starts from, with what is read off them.

    For class scores it is the input of the final softmax or activation, else the output itself.
    """
    return {_end(mirror, head): head for head in mirror.heads}


def _end(mirror: Mirror, head: Head) -> str:
    logits = find_logits(mirror, head.tensor) if head.is_scores else head.tensor
    shapes = {mirror.graph.shape(name) for name in (logits, head.tensor)}
    only = len(mirror.heads) == 1 and head.kind == "classes"
    return logits if only or len(shapes) == 1 else head.tensor  # the axis of classes is the head's


def find_logits(mirror: Mirror, output: str = "") -> str:
    """Return the logits of an output: the input of the final softmax or activation."""
    producers = {name: step for step in mirror.steps for name in step.node.outputs}
    varying = _varying(mirror)
    name: str = output or mirror.outputs[0]
    found = name
    while name in producers:
        step = producers[name]
        inputs = _signals(step, varying)
        kind = step.op.relevance
        if len(inputs) != 1 or kind not in THROUGH:
            break
        name = inputs[0]
        found = found if kind is Relevance.COPY else name
    return found


def find_routes(
    mirror: Mirror, composite: Composite, tensors: Collection[str], ends: Collection[str]
) -> dict[str, Route]:
    """Return the route across each node between the ends and `tensors`, by the node's name.

    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    varying = _varying(mirror)
    inputs = {step.node.name: _signals(step, varying) for step in mirror.steps}
    rules = _find_rules(mirror, composite)
    asked = set(tensors)
    for node, _ in mirror.steps:
        if any(name in asked for name in inputs[node.name]):
            asked.update(node.outputs)
    main, signal = set(ends), {}
    for step in reversed(mirror.steps):
        name = step.node.name
        if main.intersection(step.node.outputs) and inputs[name]:
            alone = not _is_product(step, inputs[name])
            signal[name] = inputs[name] if alone else (find_signal(mirror, step, inputs),)
            main.update(signal[name])
    routes: dict[str, Route] = {}
    reached = set(ends)
    for step in reversed(mirror.steps):
        node = step.node
        if not reached.intersection(node.outputs):
            continue
        aside = [n for n in inputs[node.name] if n not in main]
        mine = [n for n in (*signal.get(node.name, ()), *aside) if n in asked]
        if mine:
            rule = rules[node.name]
            way = _way(mirror, step, rule, inputs[node.name]) if node.name in signal else Way.SHARE
            routes[node.name] = Route(way, tuple(mine), rule)
            reached.update(mine)
    return routes


def _find_rules(mirror: Mirror, composite: Composite) -> dict[str, Rule]:
    """Return the rule of each node. A node without weights has the rule of the layer before it."""
    layers = [
        step.node.name
        for step in mirror.steps
        if step.op.relevance is Relevance.LINEAR
        and step.op.weights
        and not is_diagonal(mirror.graph, step)
    ]
    place = {name: k for k, name in enumerate(layers)}
    rules: dict[str, Rule] = {}
    here = composite.at(0.0, filters=True)
    for node, op in mirror.steps:
        if node.name in place:
            depth = (place[node.name] + 0.5) / len(layers)
            here = composite.at(depth, filters=op.filters)
        rules[node.name] = here
    return rules


def _is_product(step: Step, inputs: Sequence[str]) -> bool:
    """Return True for a gate, and for a weighted sum whose weights or places are activations."""
    kind = step.op.relevance
    return kind is Relevance.GATE or (kind is Relevance.LINEAR and len(inputs) > 1)


def find_signal(mirror: Mirror, step: Step, inputs: Mapping[str, Sequence[str]]) -> str:
    """Return the factor of a product that gets the relevance, the signal.

    1. Convolution, and samples at places that a branch computes: the first input.
    2. Product of matrices: the input with fewer activation functions before it.
    3. Product of elements: the largest input. Of equally large ones, the input that another is
       computed from, as x in `x sigmoid(x)`; else the one with fewer activation functions before.
    """
    mine = inputs[step.node.name]
    producers = {name: other for other in mirror.steps for name in other.node.outputs}
    if step.op.filters or (step.op.relevance is Relevance.LINEAR and not step.op.weights):
        return mine[0]
    if step.op.relevance is Relevance.LINEAR:
        return min(mine, key=lambda name: _activations(producers, inputs, name))
    shapes = {name: mirror.graph.shape(name) or () for name in mine}
    most = max(int(np.prod(shape)) for shape in shapes.values())
    largest = [name for name in mine if int(np.prod(shapes[name])) == most]
    for name in largest:
        if any(name in _ancestors(producers, inputs, other) for other in largest if other != name):
            return name
    return min(largest, key=lambda name: _activations(producers, inputs, name))


def _ancestors(
    producers: Mapping[str, Step], inputs: Mapping[str, Sequence[str]], name: str
) -> set[str]:
    """Return all tensors that a tensor is computed from."""
    found: set[str] = set()
    todo = [name]
    while todo:
        step = producers.get(todo.pop())
        fresh = [n for n in inputs[step.node.name] if n not in found] if step else []
        found.update(fresh)
        todo += fresh
    return found


def _activations(
    producers: Mapping[str, Step], inputs: Mapping[str, Sequence[str]], name: str
) -> int:
    """Count the activation functions before a tensor, back to a layer or to a sum."""
    count = 0
    while name in producers:
        node, op = producers[name]
        if len(inputs[node.name]) != 1 or op.relevance is Relevance.LINEAR:
            break
        count += op.relevance in (Relevance.PASS, Relevance.SLOPE, Relevance.NONE)
        name = inputs[node.name][0]
    return count


def _varying(mirror: Mirror) -> set[str]:
    """Return the tensors that depend on the values of the model's inputs, but no condition.

    A condition only chooses between values, so it has no relevance, nor has what is made of it;
    unless all that the outputs depend on is made of one, as of a comparison of bytes with numbers.
    """
    found = _behind_inputs(mirror, conditions=False)
    if found.isdisjoint(head.tensor or mirror.outputs[0] for head in mirror.heads):
        return _behind_inputs(mirror, conditions=True)
    return found


def _behind_inputs(mirror: Mirror, *, conditions: bool) -> set[str]:
    """The tensors that depend on the inputs, with or without what is made of conditions."""
    varying = set(mirror.graph.inputs)
    types = mirror.graph.facts.types
    for step in mirror.steps:
        if _signals(step, varying) and not isinstance(step.op.how, Shapes):
            varying.update(
                name
                for name in step.node.outputs
                if conditions
                or name not in types
                or types[name].tensor_type.elem_type != TensorProto.BOOL
            )
    return varying


def _signals(step: Step, varying: Collection[str]) -> tuple[str, ...]:
    """Return the inputs of a node that vary, each once.

    The scale and the zero point of a quantised input are no signals, even if they vary.
    """
    quantised = step.op.relevance is Relevance.PASS and bool(step.op.zero_points)
    given = step.node.inputs[:1] if quantised else step.node.inputs
    return tuple(dict.fromkeys(name for name in given if name in varying))


def _way(mirror: Mirror, step: Step, rule: Rule, inputs: Sequence[str]) -> Way:
    """Return how relevance crosses a node of the main path.

    Raises: UnsupportedOp when LRP is not defined across its operator.
    """
    node, op = step
    kind, alone = op.relevance_at(node), len(inputs) == 1
    if kind in (Relevance.NONE, Relevance.REAL):
        raise UnsupportedOp(f"{node}: LRP is not defined across {node.op_type}")
    if kind is Relevance.GATE or (kind is Relevance.PASS and alone):
        return Way.PASS
    if kind is Relevance.SLOPE:
        return Way.SHARE
    if kind is Relevance.COPY:
        return Way.PASS if alone and isinstance(op.how, Aligns) else Way.PULL
    if kind is Relevance.LINEAR and op.weights:
        if is_diagonal(mirror.graph, step):
            return Way.SHARE if rule.bias else Way.PASS
        return Way.RULE if alone and rule.branches else Way.SHARE
    if kind is Relevance.SHARE and alone and isinstance(op.how, Aligns) and not rule.bias:
        return Way.PASS
    return Way.SHARE
