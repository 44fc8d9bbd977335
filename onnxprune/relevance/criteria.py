"""Criteria: how much each channel matters, one number per class and channel.

A criterion gives each filter of each convolution a value; a channel's score is the sum over its
filters. It is named by what it measures and by options, in any order:

    NAME[:OPTION,...]        lrp    lrp:zplus    lrp:zplus@0-0.5,epsilon@0.5-1,layer-l2
    MODULE:FUNCTION[,OPTION,...]                 mine.py:spread,layer-l2

* a variant: of `lrp` a rule, or rules over depth (`onnxprune.relevance.rules`); of `magnitude`
  `l1` or `l2`;
* how a sample's values count: `summed` (signed), `absolute` or `positive`; then they are averaged
  over each class's samples in float64;
* by which norm of all its filters a layer is divided: `layer-none`, `layer-l1`, `layer-l2` or
  `layer-max`.

Relevance is what LRP sums to, in the same unit everywhere, so layers are compared as they are.
The others have no common unit and are divided by their layer's l2 norm (Molchanov et al. 2017,
section 2.3). A function of one's own has the arguments of one of `onnxprune.relevance.measures`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.channels import ChannelGroups, Filters
from onnxprune.data import Data, class_shares, counted
from onnxprune.errors import DataError, InvalidModel, UnknownName
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.plugins import find_function, name_of
from onnxprune.relevance.batches import batches_of
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.measures import (
    activation,
    batchnorm_scale,
    geometric_median,
    gradient,
    lrp,
    magnitude,
    random,
    taylor,
    weight_of,
)
from onnxprune.relevance.mirror import Mirror, Trace
from onnxprune.relevance.rules import RULES, Composite, find_composite
from onnxprune.relevance.scores import ALL
from onnxprune.relevance.scores import Scores as Scores

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

OnBatch = Callable[[int, int], None]

FromSamples = Callable[[Mirror, npt.NDArray[Any], "Tensor", Mapping[str, int]], Trace]
FromWeights = Callable[[npt.NDArray[Any], np.random.Generator], FloatArray]

FromGraph = Callable[[Graph, Filters], FloatArray | None]

SIGNS: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {
        "summed": lambda values: values,
        "absolute": np.abs,
        "positive": lambda values: np.maximum(values, 0),
    }
)
"""How the value of a filter for one sample counts."""

NORMS = MappingProxyType({"layer-none": None, "layer-l1": 1, "layer-l2": 2, "layer-max": np.inf})
"""What the values of a layer's filters are divided by: a norm of their mean over classes."""


@dataclass(frozen=True)
class Criterion:
    """One way to value filters: from samples, from weights or from the graph, only one of them.

    `sign` is one of `SIGNS`, `norm` one of `NORMS`; `variants` makes the criterion of a variant;
    `composite` are the rules of relevance, where a filter's value is plain relevance.
    """

    from_samples: FromSamples | None = None
    from_weights: FromWeights | None = None
    from_graph: FromGraph | None = None
    sign: str = "absolute"
    norm: str = "layer-l2"
    variants: Callable[[str], Criterion] | None = None
    composite: Composite | None = None

    @property
    def needs_samples(self) -> bool:
        """Whether it looks at samples."""
        return self.from_samples is not None


def _lrp(rules: str) -> Criterion:
    rule = find_composite(rules)
    measure = partial(lrp, composite=rule)
    return Criterion(measure, norm="layer-none", variants=_lrp, composite=rule)


def _magnitude(order: str) -> Criterion:
    if order not in ("l1", "l2"):
        raise UnknownName(f"criterion 'magnitude': no variant {order!r}; expected l1 or l2")
    return Criterion(from_weights=partial(magnitude, order=int(order[1])), variants=_magnitude)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "lrp": _lrp("epsilon"),
        "taylor": Criterion(taylor),
        "gradient": Criterion(gradient),
        "activation": Criterion(activation),
        "magnitude": _magnitude("l2"),
        "geometric-median": Criterion(from_weights=geometric_median),
        "batchnorm-scale": Criterion(from_graph=batchnorm_scale),
        "random": Criterion(from_weights=random, norm="layer-none"),
    }
)
"""By the first part of the name that `--criterion` takes."""

NAMES = (
    *CRITERIA,
    *(f"lrp:{name}" for name in RULES),
    *("magnitude:l1", "module:function"),
)
"""What there is to name, without options and rules over depth."""

OWN = "a function (mirror, x, y, tensors) or (weight, rng), see docs/method.md"


def find_criterion(name: str | Callable[..., Any]) -> Criterion:
    """Return the criterion that a name stands for, or that values as a function does.

    Raises: UnknownName for a name, a variant or an option that does not exist.
    """
    if callable(name):
        return _own(name, getattr(name, "__qualname__", "criterion"))
    first, *options = (part.strip() for part in name.split(","))
    base, _, variant = first.partition(":")
    if base in CRITERIA:
        found = CRITERIA[base]
        options = [variant, *options] if variant else options
    elif variant:
        found = _own(find_function(first, OWN), first)
    else:
        raise UnknownName(f"criterion {name!r}: unknown; expected one of {', '.join(NAMES)}")
    others = [o for o in options if o not in SIGNS and o not in NORMS]
    if others and found.variants is None:
        known = ", ".join((*SIGNS, *NORMS))
        raise UnknownName(f"criterion {name!r}: no option {others[0]!r}; expected one of {known}")
    if others and found.variants is not None:
        found = found.variants(",".join(others))
    for option in options:
        found = replace(found, sign=option, composite=None) if option in SIGNS else found
        found = replace(found, norm=option, composite=None) if option in NORMS else found
    return found


def _own(function: Callable[..., Any], name: str) -> Criterion:
    """The criterion of a user's function, told by the number of its arguments."""
    count = len(inspect.signature(function).parameters)
    if count == 4:
        return Criterion(function)
    if count == 2:
        return Criterion(
            from_weights=lambda weight, rng: function(weight.astype(np.float64, copy=False), rng)
        )
    raise UnknownName(f"criterion '{name}': takes {count} arguments; expected {OWN}")


def score(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None = None,
    criterion: str | Callable[..., Any] = "lrp",
    *,
    device: str = "auto",
    batch_size: int = 32,
    rng: np.random.Generator | None = None,
    mirror: Mirror | None = None,
    on_batch: OnBatch | None = None,
) -> Scores:
    """Return the score of every channel by the named criterion, or by a function of one's own.

    `mirror` saves building one; `on_batch(done, total)` hears of the samples that are done.
    Raises: UnknownName for a criterion that does not exist; DataError when it needs samples and has
    none; InvalidModel when a function of one's own returns values of another shape; UnsupportedOp
    when the mirror cannot run the graph, or LRP not cross it.
    """
    chosen = find_criterion(criterion)
    name = criterion if isinstance(criterion, str) else name_of(criterion)
    if not chosen.needs_samples:
        found = _from_model(chosen, graph, groups, name, rng or np.random.default_rng(0))
        return Scores(_gather(groups, found, 1, NORMS[chosen.norm]), name, ALL)
    if data is None or len(data) == 0:
        free = ", ".join(data_free())
        raise DataError(f"criterion {name!r}: needs samples; give data, or use one of {free}")
    mirror = mirror or folded(Mirror(graph, device=device))
    values = _class_means(chosen, mirror, groups, data, batch_size, on_batch)
    found = [values[filters.output] for filters in groups.filters]
    return Scores(_gather(groups, found, len(data.classes), NORMS[chosen.norm]), name, data.classes)


def data_free() -> tuple[str, ...]:
    """Return the names of the criteria that need no samples."""
    return tuple(name for name, one in CRITERIA.items() if not one.needs_samples)


def _from_model(
    chosen: Criterion, graph: Graph, groups: ChannelGroups, name: str, rng: np.random.Generator
) -> list[FloatArray]:
    """The values of each convolution's filters, as one row. Shapes: each `[1, filters]`.

    Where the graph says nothing of any convolution, the criterion does not apply; where of some
    not, their filters count alike.
    """
    sign = SIGNS[chosen.sign]
    if chosen.from_weights is not None:
        measure = chosen.from_weights
        rows = [
            np.asarray(measure(weight_of(graph, groups, f), rng), np.float64)
            for f in groups.filters
        ]
        for row, f in zip(rows, groups.filters, strict=True):
            _check_shape(row, (f.channels.size,), f)
        return [sign(row)[None] for row in rows]
    assert chosen.from_graph is not None
    said = [chosen.from_graph(graph, f) for f in groups.filters]
    if all(values is None for values in said):
        raise InvalidModel(
            f"criterion {name!r}: no convolution is followed by a batch normalisation; export the "
            f"model with it kept, or use magnitude"
        )
    return [
        (np.ones(f.channels.size) if values is None else sign(values))[None]
        for values, f in zip(said, groups.filters, strict=True)
    ]


def _class_means(
    chosen: Criterion,
    mirror: Mirror,
    groups: ChannelGroups,
    data: Data,
    batch_size: int,
    on_batch: OnBatch | None,
) -> dict[str, FloatArray]:
    """The mean of each filter's values over each class's samples. Shapes: `[classes, filters]`.

    A sample with a label map counts alike for each class in it.
    """
    assert chosen.from_samples is not None
    tensors = {filters.output: filters.axis for filters in groups.filters}
    sizes = {filters.output: filters.channels.size for filters in groups.filters}
    highest = int(counted(data.y).max(initial=0))
    if highest >= len(data.classes):
        raise DataError(f"samples: label {highest}, but {len(data.classes)} class names")
    shares = class_shares(data.y, len(data.classes))
    count = shares.sum(0)
    sums = {name: np.zeros((len(data.classes), size)) for name, size in sizes.items()}
    done = 0
    for x, y in batches_of(mirror, data, batch_size):
        padded = np.concatenate([y, np.repeat(y[-1:], len(x) - len(y), axis=0)])
        labels = torch.from_numpy(padded).to(mirror.device)
        found = chosen.from_samples(mirror, x, labels, tensors)
        shown = shares[done : done + len(y)]
        rows, classes = np.nonzero(shown)
        held = shown[rows, classes]
        for filters in groups.filters:
            if filters.output in found:
                values = np.asarray(found[filters.output].detach().double().cpu())
                _check_shape(values, (len(x), filters.channels.size), filters)
                weighed = SIGNS[chosen.sign](values[rows]) * held[:, None]
                np.add.at(sums[filters.output], classes, weighed)
        done += len(y)
        if on_batch is not None:
            on_batch(done, len(data))
        if done == len(y):
            for name in sorted(tensors.keys() - found.keys()):
                logger.warning("convolution output '%s' has no way to the output: scores 0", name)
    return {name: total / np.where(count > 0, count, 1)[:, None] for name, total in sums.items()}


def _check_shape(values: FloatArray, expected: tuple[int, ...], filters: Filters) -> None:
    if values.shape != expected:
        raise InvalidModel(
            f"Conv '{filters.node}': the criterion gives values of shape {list(values.shape)}; "
            f"expected {list(expected)}"
        )


def _gather(
    groups: ChannelGroups, found: list[FloatArray], rows: int, order: float | None
) -> FloatArray:
    """Sum the values of filters into their channels. Shapes: each `[rows, filters]`."""
    table = np.zeros((rows, len(groups)))
    for filters, values in zip(groups.filters, found, strict=True):
        norm = 1.0 if order is None else np.linalg.norm(values.mean(0), order)
        owned = filters.channels >= 0
        scaled = values[:, owned] / (norm or 1.0)
        for row, value in zip(table, scaled, strict=True):
            np.add.at(row, filters.channels[owned], value)
    return table
