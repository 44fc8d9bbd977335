"""The routes of relevance through a mirror, found before anything runs.

Relevance starts at the logits, crosses each node in the way that its operator declares, and stops
where no tensor before it is asked for. `_way` is the table of operators and ways.

**Products of two activations** (attention, weights that a branch computes): one factor is the
signal, the other a weight that is taken as given (Ali et al. 2022, section 3.2, for attention).

**Side branches.** A gate, as in squeeze and excitation, is a factor: no relevance enters it, so the
filters inside would have none. For them alone, the product hands its relevance to the gate as well.
Inside the branch it is shared in proportion to contributions, and it ends where the branch leaves
the main path. The main path is not changed, so its relevance is conserved.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

from onnxprune.errors import UnsupportedOp
from onnxprune.ops import Aligns, Relevance, Shapes
from onnxprune.relevance.fuse import is_diagonal
from onnxprune.relevance.mirror import Mirror, Step
from onnxprune.relevance.rules import Composite, Rule


class Way(Enum):
    """What a node does with relevance."""

    PASS = auto()
    """Unchanged, to every input on the route."""
    PULL = auto()
    """Along the gradient."""
    SHARE = auto()
    """In proportion to contributions: the epsilon rule, with constants as biases."""
    RULE = auto()
    """By the branches of the rule."""


@dataclass(frozen=True)
class Route:
    """How relevance crosses one node, to which inputs, and by which rule."""

    way: Way
    inputs: tuple[str, ...]
    rule: Rule


def find_logits(mirror: Mirror) -> str:
    """Return the tensor that LRP starts from: the input of the final softmax or activation."""
    producers = {name: step for step in mirror.steps for name in step.node.outputs}
    varying = _varying(mirror)
    name: str = mirror.graph.outputs[0]
    found = name
    while name in producers:
        step = producers[name]
        inputs = _signals(step, varying)
        kind = step.op.relevance
        if len(inputs) != 1 or kind not in (Relevance.COPY, Relevance.PASS, Relevance.NONE):
            break
        name = inputs[0]
        found = found if kind is Relevance.COPY else name
    return found


def find_routes(
    mirror: Mirror, composite: Composite, tensors: Collection[str], logits: str
) -> dict[str, Route]:
    """Return how relevance crosses each node between the logits and `tensors`, by node.

    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    varying = _varying(mirror)
    inputs = {step.node.name: _signals(step, varying) for step in mirror.steps}
    rules = _find_rules(mirror, composite)
    asked = set(tensors)
    for node, _ in mirror.steps:
        if any(name in asked for name in inputs[node.name]):
            asked.update(node.outputs)
    main, signal = {logits}, {}
    for step in reversed(mirror.steps):
        name = step.node.name
        if main.intersection(step.node.outputs) and inputs[name]:
            alone = not _is_product(step, inputs[name])
            signal[name] = inputs[name] if alone else (find_signal(mirror, step, inputs),)
            main.update(signal[name])
    routes: dict[str, Route] = {}
    reached = {logits}
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
    """The rule of each node; a node without weights has that of the layer before it."""
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
    """Whether a node multiplies activations, or an activation by a constant."""
    op = step.op
    weighs = op.relevance is Relevance.LINEAR and bool(op.weights)
    return op.relevance is Relevance.GATE or (weighs and len(inputs) > 1)


def find_signal(mirror: Mirror, step: Step, inputs: Mapping[str, Sequence[str]]) -> str:
    """Return the input of a product that relevance goes to; the others are gates.

    1. Of a convolution, its first input.
    2. Of a product of matrices, the input with fewer activations behind it.
    3. Of other products the largest input; of equally large ones the input that another is computed
       from, as x in `x sigmoid(x)`, or else the one with fewer activations behind it.
    """
    mine = inputs[step.node.name]
    producers = {name: other for other in mirror.steps for name in other.node.outputs}
    if step.op.filters:
        return mine[0]
    if step.op.relevance is Relevance.LINEAR:
        return min(mine, key=lambda name: _activations(producers, inputs, name))
    shapes = {name: mirror.graph.shape(name) or () for name in mine}
    most = max(int(np.prod(shape)) for shape in shapes.values())
    largest = [name for name in mine if int(np.prod(shapes[name])) == most]
    for name in largest:
        if any(name in _behind(producers, inputs, other) for other in largest if other != name):
            return name
    return min(largest, key=lambda name: _activations(producers, inputs, name))


def _behind(
    producers: Mapping[str, Step], inputs: Mapping[str, Sequence[str]], name: str
) -> set[str]:
    """The tensors that a tensor is computed from."""
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
    """How many activations lie between a tensor and the last node that mixes or weighs."""
    count = 0
    while name in producers:
        node, op = producers[name]
        if len(inputs[node.name]) != 1 or op.relevance is Relevance.LINEAR:
            break
        count += op.relevance in (Relevance.PASS, Relevance.NONE)
        name = inputs[node.name][0]
    return count


def _varying(mirror: Mirror) -> set[str]:
    """The tensors whose values depend on the image."""
    varying = set(mirror.graph.inputs)
    for step in mirror.steps:
        if _signals(step, varying) and not isinstance(step.op.how, Shapes):
            varying.update(step.node.outputs)
    return varying


def _signals(step: Step, varying: Collection[str]) -> tuple[str, ...]:
    """The inputs of a node that carry values of the image, each once."""
    return tuple(dict.fromkeys(name for name in step.node.inputs if name in varying))


def _way(mirror: Mirror, step: Step, rule: Rule, inputs: Sequence[str]) -> Way:
    """How relevance crosses a node of the main path."""
    node, op = step
    alone = len(inputs) == 1
    if op.relevance is Relevance.NONE:
        raise UnsupportedOp(
            f"{node}: LRP is not defined across {node.op_type}; use the criterion taylor or "
            f"activation, or one that needs no samples, such as magnitude"
        )
    if op.relevance is Relevance.GATE or (op.relevance is Relevance.PASS and alone):
        return Way.PASS
    if op.relevance is Relevance.COPY:
        return Way.PASS if alone and isinstance(op.how, Aligns) else Way.PULL
    if op.relevance is Relevance.LINEAR and op.weights:
        if is_diagonal(mirror.graph, step):
            return Way.SHARE if rule.bias else Way.PASS
        return Way.RULE if alone and rule.branches else Way.SHARE
    if op.relevance is Relevance.SHARE and alone and not rule.bias:
        return Way.PASS
    return Way.SHARE
