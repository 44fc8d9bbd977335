"""Outcome: the figures of each step, and the report of a run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from onnx import ModelProto

from onnxprune.data import Data
from onnxprune.evaluation import Evaluator, latency
from onnxprune.graph import Graph, file_size
from onnxprune.search.nets import Nets
from onnxprune.search.protocols import Clock, Measured
from onnxprune.search.settings import Settings
from onnxprune.search.target import share_removed
from onnxprune.search.task import State, Task
from onnxprune.surgery import Cost, count


def clock(data: Data | None, settings: Settings) -> Clock:
    """Return what measures the latency of a model in ms, as the settings say."""
    return partial(
        latency,
        batch_size=settings.latency_batch,
        device=settings.device,
        threads=settings.threads,
        shape=None if data is None else data.x.shape[1:],
    )


def already_met(nets: Nets, state: State) -> str:
    """Return what to say of a search that had nothing to do: the model as it came will do."""
    task = nets.task
    full = task.costs.of()
    now = {"params": f"{full.params:,}", "macs": f"{full.macs:,}"}
    if task.target.size is not None:
        now["size"] = f"{file_size(task.graph.model):,} bytes"
    if task.target.latency_ms is not None:
        now["latency_ms"] = f"{nets.reach.last_latency(state):.3g} ms"
    goals = [f"{n} {getattr(task.target, n):g}: it has {now[n]}" for n in task.target.asked]
    return (
        f"the model as it came meets the target ({', '.join(goals)}), so nothing is removed; ask "
        f"for more"
    )


def make_evaluator(data: Data, settings: Settings) -> Evaluator:
    """Return what evaluates models on the samples, as the settings say."""
    return Evaluator(
        data,
        metric=settings.metric,
        device=settings.device,
        threads=settings.threads,
        batch_size=settings.batch_size,
    )


def summary(task: Task, state: State) -> dict[str, Any]:
    """Return the rate and the cost of a state, as a journal line begins."""
    return {"rate": share_removed(task.groups, state.dead), **task.costs.of(state.dead).figures()}


def make_report(
    nets: Nets,
    state: State,
    pruned: ModelProto,
    data: Data | None,
    settings: Settings,
    seconds: float,
) -> dict[str, Any]:
    """Return the content of `report.json`: before, after, and how the run went."""
    task = nets.task
    left = count(Graph(pruned, input_shapes=task.graph.input_shapes))
    confirmed = nets.reach.last_latency(state)
    after = describe(pruned, left, data, settings, accuracy=state.accuracy, latency_ms=confirmed)
    held_out = nets.hold_out(state) if state.corrected else None
    return {
        "before": describe(task.graph.model, task.costs.of(), data, settings),
        "after": after,
        "rate": share_removed(task.groups, state.dead),
        "seconds": seconds,
        "evaluations": nets.evaluations,
        "stopped": state.stopped,
        "stopped_by": list(_stopped_by(nets, state)),
        "latency": {"batch": settings.latency_batch, "threads": settings.threads},
        "metric": settings.metric,
        "control": settings.control,
        "criterion": settings.criterion,
        "compensate": settings.compensate,
        "corrected": state.corrected,
        "held_out": None if held_out is None else held_out.to_json(),
        "seed": settings.seed,
        "inexact": task.groups.crossed(state.dead),
        "classes": list(data.classes) if data is not None else [],
        "samples": len(data) if data is not None else 0,
        "layers": [
            {
                "name": f.node,
                "title": task.groups.title(f.node),
                "filters": int(f.channels.size),
                "removed": int(state.dead[f.channels].sum()),
            }
            for f in task.groups.filters
        ],
    }


def _stopped_by(nets: Nets, state: State) -> Sequence[str]:
    """Return the names of the options that ended a search."""
    task = nets.task
    if state.stopped == "target":
        return task.target.asked
    if state.stopped == "floor" and nets.unpruned is not None:
        return task.floor.decisive(nets.judged(nets.unpruned))
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
        **cost.figures(),
        "size_bytes": file_size(model),
        "latency_ms": latency_ms,
        "accuracy": None,
    }
    if latency_ms is None and (data is not None or settings.target.latency_ms is not None):
        figures["latency_ms"] = clock(data, settings)(model)
    if data is None:
        return figures
    if accuracy is None:
        accuracy = make_evaluator(data, settings)(model)
    figures["accuracy"] = accuracy.to_json()
    return figures
