"""What ranks the channels of a search: the criterion, the damage, or what others can restore."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.data import Data, part_of
from onnxprune.graph import Graph
from onnxprune.progress import phase
from onnxprune.relevance import (
    SAMPLES,
    Halving,
    Scores,
    batch_in_cache,
    batch_within,
    find_criterion,
    score,
)
from onnxprune.search.protocols import MeasureDamage, Rank, Restore
from onnxprune.search.settings import Settings
from onnxprune.search.unseen import are_few

CONVENTIONAL = "lrp:zplus"
"""The criterion whose one ranking may order channels beside damage."""


def walk_batch(graph: Graph, data: Data | None, settings: Settings) -> int:
    """Return how many samples relevance and least squares compute at once.

    Raises: DataError where the memory asked for does not hold one.
    """
    if data is None:
        return settings.batch_size
    return batch_within(graph, settings.batch_size, settings.memory, device=settings.device)


def make_rank(graph: Graph, data: Data | None, fitted: Data | None, settings: Settings) -> Rank:
    """Return what ranks channels by the criterion of the settings.

    `fitted` are the samples of a fit to others, where ranks follow what that cannot restore.
    """
    batch_size = walk_batch(graph, data, settings)
    device = settings.device
    scores = make_scores(graph, data, settings)
    priced = Halving(lambda size: partial(_priced, device=device, batch_size=size), batch_size)

    @phase("relevance")
    def rank(graph: Graph, groups: ChannelGroups) -> FloatArray:
        total = scores(graph, groups)
        if _evenly(data, settings):
            return quantiles(groups, total)
        if fitted is None or not by_what_is_lost(settings):
            return total
        found: FloatArray = priced(graph, groups, fitted, total)
        return found

    return rank


def make_scores(graph: Graph, data: Data | None, settings: Settings) -> Rank:
    """Return what scores channels by the criterion of the settings, the mean over the classes."""
    device, batch_size = settings.device, walk_batch(graph, data, settings)
    scored = Halving(lambda size: partial(score, device=device, batch_size=size), batch_size)

    def scores(graph: Graph, groups: ChannelGroups) -> FloatArray:
        rng = np.random.default_rng(settings.seed)
        found: Scores = scored(graph, groups, data, settings.criterion, rng=rng)
        return found.total()

    return scores


def _priced(*given: Any, **named: Any) -> FloatArray:
    from onnxprune.compensate import irreplaceable

    return irreplaceable(*given, **named)


def _evenly(data: Data | None, settings: Settings) -> bool:
    """Whether layers lose the same share of their filters."""
    evenly = settings.tuning.evenly
    return evenly == "always" or (evenly == "auto" and data is None)


def quantiles(groups: ChannelGroups, scores: FloatArray) -> FloatArray:
    """Return the place of each channel among those of its group that may go, as a share of them.

    By it every group loses the same share. Shapes: scores `[channels]` -> `[channels]`.

    >>> from onnxprune.channels import find_groups
    >>> groups = find_groups(Graph.load("samples/fashion_mnist/model.onnx"))
    >>> places = quantiles(groups, np.random.default_rng(0).random(len(groups)))
    >>> [float((places[groups.group == group] < 0.5).mean()) for group in range(3)]
    [0.5, 0.5, 0.5]
    """
    places = np.array(scores, np.float64)
    for group in range(len(groups.names)):
        own = groups.channels_of(group)
        own = own[groups.removable[own]]
        places[own[np.argsort(scores[own], kind="stable")]] = (np.arange(own.size) + 0.5) / own.size
    return places


def by_what_is_lost(settings: Settings) -> bool:
    """Return whether channels are ranked by what a fit to the others cannot restore."""
    refitted = settings.compensate == "least-squares"
    return refitted and find_criterion(settings.criterion).needs_samples


def measures_damage(settings: Settings) -> bool:
    """Return whether the order is by damage: where relevance is asked for as it comes."""
    composite = find_criterion(settings.criterion).composite
    return settings.control == "accuracy-aware" and composite is not None


def make_damage(
    graph: Graph, data: Data | None, settings: Settings, among: IntArray | None = None
) -> MeasureDamage | None:
    """Return what measures damage, on all samples or `among` some, if the order is by it.

    Where classes have few samples it knows these rather than the classes, and one direction of each
    is enough.
    Shapes: among `[n]`.
    """
    composite = find_criterion(settings.criterion).composite
    if data is None or composite is None or not measures_damage(settings):
        return None
    from onnxprune.relevance import Meter

    given = graph, data, composite, settings.device
    directions = 1 if are_few(data) else None
    meter = partial(Meter, *given, seed=settings.seed, among=among, directions=directions)
    made = Halving(lambda size: meter(batch_size=size), walk_batch(graph, data, settings))
    found: MeasureDamage = phase("damage")(made)
    return found


def make_restore(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    settings: Settings,
    among: IntArray | None = None,
) -> Restore | None:
    """Return what orders channels evenly, if the order may be by damage or by that.

    It looks at all samples, or `among` some. Shapes: among `[n]`.
    """
    if data is None or settings.compensate != "least-squares" or not measures_damage(settings):
        return None
    from onnxprune.compensate import Evenly

    evenly = partial(Evenly, graph, groups, data, settings.device, among=among)
    made = Halving(lambda size: evenly(batch_size=size), walk_batch(graph, data, settings))
    found: Restore = phase("compensation")(made)
    return found


def make_relevance(graph: Graph, data: Data, settings: Settings, among: IntArray) -> Rank:
    """Return what ranks channels by conventional relevance on some samples, many on a part.

    Shapes: among `[n]`.
    """
    some = among[part_of(data.y[among], max(len(among) // SAMPLES, 1))]
    size = batch_in_cache(graph, settings.batch_size, settings.device)
    plain = settings.changed(criterion=CONVENTIONAL, batch_size=size)
    scores = phase("relevance")(make_scores(graph, data.rows(some), plain))
    found: Rank = scores
    return found
