"""Relevance of every tensor: one walk forward over the mirror's steps, one walk back.

Where relevance goes is known before anything runs (`onnxprune.routes`). The forward walk records a
small local graph at each node on the way; the backward walk asks it for relevance and frees it.
There are no hooks and no modules: a residual sum is a node like any other.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError
from onnxprune.mirror import Mirror, Step, Trace
from onnxprune.ops._torch import torch
from onnxprune.routes import Route, Way, find_logits, find_routes
from onnxprune.rules import Composite, Layer, distribute, pull, share

if TYPE_CHECKING:
    from torch import Tensor

_LEAST = 1e-30
"""Least total relevance that is scaled to 1; below it the logits are all zero."""


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
    composite: Composite,
    tensors: Collection[str],
    *,
    reduce: Callable[[str, Tensor], Tensor] = lambda _, relevance: relevance,
) -> Trace:
    """Return the relevance of the named tensors for the true classes, each through `reduce`.

    A tensor that no relevance reaches is left out.
    Shapes: x `[N, ...]`, y `[N]` -> relevance as the tensor.
    Units: shares of the explained output; their absolute values sum to 1 at the logits (`start`).
    Raises: UnsupportedOp naming the first node that relevance cannot cross; DataError for a label
    that is not one of the model's classes.
    """
    logits = find_logits(mirror)
    routes = find_routes(mirror, composite, tensors, logits)
    with torch.no_grad():
        records, output = _forward(mirror, x, routes, logits)
        flow = {logits: start(output, torch.as_tensor(y, device=mirror.device))}
        found: Trace = {}
        while records:
            record = records.pop()
            flowing = {n: flow.pop(n) for n in record.step[0].outputs if n in flow}
            found |= {name: reduce(name, flowing[name]) for name in flowing if name in tensors}
            if flowing and record.route is not None:
                for name, received in _back(record, record.route, flowing).items():
                    flow[name] = flow[name] + received if name in flow else received
        return found | {name: reduce(name, flow[name]) for name in flow if name in tensors}


def start(logits: Tensor, y: Tensor) -> Tensor:
    """Return the relevance of the logits: what each adds to `z_y - mean(z)`, scaled.

    `R_k = (1[k = y] - 1/K) z_k`, divided by the sample's `sum |R_k|`. A single logit is explained
    as it is.
    Shapes: logits `[N, K, 1..]`, y `[N]` -> as logits.
    Raises: DataError for a label that is not below K.
    """
    z = logits.flatten(1)
    classes = z.shape[1]
    check_labels(y, classes)
    relevance = z / classes if classes == 1 else -z / classes
    if classes > 1:
        relevance[torch.arange(len(z), device=z.device), y] += z.gather(1, y[:, None])[:, 0]
    total = relevance.abs().sum(1, keepdim=True).clamp(min=_LEAST)
    return (relevance / total).reshape(logits.shape)


def check_labels(y: Tensor, classes: int) -> None:
    """Refuse labels that are not outputs of the model; a single output has no labels to check.

    Raises: DataError naming the largest label.
    """
    if classes > 1 and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(
            f"samples: label {int(y.max())}, expected 0 to {classes - 1}: the model has {classes} "
            f"outputs; number the classes as the model does"
        )


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


def _back(record: Record, route: Route, flowing: Trace) -> Trace:
    """Carry relevance from the outputs of one node to its inputs."""
    leaves = record.leaves
    if record.layer is not None:
        name, arriving = next(iter(flowing.items()))
        received = distribute(route.rule, record.layer, record.outputs[name], arriving)
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
        received_all = share(inputs, ends, arriving_all, route.rule.epsilon)
    return dict(zip(leaves, received_all, strict=True))
