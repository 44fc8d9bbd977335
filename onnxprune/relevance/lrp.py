"""Relevance of every tensor: one walk forward over the mirror, one walk back.

The routes of relevance are found before anything runs (`onnxprune.relevance.routes`). The walk
forward records a small local graph at each node of a route; the walk back distributes relevance
with it and frees it. There are no hooks and no modules: a residual sum is a node like any other.
"""

from __future__ import annotations

import math
from collections import ChainMap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.data import IGNORED, Head, class_axis, fit_labels
from onnxprune.errors import DataError
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror, Step, Tensors
from onnxprune.relevance.routes import Route, Way, find_ends, find_routes
from onnxprune.relevance.rules import (
    Composite,
    Denominator,
    Layer,
    denominator,
    distribute,
    whole_of,
)
from onnxprune.relevance.sharing import contributions, pull, stabilise

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.relevance.mirror import Feed

_LEAST = 1e-30
"""The smallest total that is scaled to 1; a smaller one means that all logits are zero."""


@dataclass
class Record:
    """What the walk forward keeps of a node for the walk back.

    `leaves` and `outputs` are the ends of its local graph; `layer` is there where the rule has
    branches, which need modified forwards in place of that graph; those that add up to the layer
    are `known` when its output is. `inverses` are one over the
    outputs, which several walks back multiply by.
    """

    step: Step
    route: Route | None
    leaves: Tensors
    outputs: Tensors
    layer: Layer | None = None
    known: Sequence[Denominator] = ()
    inverses: Tensors = field(default_factory=dict)

    def over(self, name: str, relevance: Tensor, epsilon: float, *, again: bool) -> Tensor:
        """Return relevance over an output that is kept away from zero.

        What that takes is kept for another walk where there is one (`again`).
        Shapes: as the output.
        """
        if name not in self.inverses:
            z = stabilise(self.outputs[name].detach(), epsilon)
            if not again:
                return torch.div(relevance, z, out=z)
            self.inverses[name] = z.reciprocal_()
        return relevance * self.inverses[name]


def relevance(
    mirror: Mirror,
    x: Feed,
    y: npt.NDArray[np.int64] | Tensor,
    composite: Composite,
    tensors: Collection[str],
    *,
    reduce: Callable[[str, Tensor], Tensor] = lambda _, relevance: relevance,
) -> Tensors:
    """Return the relevance of the named tensors for the true classes, each passed to `reduce`.

    A tensor that no relevance reaches is left out. Where an output holds no class scores, the
    elements of it are explained with random signs (`signed`).
    Shapes: x `[N, ...]`, y `[N]` or maps `[N, H, W]` -> relevance as the tensor.
    Units: shares of what is explained; their absolute values sum to 1 at the outputs (`start`).
    Raises: UnsupportedOp naming the first node that relevance cannot cross; DataError for a label
    that is none of the model's classes.
    """
    labels = torch.as_tensor(y, device=mirror.device)
    rng = np.random.default_rng(0)

    def starts(ends: Tensors) -> list[Tensors]:
        return [start_at(ends, find_ends(mirror), labels, rng)]

    (found,) = explain(mirror, x, starts, composite, tensors, reduce=reduce)
    return found


def explain(
    mirror: Mirror,
    x: Feed,
    starts: Callable[[Tensors], Sequence[Tensors]],
    composite: Composite,
    tensors: Collection[str],
    *,
    reduce: Callable[[str, Tensor], Tensor] = lambda _, relevance: relevance,
) -> list[Tensors]:
    """Return the relevance of the named tensors for each start that `starts(ends)` returns.

    A start is relevance of the ends: the logits, or other outputs (`find_ends`). There is one walk
    forward, and one back for each start.
    Shapes: x `[N, ...]`; each start as the ends, by name.
    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    ends = tuple(find_ends(mirror))
    routes = find_routes(mirror, composite, tensors, ends)
    with torch.no_grad():
        records, outputs = _forward(mirror, x, routes, ends)
        heads = find_ends(mirror)
        begun = [
            {name: flow[0] if heads[name].alone else flow for name, flow in one.items()}
            for one in starts(with_batch(outputs, heads))
        ]
        walks = [records.copy() for _ in begun[1:]]
        walks.append(records)
        return [
            _walk_back(walk, dict(flow), tensors, reduce, again=walk is not records)
            for walk, flow in zip(walks, begun, strict=True)
        ]


def with_batch(ends: Tensors, heads: Mapping[str, Head]) -> Tensors:
    """Return the ends of samples, each with a batch axis in the first place. Shapes: `[n, ...]`."""
    return {name: end[None] if heads[name].alone else end for name, end in ends.items()}


def _walk_back(
    records: list[Record],
    flow: Tensors,
    tensors: Collection[str],
    reduce: Callable[[str, Tensor], Tensor],
    *,
    again: bool,
) -> Tensors:
    """Carry relevance back, emptying `records` from the end; `again` keeps their local graphs."""
    found: Tensors = {}
    while records:
        record = records.pop()
        flowing = {n: flow.pop(n) for n in record.step.node.outputs if n in flow}
        found |= {name: reduce(name, flowing[name]) for name in flowing if name in tensors}
        if flowing and record.route is not None:
            for name, received in _back(record, record.route, flowing, again).items():
                flow[name] = flow[name] + received if name in flow else received
    return found | {name: reduce(name, flow[name]) for name in flow if name in tensors}


def start_at(
    ends: Tensors, heads: Mapping[str, Head], y: Tensor, rng: np.random.Generator
) -> Tensors:
    """Return the relevance of all ends, which counts alike for each.

    Shapes: as the ends; y as `start` takes it.
    Raises: DataError for a label that is none of the model's classes.
    """
    starts = {}
    for name, head in heads.items():
        end = ends[name]
        if is_labelled(end, heads, y):
            starts[name] = start(end, y)
        else:
            one = of_highest(end, head) if head.kind == "classes" else signed(end, head, rng)
            starts[name] = one / len(heads)
    return starts


def is_labelled(end: Tensor, heads: Mapping[str, Head], y: Tensor | IntArray) -> bool:
    """Return whether labels are classes of an output: of the only one, a sample's or a pixel's.

    Shapes: end `[N, ...]`, y `[N]` or maps.
    """
    sizes = end.shape[1:]
    kinds = [head.kind for head in heads.values()]
    return kinds == ["classes"] and (y.ndim == 3 or max(sizes, default=1) == math.prod(sizes))


def of_highest(scores: Tensor, head: Head) -> Tensor:
    """Return the relevance of class scores without labels: `start` for the highest at each place.

    Shapes: as the scores.
    Units: shares; their absolute values sum to 1 over a sample.
    """
    z = scores.movedim(head.axis, 1)
    relevance = z if z.shape[1] == 1 else -z / z.shape[1]
    if z.shape[1] > 1:
        best = z.argmax(1, keepdim=True)
        relevance = relevance.scatter_add(1, best, z.gather(1, best))
    total = relevance.abs().flatten(1).sum(1).clamp(min=_LEAST)
    return (relevance / total.reshape(-1, *[1] * (z.ndim - 1))).movedim(1, head.axis)


def signed(values: Tensor, head: Head, rng: np.random.Generator) -> Tensor:
    """Return the relevance of numbers: each in units of its deviation, with a random sign.

    The square of the sum over all numbers is then, on average, the sum of squares: what is
    explained is how far the numbers move, in any direction.
    Shapes: as the values.
    Units: shares; their absolute values sum to 1 over a sample.
    Source: Hutchinson 1990 (A stochastic estimator of the trace of the influence matrix).
    """
    relevance = values * random_signs(values, rng) / deviation_of(head, values)
    total = relevance.abs().reshape(len(values), -1).sum(1).clamp(min=_LEAST)
    return relevance / total.reshape(-1, *[1] * (values.ndim - 1))


def random_signs(like: Tensor, rng: np.random.Generator) -> Tensor:
    """Return a random sign for each element. Shapes: as `like`."""
    signs = rng.integers(0, 2, tuple(like.shape), dtype=np.int8) * 2 - 1
    return torch.from_numpy(signs).to(like)


def deviation_of(head: Head, like: Tensor) -> Tensor:
    """Return what a change of the numbers is measured in. Shapes: broadcasts to `like`."""
    if head.deviation is None:
        return torch.ones((), dtype=like.dtype, device=like.device)
    return torch.from_numpy(np.asarray(head.deviation)).to(like)


def start(logits: Tensor, y: Tensor) -> Tensor:
    """Return the relevance of the logits: what each contributes to `z_y - mean(z)`, scaled.

    `R_k = (1[k = y] - 1/K) z_k`, divided by `sum |R_k|` over the sample. A single logit is
    explained as it is. Pixels of a map are weighed by `pixel_weights` before.
    Shapes: as `by_class` takes them -> as logits.
    Raises: DataError for a label that is not below K.
    """
    z, labels = by_class(logits, y)
    classes = z.shape[1]
    check_labels(labels, classes)
    relevance = z / classes if classes == 1 else -z / classes
    if classes > 1:
        true = labels[:, None].clamp(max=classes - 1)
        relevance = relevance.scatter_add(1, true, z.gather(1, true))
    if labels.ndim == 3:
        relevance = relevance * pixel_weights(labels)[:, None]
    total = relevance.abs().flatten(1).sum(1).clamp(min=_LEAST)
    return as_logits(relevance / total.reshape(-1, *[1] * (z.ndim - 1)), logits, y)


def by_class(logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return class scores along axis 1, and the labels of each score.

    Shapes: logits `[N, K, 1..]`, y `[N]` -> `[N, K]`, `[N]`; logits `[N, K, H, W]` or
    `[N, H, W, K]`, maps y `[N, H', W']` -> `[N, K, H, W]`, `[N, H, W]`.
    """
    if y.ndim == 1:
        return logits.flatten(1), y
    axis = class_axis(logits.shape, y.shape)
    return logits.movedim(axis, 1), fit_labels(y, logits.shape)


def pixel_weights(maps: Tensor) -> Tensor:
    """Return the weight of every pixel: the classes of a map weigh alike, as do a class's pixels.

    The weights of a map sum to 1, and are 0 where a pixel does not count. Without them the largest
    class of an image, mostly its background, would drown the others (docs/method.md).
    Shapes: `[N, H, W]` -> `[N, H, W]`.
    """
    flat = maps.flatten(1)
    valid = flat != IGNORED
    count = torch.zeros(len(flat), int(flat.max()) + 1, device=maps.device)
    count.scatter_add_(1, flat, valid.to(count.dtype))
    present = (count > 0).sum(1, keepdim=True).clamp(min=1)
    return (valid / (count.gather(1, flat).clamp(min=1) * present)).reshape(maps.shape)


def as_logits(values: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    """Return values of class scores in the shape of the logits: the inverse of `by_class`."""
    if y.ndim == 1:
        return values.reshape(logits.shape)
    return values.movedim(1, class_axis(logits.shape, y.shape))


def check_labels(y: Tensor, classes: int) -> None:
    """Refuse labels that are no outputs of the model; a single output takes any label.

    Shapes: y `[N]` or maps `[N, H, W]`.
    Raises: DataError naming the largest label.
    """
    y = y if y.ndim == 1 else y[y != IGNORED]
    if classes > 1 and y.numel() and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise DataError(
            f"samples: label {int(y.max())}, expected 0 to {classes - 1}: the model has {classes} "
            f"outputs; number the classes as the model does"
        )


def _forward(
    mirror: Mirror, x: Feed, routes: Mapping[str, Route], ends: Collection[str]
) -> tuple[list[Record], Tensors]:
    """Run the mirror up to the ends; return a record of each node and the ends."""
    env = mirror.start(x)
    found = {name: env[name] for name in ends if name in env}
    records: list[Record] = []
    for step in mirror.walk(env):
        if len(found) == len(ends):
            break
        records.append(_record(mirror, step, env, routes.get(step.node.name)))
        env.update({name: value.detach() for name, value in records[-1].outputs.items()})
        found.update({name: env[name] for name in step.node.outputs if name in ends})
        if records[-1].route is None or records[-1].route.way is Way.PASS:
            records[-1].outputs = {}
    return records, found


def _record(mirror: Mirror, step: Step, env: Tensors, route: Route | None) -> Record:
    """Run one node; keep what its route needs: a local graph, a layer, or only shapes."""
    outputs: Tensors = {}
    if route is None or route.way is Way.PASS:
        mirror.execute(step, env, outputs)
        names = [n for n in route.inputs if n in env] if route else ()
        # An expanded scalar has the shape and no memory.
        leaves = {n: env[n].new_empty(()).expand(env[n].shape) for n in names}
        return Record(step, route, leaves, outputs)
    if route.way is Way.RULE:
        layer = _layer(mirror, step, env, route.inputs[0])
        wide = step.node.name in mirror.quick  # to keep modified weights costs less than a forward
        if route.rule.is_whole and wide and not step.node.within:
            known = [denominator(route.rule, one, layer) for one in route.rule.branches]
            outputs[step.node.outputs[0]] = whole_of(known)
            return Record(step, route, {}, outputs, layer, known)
        mirror.execute(step, env, outputs)
        return Record(step, route, {}, outputs, layer)
    leaves = {n: env[n].detach() for n in route.inputs if n in env}
    leaves = {n: leaf for n, leaf in leaves.items() if leaf.is_floating_point()}
    with torch.enable_grad():
        for leaf in leaves.values():
            leaf.requires_grad_()
        mirror.execute(mirror.quickly(step), ChainMap(leaves, env), outputs)
    return Record(step, route, leaves, outputs)


def _layer(mirror: Mirror, step: Step, env: Tensors, name: str) -> Layer:
    node, op = mirror.quickly(step, only_back=True)
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


def _back(record: Record, route: Route, flowing: Tensors, again: bool) -> Tensors:
    """Carry relevance from the outputs of one node to its inputs."""
    leaves = record.leaves
    if record.layer is not None:
        name, arriving = next(iter(flowing.items()))
        y, known = record.outputs[name], record.known
        received = distribute(route.rule, record.layer, y, arriving, known, again=again)
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
        received_all = pull(inputs, ends, arriving_all, again=again)
    else:
        over = [
            record.over(name, relevance, route.rule.epsilon, again=again)
            for name, relevance in zip(smooth, arriving_all, strict=True)
        ]
        received_all = contributions(inputs, ends, over, again=again)
    return dict(zip(leaves, received_all, strict=True))
