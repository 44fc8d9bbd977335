"""Criteria: how much each channel matters to each class.

A criterion gives each filter of each convolution a value; the score of a channel is the sum over
its filters. The name of a criterion says what it measures, followed by options in any order:

    NAME[:OPTION,...]        lrp    lrp:zplus    lrp:zplus@0-0.5,epsilon@0.5-1,layer-l2
    MODULE:FUNCTION[,OPTION,...]                 mine.py:spread,layer-l2

* the variant: of `lrp` a rule, or rules over depth (`onnxprune.relevance.rules`); of `magnitude`
  `l1` or `l2`;
* the sign: whether the values of a sample count `summed` (with their sign), `absolute` or
  `positive`, before they are averaged over the samples of a class in float64;
* the norm that the values of a layer are divided by: `layer-none`, `layer-l1`, `layer-l2` or
  `layer-max`.

Relevance has the same unit in every layer, so layers are compared as they are. The other criteria
have no common unit and are divided by the l2 norm of their layer (Molchanov et al. 2017, section
2.3). A user's function takes the arguments of one of `onnxprune.relevance.measures`.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.channels import GROUPS, ChannelGroups, Filters
from onnxprune.checks import BATCH_SIZE, DEVICE, THREADS, Text
from onnxprune.data import DATA, Data
from onnxprune.errors import DataError, InvalidModel, UnknownName, UnsupportedOp, check_name
from onnxprune.graph import GRAPH, Graph
from onnxprune.ops._torch import torch
from onnxprune.plugins import find_function, name_of, users_code
from onnxprune.relevance.advice import advise
from onnxprune.relevance.class_sums import SIGNS, ClassSums, FromSamples, check_shape, class_means
from onnxprune.relevance.finite import check_finite
from onnxprune.relevance.measures import (
    activation,
    batchnorm_scale,
    geometric_median,
    gradient,
    lrp,
    magnitude,
    random,
    taylor,
)
from onnxprune.relevance.mirror import Tensors
from onnxprune.relevance.rules import RULES, Composite, find_composite
from onnxprune.relevance.scores import ALL
from onnxprune.relevance.scores import Scores as Scores
from onnxprune.relevance.threads import one_thread
from onnxprune.relevance.weights import weight_of

logger = logging.getLogger(__name__)

if TYPE_CHECKING:  # numpy loads its random numbers when they are named
    FromWeights = Callable[[npt.NDArray[Any], np.random.Generator], FloatArray]
FromGraph = Callable[[Graph, Filters], FloatArray | None]

NORMS = MappingProxyType({"layer-none": None, "layer-l1": 1, "layer-l2": 2, "layer-max": np.inf})
"""The order of the norm that the values of a layer, averaged over classes, are divided by."""


@dataclass(frozen=True)
class Criterion:
    """One way to value filters: either from samples, from weights or from the graph.

    `sign` is one of `SIGNS`, `norm` one of `NORMS`. `variant(text)` returns another variant of the
    criterion. `composite` holds the rules of LRP where the values are relevance as it is.
    `counts_only` says that `from_weights` needs no weights, only how many filters there are;
    `users`, that the function is a user's.
    """

    from_samples: FromSamples | None = None
    from_weights: FromWeights | None = None
    from_graph: FromGraph | None = None
    sign: str = "absolute"
    norm: str = "layer-l2"
    variant: Callable[[str], Criterion] | None = None
    composite: Composite | None = None
    counts_only: bool = False
    users: bool = False

    @property
    def needs_samples(self) -> bool:
        """Whether it looks at samples."""
        return self.from_samples is not None

    def with_options(self, name: str, options: Collection[str]) -> Criterion:
        """Return the criterion of this variant, sign and norm; `name` is what an error quotes.

        Raises: UnknownName for an option that does not exist, or two signs or norms.
        """
        sign, norm = _one_of(name, options, SIGNS), _one_of(name, options, NORMS)
        others = [option for option in options if option not in {*SIGNS, *NORMS}]
        if others and self.variant is None:
            check_name(f"criterion '{name}', option", others[0], (*SIGNS, *NORMS))
        found = self.variant(",".join(others)) if others and self.variant else self
        if not sign and not norm:
            return found
        return replace(found, sign=sign or found.sign, norm=norm or found.norm, composite=None)


def _one_of(name: str, options: Collection[str], known: Collection[str]) -> str | None:
    """Return the option that is one of the known, or None; refuse two."""
    chosen = [option for option in options if option in known]
    if len(chosen) > 1:
        raise UnknownName(
            f"criterion '{name}': {' and '.join(chosen)}; expected one of {', '.join(known)}"
        )
    return chosen[0] if chosen else None


def _lrp(rules: str) -> Criterion:
    composite = find_composite(rules)
    measure = partial(lrp, composite=composite)
    return Criterion(measure, norm="layer-none", variant=_lrp, composite=composite)


def _magnitude(order: str) -> Criterion:
    check_name("magnitude", order, ("l1", "l2"))
    return Criterion(from_weights=partial(magnitude, order=int(order[1])), variant=_magnitude)


CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "lrp": _lrp("epsilon"),
        "taylor": Criterion(taylor),
        "gradient": Criterion(gradient),
        "activation": Criterion(activation),
        "magnitude": _magnitude("l2"),
        "geometric-median": Criterion(from_weights=geometric_median),
        "batchnorm-scale": Criterion(from_graph=batchnorm_scale),
        "random": Criterion(from_weights=random, norm="layer-none", counts_only=True),
    }
)
"""By name, without options."""

CRITERION_NAMES = (*CRITERIA, *(f"lrp:{name}" for name in RULES), "magnitude:l1", "module:function")
"""The names that the help lists: criteria and their variants, without rules over depth."""

USER_FUNCTION = "a function (mirror, x, y, tensors) or (weight, rng), see docs/method.md"


CRITERION = Text(name_of=name_of, of="the name of a criterion")


def find_criterion(name: str | Callable[..., Any]) -> Criterion:
    """Return the criterion of a name, or of a user's function.

    Raises: UnknownName for a name, a variant or an option that does not exist, and for a function
    that takes other arguments.
    """
    if callable(name):
        return _of_function(name, getattr(name, "__qualname__", "criterion"))
    name = str(CRITERION("criterion", name))
    first, *options = (part.strip() for part in name.split(","))
    base, colon, rest = first.partition(":")
    if colon and base not in CRITERIA:
        return _of_function(find_function(first, USER_FUNCTION), first).with_options(name, options)
    check_name("criterion", base, (*CRITERIA, "module:function"))
    return CRITERIA[base].with_options(name, [rest, *options] if colon else options)


def _of_function(function: Callable[..., Any], name: str) -> Criterion:
    """Return the criterion of a user's function; its kind follows from the calls that it allows."""
    from_samples, from_weights = _takes(function, 4), _takes(function, 2)
    if from_samples == from_weights:
        found = "4 arguments as well as 2" if from_samples else "neither 4 nor 2 arguments"
        raise UnknownName(f"criterion '{name}': takes {found}; expected {USER_FUNCTION}")

    if from_samples:
        return Criterion(partial(_measure, function, name), users=True)
    return Criterion(from_weights=partial(_weigh, function, name))


def _measure(function: Callable[..., Any], name: str, *given: Any) -> Tensors:
    with users_code(f"criterion '{name}'", USER_FUNCTION):
        return {key: torch.as_tensor(found) for key, found in function(*given).items()}


def _weigh(
    function: Callable[..., Any], name: str, weight: npt.NDArray[Any], rng: np.random.Generator
) -> FloatArray:
    with users_code(f"criterion '{name}'", USER_FUNCTION):
        return np.asarray(function(weight.astype(np.float64, copy=False), rng), np.float64)


def _takes(function: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):  # it takes other arguments, or does not say which
        return False
    return True


def score(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None = None,
    criterion: str | Callable[..., Any] = "lrp",
    *,
    device: str = "auto",
    batch_size: int = 32,
    threads: int = 0,
    rng: np.random.Generator | None = None,
) -> Scores:
    """Return the score of every channel by a criterion, named or a user's function.

    Shapes: values `[classes, channels]`, one class `all` where the criterion needs no samples.
    Units: those of the criterion; a layer is divided by its norm, except by `lrp` and `random`.
    Raises: UnknownName for a criterion that does not exist; InvalidType or InvalidValue for another
    argument that is not as it should be; DataError where samples are missing;
    InvalidModel where a user's function returns values of another shape; UnsupportedOp where the
    mirror cannot run the graph, or LRP cannot cross it.
    """
    GRAPH("graph", graph)
    GROUPS("groups", groups)
    if data is not None:
        DATA("data", data)
    DEVICE("device", device)
    BATCH_SIZE("batch_size", batch_size)
    THREADS("threads", threads)
    rng = rng or np.random.default_rng(0)
    run = partial(_score, graph, groups, device=device, batch_size=batch_size, rng=rng)
    with one_thread(threads):
        try:
            found = run(data, criterion)
        except UnsupportedOp as error:
            one = None if data is None else data.every(len(data), 0)
            advise(error, graph, str(criterion), partial(run, one))
            raise
    finite = np.asarray(np.isfinite(found.values).all(axis=0))
    check_finite(f"criterion '{criterion}'", finite, graph, groups, data)
    return found


def _score(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    criterion: str | Callable[..., Any],
    *,
    device: str,
    batch_size: int,
    rng: np.random.Generator,
) -> Scores:
    chosen, name = find_criterion(criterion), CRITERION("criterion", criterion)
    if not chosen.needs_samples:
        found = _from_model(chosen, graph, groups, name, rng)
        return Scores(_gather(groups, found, 1, NORMS[chosen.norm]), name, ALL)
    if data is None or len(data) == 0:
        free = ", ".join(data_free())
        raise DataError(f"criterion {name!r}: needs samples; give data, or use one of {free}")
    assert chosen.from_samples is not None
    how = chosen.from_samples, chosen.sign, device, batch_size, chosen.users
    sums = ClassSums(graph, groups, data, *how)
    values = class_means(sums)
    found = [values[filters.output] for filters in groups.filters]
    return Scores(_gather(groups, found, len(data.classes), NORMS[chosen.norm]), name, data.classes)


def data_free() -> tuple[str, ...]:
    """Return the names of the criteria that need no samples and work on every model."""
    return tuple(name for name, one in CRITERIA.items() if one.from_weights is not None)


def _from_model(
    chosen: Criterion, graph: Graph, groups: ChannelGroups, name: str, rng: np.random.Generator
) -> list[FloatArray]:
    """The values of the filters of each convolution. Shapes: each `[1, filters]`.

    A criterion may have no values for some convolutions: one from the graph where no normalisation
    follows, one from weights where no constant is part of the filters. These filters count alike,
    so that others decide where they are tied to some.
    """
    sign = SIGNS[chosen.sign]
    said = [_measured(chosen, graph, groups, f, rng) for f in groups.filters]
    if chosen.from_graph is not None and all(values is None for values in said):
        raise InvalidModel(
            f"criterion {name!r}: no convolution is followed by a batch normalisation; export the "
            f"model with it kept, or use magnitude"
        )
    return [
        (np.ones(f.channels.size) if values is None else sign(values))[None]
        for values, f in zip(said, groups.filters, strict=True)
    ]


def _measured(
    chosen: Criterion,
    graph: Graph,
    groups: ChannelGroups,
    filters: Filters,
    rng: np.random.Generator,
) -> FloatArray | None:
    """The values of a convolution's filters, or None. Shapes: `[filters]`."""
    if chosen.from_graph is not None:
        return chosen.from_graph(graph, filters)
    assert chosen.from_weights is not None
    nothing = np.empty((filters.channels.size, 0))
    weight = nothing if chosen.counts_only else weight_of(graph, groups, filters)
    if weight is None:
        return None
    values = np.asarray(chosen.from_weights(weight, rng), np.float64)
    check_shape(values, (filters.channels.size,), filters)
    return values


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
