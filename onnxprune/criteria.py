"""Criteria: how much each channel matters, one number per class and channel.

A criterion gives each filter of each convolution a value; a channel's score is the sum over its
filters. There are two kinds, and a new one is one function and one line in `CRITERIA`:

* from samples: `(mirror, x, y, tensors) -> values` of each sample and filter; they are averaged
  over each class's samples in float64.
* from weights: `(weight, rng) -> values` of each filter; one row, no samples, no mirror.

Relevance is what LRP sums to, in the same unit everywhere, so layers are compared as they are.
The others have no common unit and are divided by their layer's norm (Molchanov et al. 2017, 2.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.batches import batches_of
from onnxprune.channels import ChannelGroups, Filters
from onnxprune.data import Data
from onnxprune.errors import DataError, InvalidModel, UnknownName
from onnxprune.fold import folded
from onnxprune.graph import Graph
from onnxprune.mirror import Mirror, Trace
from onnxprune.ops._torch import functional, torch
from onnxprune.relevance import check_labels, relevance
from onnxprune.routes import find_logits
from onnxprune.rules import RULES, find_rule
from onnxprune.scores import ALL, FloatArray
from onnxprune.scores import Scores as Scores

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.rules import Rule

logger = logging.getLogger(__name__)

OnBatch = Callable[[int, int], None]

FromSamples = Callable[[Mirror, npt.NDArray[Any], "Tensor", Collection[str]], Trace]
FromWeights = Callable[[FloatArray, np.random.Generator], FloatArray]


@dataclass(frozen=True)
class Criterion:
    """One way to value filters: from samples or from weights, never both.

    `normalise` divides by the layer's l2 norm.
    """

    from_samples: FromSamples | None = None
    from_weights: FromWeights | None = None
    normalise: bool = True


def score(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None = None,
    criterion: str = "lrp",
    *,
    device: str = "auto",
    batch_size: int = 32,
    rng: np.random.Generator | None = None,
    mirror: Mirror | None = None,
    on_batch: OnBatch | None = None,
) -> Scores:
    """Return the score of every channel by the named criterion.

    `mirror` saves building one; `on_batch(done, total)` hears of the samples that are done.
    Raises: UnknownName for a criterion that does not exist; DataError when it needs samples and has
    none; UnsupportedOp when the mirror cannot run the graph, or LRP not cross it.
    """
    if criterion not in CRITERIA:
        raise UnknownName(
            f"criterion {criterion!r}: unknown; expected one of {', '.join(CRITERIA)}"
        )
    chosen = CRITERIA[criterion]
    if chosen.from_weights is not None:
        rng = rng or np.random.default_rng(0)
        found = [
            chosen.from_weights(_weight(graph, groups, filters), rng)[None]
            for filters in groups.filters
        ]
        return Scores(_gather(groups, found, 1, normalise=chosen.normalise), criterion, ALL)
    if chosen.from_samples is None or data is None or len(data) == 0:
        free = ", ".join(name for name, c in CRITERIA.items() if c.from_weights)
        raise DataError(f"criterion {criterion!r}: needs samples; give data, or use one of {free}")
    mirror = mirror or folded(Mirror(graph, device=device))
    values = _class_means(chosen.from_samples, mirror, groups, data, batch_size, on_batch)
    found = [values[filters.output] for filters in groups.filters]
    table = _gather(groups, found, len(data.classes), normalise=chosen.normalise)
    return Scores(table, criterion, data.classes)


def _class_means(
    measure: FromSamples,
    mirror: Mirror,
    groups: ChannelGroups,
    data: Data,
    batch_size: int,
    on_batch: OnBatch | None,
) -> dict[str, FloatArray]:
    """The mean of each filter's values over each class's samples. Shapes: `[classes, filters]`."""
    tensors = {filters.output: filters.channels.size for filters in groups.filters}
    count = np.bincount(data.y, minlength=len(data.classes))
    if count.size > len(data.classes):
        raise DataError(f"samples: label {count.size - 1}, but {len(data.classes)} class names")
    sums = {name: np.zeros((len(data.classes), size)) for name, size in tensors.items()}
    done = 0
    for x, y in batches_of(mirror, data, batch_size):
        padded = np.concatenate([y, np.repeat(y[-1:], len(x) - len(y))])
        labels = torch.from_numpy(padded).to(mirror.device)
        found = measure(mirror, x, labels, tensors)
        for name, values in found.items():
            np.add.at(sums[name], y, values.detach().double().cpu().numpy()[: len(y)])
        done += len(y)
        if on_batch is not None:
            on_batch(done, len(data))
        if done == len(y):
            for name in sorted(tensors.keys() - found.keys()):
                logger.warning("convolution output '%s' has no way to the output: scores 0", name)
    return {name: total / np.maximum(count, 1)[:, None] for name, total in sums.items()}


def _gather(
    groups: ChannelGroups, found: list[FloatArray], rows: int, *, normalise: bool
) -> FloatArray:
    """Sum the values of filters into their channels. Shapes: each `[rows, filters]`."""
    table = np.zeros((rows, len(groups)))
    for filters, values in zip(groups.filters, found, strict=True):
        norm = np.linalg.norm(values.mean(0)) if normalise else 1.0
        owned = filters.channels >= 0
        scaled = values[:, owned] / (norm or 1.0)
        for row, value in zip(table, scaled, strict=True):
            np.add.at(row, filters.channels[owned], value)
    return table


def _weight(graph: Graph, groups: ChannelGroups, filters: Filters) -> FloatArray:
    """A convolution's weight as a matrix, also one that the graph computes from constants.

    Shapes: `[filters, inputs]`.
    """
    if filters.weight in graph.constant_tensors:
        weight = graph.constant(filters.weight)
    else:
        weight = _computed(graph, filters)
    axes = groups.cuts.get(filters.weight, {})
    made = [a for a, owners in axes.items() if np.array_equal(owners, filters.channels)]
    moved = np.moveaxis(np.asarray(weight, np.float64), made[0] if made else 0, 0)
    return moved.reshape(len(filters.channels), -1)


def _computed(graph: Graph, filters: Filters) -> npt.NDArray[Any]:
    mirror = Mirror(graph, device="cpu")
    env = dict(mirror.constants)
    needed = {filters.weight}
    for node, _ in reversed(mirror.steps):
        if needed.intersection(node.outputs):
            needed.update(node.inputs)
    if needed.intersection(graph.inputs):
        raise InvalidModel(
            f"Conv '{filters.node}': its weight '{filters.weight}' depends on the image; criteria "
            f"on weights need a constant one; use lrp, taylor or activation"
        )
    for step in mirror.steps:
        if needed.intersection(step[0].outputs):
            mirror.execute(step, env)
    return env[filters.weight].double().numpy()


def _space(x: Tensor) -> Tensor:
    """Sum over space, in float64. Shapes: `[N, C, *]` -> `[N, C]`."""
    return x.flatten(2).sum(2, dtype=torch.float64)


def lrp(
    mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Collection[str], *, rule: Rule
) -> Trace:
    """`|sum over space of R|` at the output of the convolution, normalisation folded in.

    Source: Yeom et al. 2021, section 3; the absolute value per sample is measured, see docs/method.
    """
    return relevance(mirror, x, y, rule, tensors, reduce=lambda r: _space(r).abs())


def taylor(mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Collection[str]) -> Trace:
    """`|sum over space of a dL/da|` at the output, L the cross-entropy of the true class.

    Source: Molchanov et al. 2017, eq. 8.
    """
    logits = find_logits(mirror)
    env = mirror.start({mirror.graph.image: x})
    kept: Trace = {}
    with torch.enable_grad():
        for step, spent in mirror.schedule():
            mirror.execute(step, env)
            for name in step[0].outputs:
                if name in tensors:
                    kept[name] = env[name].requires_grad_()
            if logits in env:
                break
            for name in spent:
                env.pop(name, None)
        loss = _loss(env[logits].flatten(1), y)
        grads = torch.autograd.grad(loss, list(kept.values()), allow_unused=True)
    with torch.no_grad():
        return {
            name: _space(kept[name] * grad).abs()
            for name, grad in zip(kept, grads, strict=True)
            if grad is not None
        }


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    """The summed cross-entropy of the true classes; a single logit is that of class 1."""
    check_labels(y, logits.shape[1])
    if logits.shape[1] == 1:
        truth = y.clamp(0, 1)[:, None].to(logits.dtype)
        return functional.binary_cross_entropy_with_logits(logits, truth, reduction="sum")
    return functional.cross_entropy(logits, y, reduction="sum")


def activation(mirror: Mirror, x: npt.NDArray[Any], y: Tensor, tensors: Collection[str]) -> Trace:
    """Mean over space of `max(a, 0)` at the output of the convolution.

    Source: Molchanov et al. 2017, section 2.2.
    """
    env = mirror.start({mirror.graph.image: x})
    found: Trace = {}
    with torch.no_grad():
        for step, spent in mirror.schedule():
            mirror.execute(step, env)
            for name in step[0].outputs:
                if name in tensors:
                    found[name] = env[name].clamp(min=0).flatten(2).mean(2, dtype=torch.float64)
            for name in spent:
                env.pop(name, None)
    return found


def magnitude(weight: FloatArray, rng: np.random.Generator, *, order: int = 2) -> FloatArray:
    """The norm of a filter's weights. Source: Li et al. 2017, section 3.1 (l1)."""
    return np.asarray(np.linalg.norm(weight, order, axis=1))


def geometric_median(weight: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The sum of a filter's distances to the layer's others: near the median is replaceable.

    Source: He et al. 2019, eq. 4.
    """
    gram = weight @ weight.T
    square = np.diag(gram)[:, None] + np.diag(gram) - 2 * gram
    return np.asarray(np.sqrt(np.maximum(square, 0)).sum(1))


def random(weight: FloatArray, rng: np.random.Generator) -> FloatArray:
    """A number that knows nothing: the floor that every criterion has to beat."""
    return rng.random(len(weight))


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "lrp": Criterion(partial(lrp, rule=find_rule("lrp")), normalise=False),
        **{
            f"lrp:{name}": Criterion(partial(lrp, rule=rule), normalise=False)
            for name, rule in RULES.items()
        },
        "taylor": Criterion(taylor),
        "activation": Criterion(activation),
        "magnitude": Criterion(from_weights=magnitude),
        "magnitude:l1": Criterion(from_weights=partial(magnitude, order=1)),
        "geometric-median": Criterion(from_weights=geometric_median),
        "random": Criterion(from_weights=random, normalise=False),
    }
)
"""By the name that `--criterion` takes."""
