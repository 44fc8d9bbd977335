"""Put a search together from a model, samples and settings."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.compensate import FOLDS, JUDGES, ROUGH, Corrector
from onnxprune.data import Data, Inputs, SampleSource, by_name, joined, load_data, with_mirrored
from onnxprune.errors import NOTICE, DataError
from onnxprune.evaluation import FIDELITY, Evaluator, block_width, check_weights
from onnxprune.graph import Graph
from onnxprune.progress import phase
from onnxprune.relevance import (
    Halving,
    allowed_bytes,
    data_free,
    find_criterion,
)
from onnxprune.search.apart import folds_of, with_searches_apart
from onnxprune.search.clocks import clock, profiler
from onnxprune.search.control import Strategy
from onnxprune.search.evaluators import Parts, metric_name
from onnxprune.search.generated import NOISE, parted
from onnxprune.search.holding import say_ranked
from onnxprune.search.judging import check_head, with_heads
from onnxprune.search.objective import ESTIMATE
from onnxprune.search.outcome import make_evaluator
from onnxprune.search.protocols import HoldOut, Judge, Measured
from onnxprune.search.ranking import (
    by_what_is_lost,
    make_damage,
    make_rank,
    make_relevance,
    make_restore,
    measures_damage,
    walk_batch,
)
from onnxprune.search.refusal import check_layer_rates
from onnxprune.search.remembered import remembered, to_remember
from onnxprune.search.samples import open_samples, samples_are_runs
from onnxprune.search.settings import AUTO, HOME, Settings
from onnxprune.search.task import Task
from onnxprune.search.unseen import are_few, foresight, on_others
from onnxprune.search.untaken import hold_untaken

logger = logging.getLogger(__name__)

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
    said, asked = remembered(model if pruned is None else pruned), settings
    settings = said.into(settings, graph)
    samples = open_samples(graph, data, settings)
    is_run = len(graph.inputs) == 1 and isinstance(samples.x, Inputs)
    if is_run or any(None in shape[1:] for shape, _ in graph.input_forms.values()):
        graph = Graph(model, input_shapes={**graph.input_shapes, **_shapes(graph, samples)})
    samples = with_heads(graph, samples, settings, said)
    check_head(asked, samples)
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
        runs=samples_are_runs(graph),
        unread=graph.unread,
    )


def _say_heads(graph: Graph, data: Data | None, settings: Settings) -> None:
    """Say by what filters are ranked where a metric of one's own says how many go."""
    if data is None or data.reference is not None or data.detector is not None:
        return
    for head in (one for one in data.heads if one.deviation is not None):
        shape = graph.shape(head.tensor) or ()
        logger.log(NOTICE, "%s", say_ranked(head, shape, metric_name(data, settings)))


@phase("analysis")
def make_task(
    graph: Graph, data: Data | None, settings: Settings, more: Data | None = None
) -> Task:
    """Put together what a search needs: criterion, evaluation, damage, compensation.

    `more` are the images without labels, which are read where they are not given.
    """
    groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    groups = hold_untaken(graph, groups, data)
    _say_heads(graph, data, settings)
    data, judging = parted(data)
    settings.limits.allowed(groups)  # refuses, before anything is measured, what matches nothing
    fitted, folds = _fitted(data, more or open_unlabelled(graph, data, settings), settings)
    strategy = choose_strategy(settings)
    evaluator = None if judging is None else make_evaluator(judging, settings)
    parts = Parts.of(evaluator) if evaluator and strategy.measures else None
    sparse = judging is data and are_few(data) and measures_damage(settings)
    judges = parts.unseen if parts and sparse else None
    seen = None if judges is None else np.setdiff1d(np.arange(len(judging or ())), judges)
    evaluate = parts or evaluator if strategy.measures else None
    marked = folds if judges is None or folds is None else _marked(folds, judges)
    correct = _corrector(graph, groups, fitted, settings, marked)
    sketch = None
    if correct and fitted and _may_sketch(settings):
        sketch = partial(correct, rough=True, without=None if judges is None else JUDGES)
    hold_out = None if judging is not data else _hold_out(evaluator, correct)
    if sketch and parts and judges is None and len(fitted or ()) >= 2 * ROUGH:
        strategy = many_decide(strategy)
    task = Task(
        graph,
        groups,
        rank=make_rank(graph, data, fitted, settings),
        evaluate=phase("evaluation")(evaluate) if evaluate else None,
        glance=phase("evaluation")(parts.part) if parts else None,
        rest=phase("evaluation")(parts.rest) if parts and _asks_for_all(settings) else None,
        damage=make_damage(graph, data, settings, seen),
        relevance=make_relevance(graph, data, settings, seen)
        if data and seen is not None
        else None,
        unseen=judges is not None,
        compensate=phase("compensation")(correct) if correct else None,
        sketch=phase("compensation")(sketch) if sketch else None,
        hold_out=hold_out,
        judged=_judged(evaluator, correct, judges) if hold_out else None,
        foresee=foresight(graph.model, evaluator),
        on_others=partial(on_others, correct, 0 if judging is None else len(judging)),
        few=are_few(judging),
        restore=make_restore(graph, groups, fitted, settings),
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
    return with_searches_apart(task, evaluator, correct, fitted, folds, settings)


def _asks_for_all(settings: Settings) -> bool:
    """Whether more hangs on a net on the way than which try is kept: a floor, or a correction."""
    return bool(settings.floor) or settings.compensate != "none" or not measures_damage(settings)


def _may_sketch(settings: Settings) -> bool:
    """Whether corrections on the way may be rough: no floor looks at them."""
    fits = settings.compensate == "least-squares" and not settings.floor
    return fits and measures_damage(settings)


def find_aims(settings: Settings) -> tuple[str, ...]:
    """Return what a search brings down: what it is told to, or the target, or the latency.

    That is estimated for onnxruntime, and measured where another runtime is asked for.
    """
    if settings.aim is not None:
        return (settings.aim,)
    asked = settings.target.asked
    if settings.limits.layer_rate and not asked and not settings.floor:
        return ("rate",)
    found = tuple("latency" if name == "latency_ms" else name for name in asked)
    return found or (ESTIMATE if settings.latency_on == HOME else "latency",)


def choose_strategy(settings: Settings) -> Strategy:
    """Return what a search with these settings does."""
    tuning, by_damage = settings.tuning, measures_damage(settings)
    in_one = settings.control == "one-shot" and not settings.floor
    once = by_what_is_lost(settings) and not by_damage
    corrects = tuning.correct if by_damage else "start"
    return Strategy(
        stride=1.0 if in_one else tuning.stride,
        measures=not in_one,
        ranks_once=tuning.reranks == "never" or (tuning.reranks == "auto" and once),
        corrects="never" if settings.compensate == "none" else corrects,
    )


def many_decide(strategy: Strategy) -> Strategy:
    """Return the strategy where samples are many: a correction is judged by those it is fitted on.

    It flatters them no more than the order of weights untouched does, which is chosen on them, too.
    """
    return replace(strategy, corrects="seen") if strategy.corrects == "unseen" else strategy


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

    def hold_out(pruned: ModelProto, dead: BoolArray, roughly: bool) -> Measured:
        again = phase("compensation")(correct)
        models = (again(pruned, dead, without=fold, rough=roughly) for fold in numbers)
        with phase("evaluation"):
            return evaluator.apart(models, folds)

    return hold_out


def _marked(folds: IntArray, judges: IntArray) -> IntArray:
    """Return the folds with a mark on the samples that judge. Shapes: `[n]`, `[m]` -> `[n]`."""
    found = folds.copy()
    found[judges] += JUDGES
    return found


def _judged(
    evaluator: Evaluator | None, correct: Corrector | None, judges: IntArray | None
) -> Judge | None:
    """What evaluates the samples that judge, also with weights corrected on the others."""
    if evaluator is None or correct is None or judges is None:
        return None

    def judged(pruned: ModelProto, dead: BoolArray) -> tuple[Measured, Measured]:
        with phase("compensation"):
            corrected = correct(pruned, dead, without=JUDGES)
        with phase("evaluation"):
            return evaluator.some(pruned, judges), evaluator.some(corrected, judges)

    return judged


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


def _fitted(
    data: Data | None, more: Data | None, settings: Settings
) -> tuple[Data | None, IntArray | None]:
    """The samples that a compensation is fitted on, first the labelled ones, and their folds.

    Of few images least squares fits the mirror images, too.
    """
    if data is None:
        return None, None
    if settings.compensate == "none":
        return data, folds_of(data.y)
    whole = x = data.x if more is None else joined([data.x, more.x])
    if settings.compensate == "least-squares" and settings.tuning.mirrored == "auto":
        x = with_mirrored(whole, FOLDS)
    if x is data.x:
        return data, folds_of(data.y)
    folds = folds_of(data.y, len(whole) - len(data), len(x) - len(whole))
    y = np.concatenate([data.y, np.zeros((len(x) - len(data), *data.y.shape[1:]), np.int64)])
    return Data(x, y, data.classes, heads=data.heads), folds


def _corrector(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    settings: Settings,
    folds: IntArray | None,
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
        rounds=settings.tuning.fit_rounds,
        allowed=allowed_bytes(settings.memory, settings.device),
        folds=folds,
    )
    return Halving(lambda size: corrector(batch_size=size), walk_batch(graph, data, settings))
