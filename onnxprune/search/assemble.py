"""Put a search together from a model, samples and settings."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.compensate import FOLDS, ROUGH, Corrector
from onnxprune.data import Data, SampleSource, by_name, joined, load_data, with_mirrored
from onnxprune.errors import DataError
from onnxprune.evaluation import FIDELITY, Evaluator, block_width, check_weights
from onnxprune.graph import Graph
from onnxprune.progress import phase
from onnxprune.relevance import (
    Halving,
    Scores,
    allowed_bytes,
    batch_within,
    data_free,
    find_criterion,
    score,
)
from onnxprune.search.clocks import clock, profiler
from onnxprune.search.control import Strategy
from onnxprune.search.evaluators import Parts, metric_name
from onnxprune.search.generated import NOISE, parted
from onnxprune.search.judging import with_heads
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.protocols import HoldOut, Measured, MeasureDamage, Rank, Restore
from onnxprune.search.refusal import check_layer_rates
from onnxprune.search.remembered import remembered, to_remember
from onnxprune.search.samples import open_samples
from onnxprune.search.settings import AUTO, Settings
from onnxprune.search.task import Task
from onnxprune.search.unseen import are_few, foresight
from onnxprune.search.untaken import hold_untaken

DEFAULT_DROP, FIDELITY_DROP = 0.01, 0.05
"""What holds when nothing is asked for: prune as far as this drop of the harmonic mean allows."""
ENOUGH = 10
"""Samples without labels that agreement is measured on at least, where it alone decides."""


@phase("analysis")
def open_model(
    model: ModelProto,
    data: SampleSource | None,
    settings: Settings,
    *,
    pruned: ModelProto | None = None,
) -> tuple[Graph, Data | None]:
    """Return the graph of a model, and the samples in the form it takes.

    What the settings leave open is as the metadata says of what the model, or the `pruned` one
    where it is given, was pruned by.
    Raises: DataError where the samples cannot be read or do not fit the model; InvalidModel where a
    weight is not a number.
    """
    graph = Graph(model, input_shapes=settings.input_shapes)
    check_weights(graph)
    if data is None:
        graph.warn()
        return graph, None
    said = remembered(model if pruned is None else pruned)
    settings = said.into(settings, graph)
    samples = open_samples(graph, data, settings)
    if any(None in shape[1:] for shape, _ in graph.input_forms.values()):
        graph = Graph(model, input_shapes={**graph.input_shapes, **_shapes(graph, samples)})
    samples = with_heads(graph, samples, settings, said)
    head = samples.heads[0].tensor if samples.heads else graph.outputs[0]
    output = graph.shape(head) or ()
    if samples.y.ndim == 3 and output and len(output) != 4 and samples.targets is None:
        raise DataError(
            f"samples: have label maps, but output '{head}' has {len(output)} axes, "
            f"expected [N, classes, height, width]; give one label for each sample"
        )
    return graph, samples.fitted(output)


def _shapes(graph: Graph, samples: Data) -> dict[str, tuple[int, ...]]:
    """The shapes of a run of one sample, by input."""
    one = by_name(samples.x[:1], graph.inputs[0]).feeds
    return {name: array.shape for name, array in one.items() if array.ndim}


def open_unlabelled(graph: Graph, data: Data | None, settings: Settings) -> Data | None:
    """Read the images without labels, where a compensation is fitted on them."""
    if data is None or settings.unlabelled is None or settings.compensate == "none":
        return None
    shapes = _shapes(graph, data)
    forms = {n: ((None, *shapes[n][1:]), dtype) for n, (_, dtype) in graph.input_forms.items()}
    return load_data(
        settings.unlabelled,
        inputs=forms,
        preprocess=data.preprocess or settings.preprocess,
        labelled=False,
        memory=settings.memory,
    )


@phase("analysis")
def make_task(
    graph: Graph, data: Data | None, settings: Settings, more: Data | None = None
) -> Task:
    """Put together what a search needs: criterion, evaluation, damage, compensation.

    `more` are the images without labels, which are read where they are not given.
    """
    groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    groups = hold_untaken(graph, groups, data)
    data, judging = parted(data)
    settings.limits.allowed(groups)  # refuses, before anything is measured, what matches nothing
    fitted = _fitted(data, more or open_unlabelled(graph, data, settings), settings)
    strategy = choose_strategy(settings)
    evaluator = None if judging is None else make_evaluator(judging, settings)
    parts = Parts.of(evaluator) if evaluator and strategy.measures else None
    evaluate = parts or evaluator if strategy.measures else None
    correct = _corrector(graph, groups, fitted, settings)
    sketch = partial(correct, rough=True) if correct and _may_sketch(fitted, settings) else None
    meter = _meter(graph, data, settings)
    task = Task(
        graph,
        groups,
        rank=phase("relevance")(_ranker(graph, data, fitted, settings)),
        evaluate=phase("evaluation")(evaluate) if evaluate else None,
        glance=phase("evaluation")(parts.part) if parts else None,
        rest=phase("evaluation")(parts.rest) if parts else None,
        damage=phase("damage")(meter) if meter else None,
        compensate=phase("compensation")(correct) if correct else None,
        sketch=phase("compensation")(sketch) if sketch else None,
        hold_out=None if judging is not data else _hold_out(evaluator, correct),
        foresee=foresight(graph.model, evaluator, correct),
        few=are_few(judging),
        restore=_restorer(graph, groups, fitted, settings),
        clock=clock(data, settings),
        profile=profiler(data, settings),
        target=settings.target,
        floor=settings.floor,
        limits=settings.limits,
        tuning=settings.tuning,
        strategy=strategy,
        aims=find_aims(settings),
        block=block_width(settings.device),
        said=to_remember(graph, judging, settings),
    )
    check_layer_rates(task)
    return task


def _may_sketch(fitted: Data | None, settings: Settings) -> bool:
    """Whether corrections on the way may be rough: no floor looks at them, and samples are many."""
    if fitted is None or settings.floor or settings.compensate != "least-squares":
        return False
    return _measures_damage(settings) and len(fitted) >= 2 * ROUGH


def find_aims(settings: Settings) -> tuple[str, ...]:
    """Return what a search brings down: what it is told to, or the target, or latency."""
    if settings.aim is not None:
        return (settings.aim,)
    asked = settings.target.asked
    if settings.limits.layer_rate and not asked and not settings.floor:
        return ("rate",)
    return tuple("latency" if name == "latency_ms" else name for name in asked) or ("latency",)


def choose_strategy(settings: Settings) -> Strategy:
    """Return what a search with these settings does."""
    tuning, by_damage = settings.tuning, _measures_damage(settings)
    in_one = settings.control == "one-shot" and not settings.floor
    by_what_is_lost = _by_what_is_lost(settings) and not by_damage
    corrects = tuning.correct if by_damage else "start"
    return Strategy(
        stride=1.0 if in_one else tuning.stride,
        measures=not in_one,
        ranks_once=tuning.reranks == "never" or (tuning.reranks == "auto" and by_what_is_lost),
        corrects="never" if settings.compensate == "none" else corrects,
    )


def samples_decide(settings: Settings) -> bool:
    """Whether the samples of a run decide what goes or what weights become, not only figures."""
    fitted = settings.compensate != "none"
    return (
        fitted
        or choose_strategy(settings).measures
        or find_criterion(settings.criterion).needs_samples
    )


def _hold_out(evaluator: Evaluator | None, correct: Corrector | None) -> HoldOut | None:
    """What evaluates each fold of the samples with weights that were corrected without it."""
    if evaluator is None or correct is None:
        return None
    folds = correct.folds[: len(evaluator.data)]
    numbers = np.unique(folds).tolist()
    if len(numbers) < 2:
        return None

    def hold_out(pruned: ModelProto, dead: BoolArray, rough: bool) -> Measured:
        again = phase("compensation")(correct)
        models = (again(pruned, dead, without=fold, rough=rough) for fold in numbers)
        with phase("evaluation"):
            return evaluator.apart(models, folds)

    return hold_out


def walk_batch(graph: Graph, data: Data | None, settings: Settings) -> int:
    """Return how many samples relevance and least squares compute at once.

    Raises: DataError where the memory asked for does not hold one.
    """
    if data is None:
        return settings.batch_size
    return batch_within(graph, settings.batch_size, settings.memory, device=settings.device)


def complete(settings: Settings, data: Data | None) -> Settings:
    """Return the settings with what depends on the samples: the compensation, and a floor.

    Raises: DataError where the settings ask for samples and there are none.
    """
    if data is None and settings.control in ("accuracy-aware", "dpx"):
        raise DataError(
            f"control '{settings.control}': needs reference samples; give --data (generated makes "
            "some), or use --control one-shot with a data-free criterion and a target"
        )
    if data is None and find_criterion(settings.criterion).needs_samples:
        free = ", ".join(data_free())
        raise DataError(
            f"criterion '{settings.criterion}': needs reference samples; give --data (generated "
            f"makes some), or use one of {free}"
        )
    if data is None and settings.floor:
        raise DataError(
            "floor: needs reference samples to measure on; give --data (generated makes some)"
        )
    if settings.compensate == AUTO:
        settings = replace(settings, compensate="none" if data is None else "least-squares")
    if settings.target or settings.floor or settings.limits.layer_rate:
        return settings
    if data is None:
        raise DataError(
            "target: without samples there is no accuracy to stop at; give --rate, --params, "
            "--macs, --size, --latency-ms or --layer-rate, or --data"
        )
    if data.generated == NOISE:
        raise DataError(
            "target: agreement on noise says little of images, so it is no floor to stop at alone; "
            "give --rate, --params, --macs, --size or --latency-ms, or any images with --data"
        )
    agrees = metric_name(data, settings) == FIDELITY
    if agrees and len(data) < ENOUGH and not settings.trust_baseline:
        raise DataError(
            f"samples: {len(data)} of them, on which agreement says little; give {ENOUGH} or more, "
            "or a target (--trust-baseline goes on as it is)"
        )
    return settings.changed(max_drop=FIDELITY_DROP if agrees else DEFAULT_DROP)


def _fitted(data: Data | None, more: Data | None, settings: Settings) -> Data | None:
    """The samples that a compensation is fitted on: first the labelled ones, then those without.

    Of few images least squares fits the mirror images, too.
    """
    if data is None or settings.compensate == "none":
        return data
    x = data.x if more is None else joined([data.x, more.x])
    if settings.compensate == "least-squares" and settings.tuning.mirrored == "auto":
        x = with_mirrored(x, FOLDS)
    if x is data.x:
        return data
    y = np.concatenate([data.y, np.zeros((len(x) - len(data), *data.y.shape[1:]), np.int64)])
    return Data(x, y, data.classes, heads=data.heads)


def _ranker(graph: Graph, data: Data | None, fitted: Data | None, settings: Settings) -> Rank:
    batch_size = walk_batch(graph, data, settings)
    device = settings.device
    scored = Halving(lambda size: partial(score, device=device, batch_size=size), batch_size)
    priced = Halving(lambda size: partial(_priced, device=device, batch_size=size), batch_size)

    def rank(graph: Graph, groups: ChannelGroups) -> FloatArray:
        rng = np.random.default_rng(settings.seed)
        scores: Scores = scored(graph, groups, data, settings.criterion, rng=rng)
        total = scores.total()
        if _evenly(data, settings):
            return quantiles(groups, total)
        if fitted is None or not _by_what_is_lost(settings):
            return total
        found: FloatArray = priced(graph, groups, fitted, total)
        return found

    return rank


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


def _by_what_is_lost(settings: Settings) -> bool:
    """Whether channels are ranked by what a least-squares fit to the others cannot restore."""
    refitted = settings.compensate == "least-squares"
    return refitted and find_criterion(settings.criterion).needs_samples


def _measures_damage(settings: Settings) -> bool:
    """Whether the order is by damage: where relevance is asked for as it comes."""
    composite = find_criterion(settings.criterion).composite
    return settings.control == "accuracy-aware" and composite is not None


def _meter(graph: Graph, data: Data | None, settings: Settings) -> MeasureDamage | None:
    """What measures damage, if the order is by it."""
    composite = find_criterion(settings.criterion).composite
    if data is None or composite is None or not _measures_damage(settings):
        return None
    from onnxprune.relevance import Meter

    meter = partial(Meter, graph, data, composite, settings.device, seed=settings.seed)
    return Halving(lambda size: meter(batch_size=size), walk_batch(graph, data, settings))


def _restorer(
    graph: Graph, groups: ChannelGroups, data: Data | None, settings: Settings
) -> Restore | None:
    """What orders channels evenly, if the order may be by damage or by that."""
    if data is None or settings.compensate != "least-squares" or not _measures_damage(settings):
        return None
    from onnxprune.compensate import Evenly

    evenly = partial(Evenly, graph, groups, data, settings.device)
    made = Halving(lambda size: evenly(batch_size=size), walk_batch(graph, data, settings))
    found: Restore = phase("compensation")(made)
    return found


def _corrector(
    graph: Graph, groups: ChannelGroups, data: Data | None, settings: Settings
) -> Corrector | None:
    if settings.compensate == "none":
        return None
    from onnxprune.compensate import compensator

    corrector = partial(
        compensator,
        graph,
        groups,
        data,
        settings.compensate,
        device=settings.device,
        ridge=settings.tuning.ridge,
        ridge_share=settings.tuning.ridge_share,
        variance=settings.tuning.variance,
        allowed=allowed_bytes(settings.memory, settings.device),
    )
    return Halving(lambda size: corrector(batch_size=size), walk_batch(graph, data, settings))
