"""Relevance of every tensor: one walk forward over the mirror's steps, one walk back.

Where relevance goes is known before anything runs (`find_routes`): it starts at the logits, takes
at each node the way that the operator declares, and stops where nobody asked for more. The forward
walk records a small local graph at each node on the way; the backward walk asks it for relevance
and frees it. There are no hooks and no modules: a residual sum is a node like any other.

**Side branches.** A gate (squeeze and excitation, say) is a factor: relevance passes it by, and the
filters inside it would get none at all. For them alone, a product hands its relevance to the gate
as well, and within that branch it is shared in proportion to contributions; it ends where the
branch leaves the main path. What flows on the main path does not change, so it is conserved.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError, UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.mirror import Mirror, Step, Trace
from onnxprune.ops import Aligns, Relevance, Shapes
from onnxprune.ops._torch import torch
from onnxprune.rules import Layer, Rule, distribute, pull, share

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 1e-30
"""Least total relevance that is scaled to 1; below it the logits are all zero."""


class Way(Enum):
    """What a node does with relevance."""

    PASS = auto()
    PULL = auto()
    SHARE = auto()
    RULE = auto()


@dataclass(frozen=True)
class Route:
    """How relevance crosses one node, and the inputs that it reaches."""

    way: Way
    inputs: tuple[str, ...]


@dataclass
class Record:
    """What the forward walk leaves at a node for the walk back."""

    step: Step
    route: Route | None
    leaves: Trace
    outputs: Trace
    layer: Layer | None = None


def relevance(
    mirror: Mirror,
    x: npt.NDArray[Any] | Tensor,
    y: npt.NDArray[np.int64] | Tensor,
    rule: Rule,
    tensors: Collection[str],
    *,
    reduce: Callable[[Tensor], Tensor] = lambda relevance: relevance,
) -> Trace:
    """Return the relevance of the named tensors for the true classes, each through `reduce`.

    A tensor that no relevance reaches is left out.
    Shapes: x `[N, ...]`, y `[N]` -> relevance as the tensor.
    Units: shares of the explained output; their absolute values sum to 1 at the logits (`start`).
    Raises: UnsupportedOp naming the first node that relevance cannot cross; DataError for a label
    that is not one of the model's classes.
    """
    logits = find_logits(mirror)
    routes = find_routes(mirror, rule, tensors, logits)
    with torch.no_grad():
        records, output = _forward(mirror, x, routes, logits)
        flow = {logits: start(output, torch.as_tensor(y, device=mirror.device))}
        found: Trace = {}
        while records:
            record = records.pop()
            flowing = {n: flow.pop(n) for n in record.step[0].outputs if n in flow}
            found |= {name: reduce(flowing[name]) for name in flowing if name in tensors}
            if flowing and record.route is not None:
                for name, received in _back(record, flowing, rule).items():
                    flow[name] = flow[name] + received if name in flow else received
        return found | {name: reduce(flow[name]) for name in flow if name in tensors}


def start(logits: Tensor, y: Tensor) -> Tensor:
    """Return the relevance of the logits: what each adds to `z_y - mean(z)`, scaled.

    `R_k = (1[k = y] - 1/K) z_k`, divided by the sample's `sum |R_k|`. A single logit is explained
    as it is.
    Shapes: logits `[N, K, 1..]`, y `[N]` -> as logits.
    Raises: DataError for a label that is not below K.
    """
    z = logits.flatten(1)
    classes = z.shape[1]
    if classes > 1 and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(
            f"samples: label {int(y.max())}, expected 0 to {classes - 1}: the model has {classes} "
            f"outputs; number the classes as the model does"
        )
    relevance = z / classes if classes == 1 else -z / classes
    if classes > 1:
        relevance[torch.arange(len(z), device=z.device), y] += z.gather(1, y[:, None])[:, 0]
    total = relevance.abs().sum(1, keepdim=True).clamp(min=_LEAST)
    return (relevance / total).reshape(logits.shape)


def find_logits(mirror: Mirror) -> str:
    """Return the tensor that LRP starts from: what enters the final softmax or activation."""
    producers = {name: step for step in mirror.steps for name in step[0].outputs}
    varying = _varying(mirror)
    name = found = mirror.graph.outputs[0]
    while name in producers:
        step = producers[name]
        inputs = _signals(step, varying)
        kind = step[1].relevance
        if len(inputs) != 1 or kind not in (Relevance.COPY, Relevance.PASS, Relevance.NONE):
            break
        name = inputs[0]
        found = found if kind is Relevance.COPY else name
    return found


def find_routes(
    mirror: Mirror, rule: Rule, tensors: Collection[str], logits: str
) -> dict[str, Route]:
    """Return how relevance crosses each node on its way from the logits to `tensors`.

    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    varying = _varying(mirror)
    inputs = {step[0].name: _signals(step, varying) for step in mirror.steps}
    asked = set(tensors)
    for node, _ in mirror.steps:
        if any(name in asked for name in inputs[node.name]):
            asked.update(node.outputs)
    main, signal = {logits}, {}
    for step in reversed(mirror.steps):
        name = step[0].name
        if main.intersection(step[0].outputs) and inputs[name]:
            gate = step[1].relevance is Relevance.GATE
            signal[name] = (find_signal(mirror, step, inputs),) if gate else inputs[name]
            main.update(signal[name])
    routes: dict[str, Route] = {}
    reached = {logits}
    for step in reversed(mirror.steps):
        node = step[0]
        if not reached.intersection(node.outputs):
            continue
        aside = [n for n in inputs[node.name] if n not in main]
        mine = [n for n in (*signal.get(node.name, ()), *aside) if n in asked]
        if mine:
            way = _way(step, rule, inputs[node.name]) if node.name in signal else Way.SHARE
            routes[node.name] = Route(way, tuple(mine))
            reached.update(mine)
    return routes


def find_signal(mirror: Mirror, step: Step, inputs: Mapping[str, Sequence[str]]) -> str:
    """Return the input of a product that relevance goes to; the others are gates.

    The signal is the larger one; of equals the one that the other is computed from (x sigmoid(x));
    else the one with fewer activations behind it.
    """
    mine = inputs[step[0].name]
    shapes = {name: mirror.graph.shape(name) or () for name in mine}
    most = max(int(np.prod(shape)) for shape in shapes.values())
    largest = [name for name in mine if int(np.prod(shapes[name])) == most]
    if len(largest) == 1:
        return largest[0]
    producers = {name: other for other in mirror.steps for name in other[0].outputs}
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
        fresh = [n for n in inputs[step[0].name] if n not in found] if step else []
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
        if _signals(step, varying) and not isinstance(step[1].how, Shapes):
            varying.update(step[0].outputs)
    return varying


def _signals(step: Step, varying: Collection[str]) -> tuple[str, ...]:
    """The inputs of a node that carry values of the image, each once."""
    node, op = step
    return tuple(
        dict.fromkeys(
            n for k, n in enumerate(node.inputs) if n in varying and not op.is_parameter(k)
        )
    )


def _way(step: Step, rule: Rule, inputs: Sequence[str]) -> Way:
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
        if not alone:
            raise UnsupportedOp(
                f"{node}: its weight ({', '.join(inputs)}) depends on the image; LRP needs a "
                f"constant weight; use the criterion taylor or activation"
            )
        return Way.RULE if rule.at(filters=op.filters).branches else Way.SHARE
    if op.relevance is Relevance.SHARE and alone and not rule.bias:
        return Way.PASS
    return Way.SHARE


def _forward(
    mirror: Mirror, x: npt.NDArray[Any] | Tensor, routes: Mapping[str, Route], logits: str
) -> tuple[list[Record], Tensor]:
    """Run the mirror up to the logits; return a record of each node, and the logits."""
    env = mirror.start({mirror.graph.image: x})
    records: list[Record] = []
    for step, spent in mirror.schedule():
        if logits in env:
            break
        records.append(_record(mirror, step, env, routes.get(step[0].name)))
        env.update({name: value.detach() for name, value in records[-1].outputs.items()})
        if records[-1].route is None or records[-1].route.way is Way.PASS:
            records[-1].outputs = {}
        for name in spent:
            env.pop(name, None)
    return records, env[logits]


def _record(mirror: Mirror, step: Step, env: Trace, route: Route | None) -> Record:
    """Run one node; keep what its route needs: a local graph, a layer, or shapes alone."""
    outputs: Trace = {}
    if route is None or route.way is Way.PASS:
        mirror.execute(step, env, outputs)
        names = route.inputs if route else ()
        # An expanded scalar has the shape and no memory.
        leaves = {n: env[n].new_empty(()).expand(env[n].shape) for n in names}
        return Record(step, route, leaves, outputs)
    if route.way is Way.RULE:
        mirror.execute(step, env, outputs)
        return Record(step, route, {}, outputs, _layer(mirror, step, env, route.inputs[0]))
    leaves = {n: env[n].detach() for n in route.inputs if env[n].is_floating_point()}
    with torch.enable_grad():
        for leaf in leaves.values():
            leaf.requires_grad_()
        mirror.execute(step, ChainMap(leaves, env), outputs)
    return Record(step, route, leaves, outputs)


def _layer(mirror: Mirror, step: Step, env: Trace, name: str) -> Layer:
    node, op = step
    signal = node.inputs.index(name)
    given = [k for k, n in enumerate(node.inputs) if n]
    weights = op.weights if signal not in op.weights else [k for k in given if k != signal]
    return Layer(
        lambda arguments: op(node, arguments)[0],
        mirror.arguments(step, env),
        signal,
        tuple(k for k in weights if k not in op.biases),
        tuple(k for k in op.biases if k in given),
    )


def _back(record: Record, flowing: Trace, rule: Rule) -> Trace:
    """Carry relevance from the outputs of one node to its inputs."""
    route, leaves = record.route, record.leaves
    if route is None or not flowing:
        return {}
    op = record.step[1]
    if record.layer is not None:
        name, arriving = next(iter(flowing.items()))
        mine = rule.at(filters=op.filters)
        received = distribute(mine, record.layer, record.outputs[name], arriving)
        return {route.inputs[0]: received}
    if route.way is Way.PASS:
        arriving = next(iter(flowing.values()))
        return {name: arriving.sum_to_size(leaf.shape) for name, leaf in leaves.items()}
    smooth = [name for name in flowing if record.outputs[name].requires_grad]
    if not smooth:
        return {}
    ends = [record.outputs[name] for name in smooth]
    arriving_all = [flowing[name].to(record.outputs[name].dtype) for name in smooth]
    inputs = list(leaves.values())
    if route.way is Way.PULL:
        received_all = pull(inputs, ends, arriving_all)
    else:
        received_all = share(inputs, ends, arriving_all, rule.at(filters=op.filters).epsilon)
    return dict(zip(leaves, received_all, strict=True))
