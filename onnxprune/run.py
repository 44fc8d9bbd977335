"""A whole pruning run: from a model and samples to the pruned model, its plan and its report.

With a run directory every accepted step is journalled before the next begins, so a killed run
continues where it was (`resume`) and ends in the same plan.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from onnxprune import evaluate
from onnxprune.channels import BoolArray, ChannelGroups, find_groups
from onnxprune.cost import Cost
from onnxprune.criteria import CRITERIA, score
from onnxprune.data import Data, Source, load_data
from onnxprune.errors import DataError, UnreachableTarget
from onnxprune.graph import Graph, load_model
from onnxprune.graph import Source as ModelSource
from onnxprune.journal import RunDirectory
from onnxprune.plan import Floor, Plan, share_removed
from onnxprune.search import CONTROLLERS, search
from onnxprune.settings import AUTO, Settings
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
    result = Result(pruned, Plan.of(task.groups, state.dead), report)
    record.finish(result.model, result.plan, result.report)
    return result


def apply(model: ModelSource, plan: Plan | str | Path, *, masked: bool = False) -> ModelProto:
    """Return the model without the filters of a plan, or with these set to zero.

    Raises: InvalidPlan when the plan does not belong to the model.
    """
    graph = Graph.load(model)
    groups = find_groups(graph)
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
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
    groups = find_groups(graph)
    evaluator = None
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
        rank=_ranker(data, settings),
        evaluate=evaluator if evaluator is not None and not direct else None,
        probe=_prober(graph, data, settings),
        compensate=_compensator(graph, groups, data, settings),
        target=settings.target,
        floor=settings.floor,
        limits=settings.limits,
        stride=1.0 if direct else STRIDE,
    )


def _complete(settings: Settings, data: Data | None) -> Settings:
    if data is None and settings.control == "accuracy-aware":
        raise DataError(
            "control 'accuracy-aware': needs reference samples; give --data, or use "
            "--control one-shot with a data-free criterion and a target"
        )
    if data is None and CRITERIA[settings.criterion].from_weights is None:
        free = ", ".join(name for name, one in CRITERIA.items() if one.from_weights)
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
            "target: without samples there is no accuracy to stop at; give --rate, --params or "
            "--macs, or --data"
        )
    return settings.with_floor(DEFAULT_FLOOR)


def _ranker(data: Data | None, settings: Settings) -> Any:
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
        return scores.total(None if weights is None else weights[: len(scores.classes)])

    return rank


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
    return UnreachableTarget(
        f"target: cannot be reached; the most that can go is rate "
        f"{share_removed(task.groups, state.dead):.3f}, which leaves params "
        f"{nearest.params} ({nearest.params / max(full.params, 1):.3f}) and macs {nearest.macs} "
        f"({nearest.macs / max(full.macs, 1):.3f}); ask for less, or loosen the limits"
    )


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
    return {
        "before": describe(task.graph.model, full, data, settings),
        "after": describe(pruned, left, data, settings, accuracy=state.accuracy),
        "rate": share_removed(task.groups, state.dead),
        "seconds": seconds,
        "evaluations": task.evaluations,
        "stopped": state.stopped,
        "control": settings.control,
        "criterion": settings.criterion,
        "compensate": settings.compensate,
        "seed": settings.seed,
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


def describe(
    model: ModelProto,
    cost: Cost,
    data: Data | None,
    settings: Settings,
    *,
    accuracy: Measured | None = None,
) -> dict[str, Any]:
    """Return size, cost, latency and accuracy of a model, as a report holds them.

    The accuracy is measured on the samples, unless it is known already.
    """
    figures: dict[str, Any] = {
        "params": cost.params,
        "macs": cost.macs,
        "filters": cost.filters,
        "size_bytes": model.ByteSize(),
        "latency_ms": None,
        "accuracy": None,
    }
    if data is None:
        return figures
    where: dict[str, Any] = {"device": settings.device, "threads": settings.threads}
    figures["latency_ms"] = evaluate.latency(model, shape=data.x.shape[1:], **where)
    if accuracy is None:
        accuracy = evaluate.Evaluator(data, batch_size=settings.batch_size, **where)(model)
    figures["accuracy"] = accuracy.to_json()
    return figures
