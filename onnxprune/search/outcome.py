"""Outcome: the figures of each step, and the report of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ModelProto

from onnxprune.data import ALL, Data
from onnxprune.detection import OVERLAPS, BoxAgreement, Precision
from onnxprune.evaluation import (
    FIDELITY,
    Evaluator,
    Fidelity,
    Metric,
    find_metric,
)
from onnxprune.graph import Graph, file_size
from onnxprune.progress import phase
from onnxprune.search.clocks import measured_on, time_in_turn
from onnxprune.search.evaluators import evaluator_of, metric_name, named_outputs
from onnxprune.search.nets import Nets
from onnxprune.search.protocols import Measured
from onnxprune.search.settings import Settings
from onnxprune.search.task import State, Task
from onnxprune.surgery import Cost, count


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
    outputs = () if data.detector is not None else named_outputs(settings) or data.reads
    return evaluator_of(data, settings, find_judge(data, settings), outputs)


def find_judge(data: Data, settings: Settings) -> Metric:
    """Return the metric of a run, bound to what it compares with."""
    name = metric_name(data, settings)
    if name == FIDELITY and data.reference is not None and data.detector is not None:
        return BoxAgreement(data.detector, data.reference, data.classes).metric
    if name == FIDELITY and data.reference is not None:
        return Fidelity(data.heads, data.reference).metric
    if data.detector is not None and name in OVERLAPS:
        return Precision(data.detector, data.targets, data.classes).metric(name)
    return find_metric(name)


def parts_of(data: Data, settings: Settings, accuracy: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of what has a score: classes, parts of the outputs, or all in one."""
    names = find_judge(data, settings).parts or data.classes
    return names if len(names) == len(accuracy["per_class"]) or len(names) == 0 else ALL


def summary(task: Task, state: State) -> dict[str, Any]:
    """Return the rate and the cost of a state, as a journal line begins."""
    return {"rate": task.rate(state.dead), **task.costs.of(state.dead).figures()}


def told(nets: Nets, state: State, seconds: float) -> dict[str, Any]:
    """Return what a log says of an accepted step. Units: seconds, s since the run began."""
    accuracy = state.accuracy
    return {
        **summary(nets.task, state),
        "harmonic": None if accuracy is None else accuracy.harmonic,
        "mean": None if accuracy is None else accuracy.mean,
        "corrected": state.corrected,
        "stopped": state.stopped,
        "evaluations": nets.evaluations,
        "seconds": round(seconds, 3),
    }


@phase("report")
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
    left = count(Graph(pruned, input_shapes=task.graph.input_shapes), like=task.groups)
    unpruned = task.graph.model
    times = _before_and_after(nets, state, pruned, data, settings)
    held_out = nets.hold_out(state) if state.corrected else None
    before = describe(unpruned, task.costs.of(), data, settings, latency_ms=times[0])
    return {
        "before": before,
        "after": describe(
            pruned, left, data, settings, accuracy=state.accuracy, latency_ms=times[1]
        ),
        "rate": task.rate(state.dead),
        "seconds": seconds,
        "evaluations": nets.evaluations,
        "stopped": state.stopped,
        "stopped_by": list(_stopped_by(nets, state)),
        "latency": {
            "batch": settings.latency_batch,
            "threads": settings.threads,
            "on": measured_on(settings),
        },
        "metric": settings.metric if data is None else metric_name(data, settings),
        "control": settings.control,
        "criterion": settings.criterion,
        "compensate": settings.compensate,
        "corrected": state.corrected,
        "held_out": None if held_out is None else held_out.to_json(),
        "promise": promise(nets, state),
        "decisive": "shrunk_harmonic" if nets.floors.shrinks else "harmonic",
        "seed": settings.seed,
        "inexact": task.groups.crossed(state.dead),
        "classes": [] if data is None else list(parts_of(data, settings, before["accuracy"])),
        "samples": len(data) if data is not None else 0,
        "generated": data.generated if data is not None else "",
        "layers": [
            {
                "name": f.node,
                "title": task.groups.title(f.node),
                "kind": "dense" if f.dense else "convolution",
                "filters": int(f.channels.size),
                "removed": int(state.dead[f.channels].sum()),
            }
            for f in task.groups.filters
        ],
    }


def _before_and_after(
    nets: Nets, state: State, pruned: ModelProto, data: Data | None, settings: Settings
) -> Sequence[float | None]:
    """The latencies of a report, side by side: their ratio does not depend on when. Units: ms.

    Where a target was confirmed, that is the later one, and both are scaled to it: a machine that
    was busier then than now would make the unpruned model look slower or faster than it is.
    """
    unpruned, confirmed = nets.task.graph.model, nets.reach.last_latency(state)
    if confirmed is None and data is None:
        return None, None
    if confirmed is not None and not state.dead.any():
        return confirmed, confirmed
    with phase("latency"):
        before, after = time_in_turn([unpruned, pruned], data, settings)
    return (before, after) if confirmed is None else (before * confirmed / after, confirmed)


def promise(nets: Nets, state: State) -> dict[str, Any] | None:
    """Return what a floor promises of images that nobody has seen, None where there is none.

    Units: drops of the harmonic mean; the bound holds at the confidence, one-sided.
    """
    floor = nets.task.floor
    if not floor or not floor.confidence or nets.unpruned is None:
        return None
    found = nets.floors.foreseen(state)
    if found is None:
        return None
    bound = found.bound(floor.confidence)
    return {
        **found.to_json(),
        "bound": bound,
        "confidence": floor.confidence,
        "allowed": nets.floors.allowed,
    }


def _stopped_by(nets: Nets, state: State) -> Sequence[str]:
    """Return the names of the options that ended a search."""
    task = nets.task
    if state.stopped == "target":
        return task.goals
    if state.stopped == "floor" and nets.unpruned is not None:
        return task.floor.decisive(nets.floors.judged(nets.unpruned))
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

    The accuracy is measured, unless it is known already; without samples there is none.
    """
    figures: dict[str, Any] = {
        **cost.figures(),
        "size_bytes": file_size(model),
        "latency_ms": latency_ms,
        "accuracy": None,
    }
    if data is None:
        return figures
    if accuracy is None:
        with phase("evaluation"):
            accuracy = make_evaluator(data, settings)(model)
    figures["accuracy"] = accuracy.to_json()
    return figures
