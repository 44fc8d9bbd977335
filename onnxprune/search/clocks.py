"""Clocks: how long a model takes on the runtime that is asked for, onnxruntime or another one.

Another runtime has a process of its own for each model that it times. It does not say how long each
node takes, so the times that onnxruntime gives to the nodes are scaled by how much longer the whole
takes there, which is measured in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from onnx import ModelProto

from onnxprune.data import Data, Inputs
from onnxprune.errors import MissingPackage
from onnxprune.evaluation import Net, Runnable, latencies, node_times
from onnxprune.graph import Graph, load_model
from onnxprune.runtimes import Child, Place, find_runtime, fix_axes, running_on
from onnxprune.search.protocols import Clock, Profile
from onnxprune.search.settings import HOME, Settings


def clock(data: Data | None, settings: Settings) -> Clock:
    """Return what measures the latency of a model in ms, as the settings say."""

    def measure(model: ModelProto) -> float:
        return time_in_turn([model], data, settings)[0]

    return measure


def profiler(data: Data | None, settings: Settings) -> Profile:
    """Return what measures the time of each node of a model in ms, as the settings say."""

    def measure(model: ModelProto) -> Mapping[str, float]:
        times = node_times(model, **_timing(data, settings))
        if settings.latency_on == HOME:
            return times
        home, there = time_in_turn([model, model], data, settings, at_home=1)
        return {name: ms * there / home for name, ms in times.items()}

    return measure


def time_in_turn(
    models: Sequence[Runnable], data: Data | None, settings: Settings, *, at_home: int = 0
) -> list[float]:
    """Measure the latency of models side by side, as the settings say.

    The first `at_home` of them run on onnxruntime whatever is asked for, and what runs elsewhere
    already runs there. Units: ms.
    Raises: MissingPackage where the runtime is not installed; RuntimeFailed where it fails.
    """
    timing = _timing(data, settings)
    if settings.latency_on == HOME:
        return latencies(models, **timing)
    with ExitStack() as open_ones:
        away = [_there(model, settings, timing, open_ones) for model in models[at_home:]]
        return latencies([*models[:at_home], *away], **timing)


def measured_on(settings: Settings) -> str:
    """Return the runtime that latencies are measured on, with its version where it is not ours.

    Raises: MissingPackage where it is not installed.
    """
    if settings.latency_on == HOME:
        return HOME
    try:
        with _child(settings) as child:
            versions = " ".join(child.versions.values())
            return f"{child.runtime.name} {versions}".strip()
    except MissingPackage as error:
        raise MissingPackage(f"--latency-on {settings.latency_on}: {error}") from error


def _there(
    model: Runnable, settings: Settings, timing: Mapping[str, Any], open_ones: ExitStack
) -> Net:
    """The model, loaded by the runtime that is asked for."""
    if isinstance(model, Net):
        return model
    graph = Graph(load_model(model), input_shapes=settings.input_shapes)
    samples: Inputs | None = timing["samples"]
    if samples is not None:
        one = samples[:1].feeds
        shapes = {name: array.shape for name, array in one.items()}
    elif timing["shape"] is not None:
        shapes = {graph.inputs[0]: (1, *timing["shape"])}
    else:
        shapes = {}
    if samples is None or not samples.apart:
        size = settings.latency_batch
        shapes = {name: (size, *shape[1:]) for name, shape in shapes.items()}
    child = open_ones.enter_context(_child(settings))
    return open_ones.enter_context(running_on(child, fix_axes(graph, shapes)))


def _child(settings: Settings) -> Child:
    return Child(find_runtime(settings.latency_on), Place(settings.threads))


def _timing(data: Data | None, settings: Settings) -> dict[str, Any]:
    return {
        "batch_size": settings.latency_batch,
        "device": settings.device,
        "threads": settings.threads,
        "shape": None if data is None or isinstance(data.x, Inputs) else data.x.shape[1:],
        "samples": data.x if data is not None and isinstance(data.x, Inputs) else None,
    }
