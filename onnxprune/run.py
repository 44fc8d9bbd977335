"""A whole pruning run: from a model and samples to the pruned model, its plan and its report.

With a run directory every accepted step is journalled before the next begins, so a killed run
continues where it was (`resume`) and ends in the same plan.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from onnxprune import evaluate
from onnxprune.channels import BoolArray, ChannelGroups, find_groups
from onnxprune.cost import Cost
from onnxprune.criteria import data_free, find_criterion, score
from onnxprune.data import Data, Source, load_data
from onnxprune.errors import DataError, UnreachableTarget
from onnxprune.graph import Graph
from onnxprune.journal import RunDirectory
from onnxprune.plan import Floor, Plan, share_removed
from onnxprune.search import CONTROLLERS, search
from onnxprune.settings import AUTO, Settings
from onnxprune.storage import Source as ModelSource
from onnxprune.storage import load_model
from onnxprune.surgery import mask
from onnxprune.surgery import prune as cut
from onnxprune.task import STRIDE, Measured, State, Task

logger = logging.getLogger(__name__)

DEFAULT_FLOOR = Floor(max_drop=0.01)
"""What holds when nothing is asked for: prune as far as this drop of the harmonic mean allows."""

OnState = Callable[[Task, State], None]


@dataclass(frozen=True)
class Result:
    """What a run ends in; `report` holds the keys of `report.json`."""

    model: ModelProto
    plan: Plan
    report: dict[str, Any]


def prune(
    model: ModelSource,
    data: Source | None = None,
    *,
    settings: Settings | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_state: OnState | None = None,
    **options: Any,
) -> Result:
    """Prune a model as far as its settings say.

    `options` are fields of `Settings`, or of its target, floor and limits: `rate=0.5`,
    `max_drop=0.01`, `control="one-shot"`. With neither target nor floor, a drop of 0.01 is allowed.
    Raises: OnnxPruneError, one line, for whatever is wrong with the model, the samples or the ask.
    """
    settings = settings or Settings.of(**options)
    proto = load_model(model)
    graph, samples = open_model(proto, data, settings)
    settings = _complete(settings, samples)
    started = time.monotonic()
    task = make_task(graph, samples, settings)
    record = RunDirectory.open(run_dir, settings, proto, samples, resume=resume)
    last, spent = record.last()
    task.evaluations += spent.evaluations
    state = last
    for state in search(task, CONTROLLERS[settings.control], last):
        spent_now = spent.seconds + time.monotonic() - started
        record.append(state, summary(task, state), task.evaluations, spent_now)
        if on_state is not None:
            on_state(task, state)
    assert state is not None
    if state.stopped == "limits" and task.target:
        raise _unreachable(task, state)
    pruned = task.build(state.dead)
    seconds = spent.seconds + time.monotonic() - started
    report = make_report(task, state, pruned, samples, settings, seconds)
    plan = Plan.of(task.groups, state.dead, settings.allow_inexact)
    result = Result(pruned, plan, report)
    record.finish(result.model, result.plan, result.report)
    return result


def apply(model: ModelSource, plan: Plan | str | Path, *, masked: bool = False) -> ModelProto:
    """Return the model without the filters of a plan, or with these set to zero.

    Raises: InvalidPlan when the plan does not belong to the model.
    """
    graph = Graph.load(model)
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    groups = find_groups(graph, allow_inexact=plan.allow_inexact)
    return (mask if masked else cut)(graph, groups, plan.dead(groups))


def open_model(
    model: ModelProto, data: Source | None, settings: Settings
) -> tuple[Graph, Data | None]:
    """View the model and read the samples in the form it takes."""
    graph = Graph(model)
    if data is None:
        return graph, None
    shape, dtype = graph.image_form
    samples = load_data(
        data,
        shape=shape,
        dtype=dtype,
        preprocess=settings.preprocess,
        limit=settings.per_class,
    )
    if None in shape:
        graph = Graph(model, input_shapes={graph.image: (1, *samples.x.shape[1:])})
    return graph, samples


def make_task(graph: Graph, data: Data | None, settings: Settings) -> Task:
    """Put together what a search needs: criterion, evaluation, probes, compensation."""
    groups = find_groups(graph, allow_inexact=settings.allow_inexact)
    evaluator, fitted = None, _fitted(graph, data, settings)
    if data is not None:
        evaluator = evaluate.Evaluator(
            data,
            device=settings.device,
            threads=settings.threads,
            batch_size=settings.batch_size,
        )
    direct = settings.control == "one-shot" and not settings.floor
    return Task(
        graph,
        groups,
        clock=_clock(data, settings),
        rank=_ranker(data, fitted, settings),
        evaluate=evaluator if evaluator is not None and not direct else None,
        probe=_prober(graph, data, settings),
        compensate=_compensator(graph, groups, fitted, settings),
        target=settings.target,
        floor=settings.floor,
        limits=settings.limits,
        stride=1.0 if direct else STRIDE,
        ranks_once=_by_what_is_lost(settings),
    )


def _clock(data: Data | None, settings: Settings) -> Any:
    return partial(
        evaluate.latency,
        batch_size=settings.latency_batch,
        device=settings.device,
        threads=settings.threads,
        shape=None if data is None else data.x.shape[1:],
    )


def _complete(settings: Settings, data: Data | None) -> Settings:
    if data is None and settings.control == "accuracy-aware":
        raise DataError(
            "control 'accuracy-aware': needs reference samples; give --data, or use "
            "--control one-shot with a data-free criterion and a target"
        )
    if data is None and find_criterion(settings.criterion).needs_samples:
        free = ", ".join(data_free())
        raise DataError(
            f"criterion '{settings.criterion}': needs reference samples; give --data, or use one "
            f"of {free}"
        )
    if data is None and settings.floor:
        raise DataError("floor: needs reference samples to measure accuracy on; give --data")
    if settings.compensate == AUTO:
        settings = replace(settings, compensate="none" if data is None else "least-squares")
    if settings.target or settings.floor:
        return settings
    if data is None:
        raise DataError(
            "target: without samples there is no accuracy to stop at; give --rate, --params, "
            "--macs, --size or --latency-ms, or --data"
        )
    return settings.with_floor(DEFAULT_FLOOR)


def _fitted(graph: Graph, data: Data | None, settings: Settings) -> Data | None:
    """The samples that a compensation is fitted on: the labelled ones, and those without labels."""
    if data is None or settings.unlabelled is None or settings.compensate == "none":
        return data
    more = load_data(
        settings.unlabelled,
        shape=data.x.shape[1:],
        dtype=graph.image_form[1],
        preprocess=settings.preprocess,
        labelled=False,
    )
    y = np.concatenate([data.y, np.zeros_like(more.y)])
    return Data(np.concatenate([data.x, more.x]), y, data.classes)


def _ranker(data: Data | None, fitted: Data | None, settings: Settings) -> Any:
    def rank(graph: Graph, groups: ChannelGroups, weights: Any) -> Any:
        rng = np.random.default_rng(settings.seed)
        scores = score(
            graph,
            groups,
            data,
            settings.criterion,
            device=settings.device,
            batch_size=settings.batch_size,
            rng=rng,
        )
        total = scores.total(None if weights is None else weights[: len(scores.classes)])
        if fitted is None or not _by_what_is_lost(settings):
            return total
        from onnxprune.redundancy import irreplaceable

        return irreplaceable(
            graph, groups, fitted, total, device=settings.device, batch_size=settings.batch_size
        )

    return rank


def _by_what_is_lost(settings: Settings) -> bool:
    """Whether channels are ranked by what a least-squares fit to the others cannot restore."""
    refitted = settings.compensate == "least-squares"
    return refitted and find_criterion(settings.criterion).needs_samples


def _prober(graph: Graph, data: Data | None, settings: Settings) -> Any:
    if data is None or settings.control != "accuracy-aware":
        return None
    from onnxprune.damage import measure_damage, reference_outputs

    where: dict[str, Any] = {"device": settings.device, "batch_size": settings.batch_size}
    held: list[Any] = []

    def probe(current: Graph, groups: ChannelGroups, probes: list[BoolArray], weights: Any) -> Any:
        if not held:
            held.append(reference_outputs(graph, data, **where))
        return measure_damage(current, groups, probes, data, held[0], weights, **where)

    return probe


def _compensator(graph: Graph, groups: ChannelGroups, data: Data | None, settings: Settings) -> Any:
    if settings.compensate == "none":
        return None
    from onnxprune.compensate import compensator

    return compensator(
        graph,
        groups,
        data,
        settings.compensate,
        device=settings.device,
        batch_size=settings.batch_size,
    )


def _unreachable(task: Task, state: State) -> UnreachableTarget:
    nearest, full = task.costs.of(state.dead), task.costs.of()
    measured = ""
    if task.target.size is not None:
        measured += f", size {task.reach.size(state.dead)} bytes"
    if task.target.latency_ms is not None:
        measured += f", latency {task.reach.latency(state.dead):.3g} ms"
    limits = ", ".join(name.replace("_", "-") for name in task.picker.stopped_by(state.dead))
    return UnreachableTarget(
        f"target: cannot be reached; the most that can go is rate "
        f"{share_removed(task.groups, state.dead):.3f}, which leaves params "
        f"{nearest.params} ({nearest.params / max(full.params, 1):.3f}), macs {nearest.macs} "
        f"({nearest.macs / max(full.macs, 1):.3f}){measured}; "
        f"{_most_pinned(task.groups)}ask for less{f', or loosen {limits}' if limits else ''}"
    )


def _most_pinned(groups: ChannelGroups) -> str:
    """Say what keeps most of the filters that may not go at all."""
    pinned: dict[str, int] = {}
    for channel, reason in groups.reasons.items():
        pinned[reason] = pinned.get(reason, 0) + int(groups.filter_count[channel])
    if not pinned:
        return ""
    reason = max(pinned, key=lambda one: pinned[one])
    of = int(groups.filter_count.sum())
    return f"what pins most: {reason} ({pinned[reason]} of {of} filters); "


def summary(task: Task, state: State) -> dict[str, Any]:
    """Return the figures of a state that people follow: rate, cost, accuracy."""
    cost = task.costs.of(state.dead)
    figures: dict[str, Any] = {
        "rate": share_removed(task.groups, state.dead),
        "params": cost.params,
        "macs": cost.macs,
        "filters": cost.filters,
    }
    if state.accuracy is not None:
        figures |= {"mean": state.accuracy.mean, "harmonic": state.accuracy.harmonic}
        figures["soft_harmonic"] = state.accuracy.soft_harmonic
    return figures


def make_report(
    task: Task,
    state: State,
    pruned: ModelProto,
    data: Data | None,
    settings: Settings,
    seconds: float,
) -> dict[str, Any]:
    """Return the content of `report.json`: before, after, and how the run went."""
    full, left = task.costs.of(), task.costs.of(state.dead)
    confirmed = task.reach.last_latency(state.dead)
    after = describe(pruned, left, data, settings, accuracy=state.accuracy, latency_ms=confirmed)
    return {
        "before": describe(task.graph.model, full, data, settings),
        "after": after,
        "rate": share_removed(task.groups, state.dead),
        "seconds": seconds,
        "evaluations": task.evaluations,
        "stopped": state.stopped,
        "stopped_by": list(_stopped_by(task, state)),
        "latency": {"batch": settings.latency_batch, "threads": settings.threads},
        "control": settings.control,
        "criterion": settings.criterion,
        "compensate": settings.compensate,
        "seed": settings.seed,
        "inexact": task.groups.crossed(state.dead),
        "classes": list(data.classes) if data is not None else [],
        "samples": len(data) if data is not None else 0,
        "layers": [
            {
                "name": f.node,
                "filters": int(f.channels.size),
                "removed": int(state.dead[f.channels].sum()),
            }
            for f in task.groups.filters
        ],
    }


def _stopped_by(task: Task, state: State) -> Sequence[str]:
    """Name the options that ended a search."""
    if state.stopped == "target":
        return task.target.asked
    if state.stopped == "floor" and task.unpruned is not None:
        return task.floor.decisive(task.unpruned.harmonic)
    return task.picker.stopped_by(state.dead)


def describe(
    model: ModelProto,
    cost: Cost,
    data: Data | None,
    settings: Settings,
    *,
    accuracy: Measured | None = None,
    latency_ms: float | None = None,
) -> dict[str, Any]:
    """Return size, cost, latency and accuracy of a model, as a report holds them.

    Latency and accuracy are measured, unless they are known already; without samples there is no
    accuracy, and a latency only where one is asked for.
    """
    figures: dict[str, Any] = {
        "params": cost.params,
        "macs": cost.macs,
        "filters": cost.filters,
        "size_bytes": model.ByteSize(),
        "latency_ms": latency_ms,
        "accuracy": None,
    }
    if latency_ms is None and (data is not None or settings.target.latency_ms is not None):
        figures["latency_ms"] = _clock(data, settings)(model)
    if data is None:
        return figures
    if accuracy is None:
        where: dict[str, Any] = {"device": settings.device, "threads": settings.threads}
        accuracy = evaluate.Evaluator(data, batch_size=settings.batch_size, **where)(model)
    figures["accuracy"] = accuracy.to_json()
    return figures
