"""Accuracy over what several methods save, and the area under each curve.

The reference samples serve for relevance and for the controllers' decisions; the test samples only
draw the curve. A method is written `control/criterion` or `control/criterion/compensate`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.data import Data, SampleSource
from onnxprune.detection import OVERLAPS
from onnxprune.engine import Job, each, is_spread
from onnxprune.errors import DataError, InvalidModel, UnknownName, check_name
from onnxprune.evaluation import FIDELITY, Accuracy, Evaluator, Net, Runnable, agreement
from onnxprune.exact import started
from onnxprune.files import write_whole
from onnxprune.graph import Graph, ModelSource, load_model, naming_file
from onnxprune.relevance import one_thread
from onnxprune.runtimes import is_deployed, onnx_behind, onnx_of, running_file, size_of
from onnxprune.search import (
    CONTROLLERS,
    OVER,
    Floor,
    Nets,
    Settings,
    State,
    Target,
    changes,
    check_baseline,
    clock,
    describe,
    find_controller,
    make_evaluator,
    make_task,
    measured_on,
    merged,
    metric_name,
    open_model,
    parts_of,
    search,
    time_in_turn,
)
from onnxprune.surgery import count

LAST_RATE = 0.95
"""Where the curves end: with less left nothing works any more."""

OnPoint = Callable[[str, float, float], None]


@dataclass
class Curve:
    """What one method reaches, from the unpruned net on.

    Each of `OVER` is the share that is saved; `latency` is measured only for a curve over it.
    Shapes: rate, macs, params, latency, mean, harmonic `[points]`.
    """

    over: str = "rate"
    rate: list[float] = field(default_factory=list)
    macs: list[float] = field(default_factory=list)
    params: list[float] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    harmonic: list[float] = field(default_factory=list)
    seconds: float = 0.0
    evaluations: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return what `curve.json` holds of a method."""
        saved = {name: found for name in OVER if (found := getattr(self, name))}
        return {
            "over": self.over,
            **saved,
            "mean": self.mean,
            "harmonic": self.harmonic,
            "auc_mean": area(saved[self.over], self.mean),
            "auc_harmonic": area(saved[self.over], self.harmonic),
            "seconds": self.seconds,
            "evaluations": self.evaluations,
        }


def write_curves(methods: Mapping[str, Any], metric: str, path: Path) -> None:
    """Write what each method reached, as `Curve.to_json` gives it, and what was measured.

    Raises: OutputError when the place is not writable.
    """
    content = {"metric": metric, "methods": methods}
    write_whole(path, json.dumps(content, indent=2) + "\n")


def area(saved: list[float], accuracy: list[float]) -> float:
    """Return the area under a curve from a saving of 0 to one of 0.95, divided by 0.95.

    A curve that ends earlier keeps its last accuracy; a saving that was measured, and fell, counts
    as the largest before it.

    >>> round(area([0.0, 0.95], [1.0, 0.0]), 6)
    0.5
    """
    rising = np.maximum.accumulate(saved)
    points = np.array([*rising[rising < LAST_RATE], LAST_RATE])
    return float(np.trapezoid(np.interp(points, rising, accuracy), points) / LAST_RATE)


def parse_method(method: str, settings: Settings) -> Settings:
    """Return the settings of a method such as `accuracy-aware/lrp:zplus/bias`.

    Raises: UnknownName when the text is not of that form or the controller does not exist.
    """
    parts = method.split("/")
    if not 2 <= len(parts) <= 3:
        raise UnknownName(
            f"method '{method}': expected control/criterion or control/criterion/compensate, "
            f"such as accuracy-aware/lrp; controls are {', '.join(CONTROLLERS)}"
        )
    compensate = parts[2] if len(parts) == 3 else "none"
    return replace(settings, control=parts[0], criterion=parts[1], compensate=compensate)


def draw_curve(
    model: ModelProto,
    data: SampleSource,
    test: SampleSource,
    method: str,
    settings: Settings,
    *,
    over: str = "rate",
    on_point: OnPoint | None = None,
) -> Curve:
    """Prune with one method to the end and measure every accepted net on the test samples.

    `over` is what the method brings down, and what the curve is drawn over: until 0.95 of it is
    saved, or of the multiply-adds for a curve over latency.
    Raises: OnnxPruneError for whatever is wrong with the model, the samples or the method.
    """
    check_name("over", over, OVER)
    settings = parse_method(method, settings)
    settings = replace(settings, target=_end(over), floor=Floor(), aim=settings.aim or over)
    graph, samples = open_model(model, data, settings)
    assert isinstance(samples, Data)
    as_read = samples.preprocess or settings.preprocess
    _, unseen = open_model(model, test, replace(settings, per_class=None, preprocess=as_read))
    assert isinstance(unseen, Data)
    for one in (samples, unseen):
        check_baseline(model, one, settings, decide=True)
    judge = make_evaluator(unseen, settings)
    with one_thread(settings.threads, settings.memory):
        task = make_task(graph, samples, settings)
        strategy = replace(task.strategy, stride=settings.tuning.stride)  # a curve has points
        nets = Nets(replace(task, strategy=strategy))
        curve = Curve(over)
        full, time_of = task.costs.of(), clock(samples, settings)
        whole = time_of(model) if over == "latency" else 0.0
        started = time.monotonic()
        judged = 0.0
        for state in _accepted(nets, settings):
            before = time.monotonic()
            result = judge(nets.build(state))
            if whole:
                curve.latency.append(1 - time_of(nets.build(state)) / whole)
            judged += time.monotonic() - before
            left = task.costs.of(state.dead)
            curve.rate.append(task.rate(state.dead))
            curve.macs.append(1 - left.macs / max(full.macs, 1))
            curve.params.append(1 - left.params / max(full.params, 1))
            curve.mean.append(result.mean)
            curve.harmonic.append(result.harmonic)
            if on_point is not None:
                on_point(method, getattr(curve, over)[-1], result.mean)
    curve.seconds = time.monotonic() - started - judged
    curve.evaluations = nets.evaluations
    return curve


@dataclass(frozen=True, eq=False)
class _Curves(Job):
    """A curve for each method and seed."""

    model: ModelProto
    data: SampleSource
    test: SampleSource
    settings: Settings
    over: str

    def run(self, shard: tuple[str, int]) -> Curve:
        """Draw one. Raises: OnnxPruneError as `draw_curve` does."""
        method, seed = shard
        settings = replace(self.settings, seed=seed)
        return draw_curve(self.model, self.data, self.test, method, settings, over=self.over)


def draw_curves(
    model: ModelProto,
    data: SampleSource,
    test: SampleSource,
    runs: Mapping[str, tuple[str, int]],
    settings: Settings,
    *,
    over: str = "rate",
    on_point: OnPoint | None = None,
) -> Iterator[Curve]:
    """Yield a curve for each run, a method and a seed by a name; workers share the runs.

    `on_point` hears of runs of this process, by their names.
    Raises: OnnxPruneError as `draw_curve` does.
    """
    if is_spread():
        job = _Curves(model, data, test, settings, over)
        yield from each(job, list(runs.values()), "drawing curves")
        return
    for name, (method, seed) in runs.items():

        def hear(_: str, saved: float, mean: float, name: str = name) -> None:
            if on_point is not None:
                on_point(name, saved, mean)

        own = replace(settings, seed=seed)
        yield draw_curve(model, data, test, method, own, over=over, on_point=hear)


def seeded(methods: Sequence[str], first: int, seeds: int) -> dict[str, tuple[str, int]]:
    """Return the runs of methods with so many seeds, by name.

    >>> seeded(["one-shot/lrp"], 3, 1)
    {'one-shot/lrp': ('one-shot/lrp', 3)}
    >>> list(seeded(["one-shot/lrp"], 3, 2))
    ['one-shot/lrp (seed 3)', 'one-shot/lrp (seed 4)']
    """
    pairs = [(one, seed) for one in dict.fromkeys(methods) for seed in range(first, first + seeds)]
    return {one if seeds == 1 else f"{one} (seed {seed})": (one, seed) for one, seed in pairs}


def _end(over: str) -> Target:
    """Where a search for a curve ends."""
    if over == "rate":
        return Target(rate=LAST_RATE)
    return Target(params=1 - LAST_RATE) if over == "params" else Target(macs=1 - LAST_RATE)


def _accepted(nets: Nets, settings: Settings) -> Iterator[State]:
    """The accepted states of a search, each once."""
    states = search(nets, find_controller(settings.control))
    return (state for state in states if not state.stopped)


def compare(
    before: ModelSource,
    after: ModelSource,
    data: SampleSource,
    settings: Settings | None = None,
    *,
    evidence: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Return cost, latency and accuracy of two models on the same samples, and their agreement.

    A model may be a file that `deploy` wrote; it runs on its runtime, and what it has of parameters
    and multiply-adds is None. `options` are fields of `Settings`; what they do not name is as in
    `settings`. `per_class` of each side goes by the names of the classes. With `evidence` there is
    what `evidence.json` of a run holds of samples: intervals, and those that changed.
    Units: `agreement`, share of the samples, or pixels, that both put into the same class; None for
    boxes, and for outputs that are known to hold something else.
    Raises: OnnxPruneError for whatever is wrong with a model or the samples.
    """
    settings = merged(settings, options)
    try:
        return _compared(before, after, data, settings, evidence)
    except InvalidModel:
        for source in (before, after):
            if not is_deployed(source):
                with naming_file(source):
                    model = Graph(load_model(source)).model
                started(model, source, settings)  # names the file that is refused
        raise


def _compared(
    before: ModelSource, after: ModelSource, data: SampleSource, settings: Settings, shown: bool
) -> dict[str, Any]:
    on = measured_on(settings)
    unpruned = load_model(_home(before, after))
    opened, samples = open_model(unpruned, data, settings, pruned=onnx_behind(after))
    if samples is None:
        raise DataError("data: is None; expected samples to compare the models on")
    check_baseline(unpruned, samples, settings, decide=True)
    judge = make_evaluator(samples, settings)
    sides, given, models = [], [], list[Runnable]()
    with ExitStack() as stack:
        for source in (before, after):
            sides.append(_figures(source, opened, settings))
            models.append(stack.enter_context(_running(source, opened, settings)))
        if isinstance(models[0], Net) and not judge.metric.answers:
            judge(unpruned)  # it runs in batches, which tell whether samples are mixed up
        times = time_in_turn(models, samples, settings)
        for side, model, latency_ms in zip(sides, models, times, strict=True):
            accuracy, classes = _judged(judge, model)
            given.append(classes)
            side |= {"latency_ms": latency_ms, "accuracy": accuracy.to_json()}
        worst = _worst(judge, models[1], samples)
        more = {"evidence": changes(opened, models, samples, settings)} if shown else {}
    names = parts_of(samples, settings, sides[0]["accuracy"])
    for side in sides:
        side["accuracy"]["per_class"] = _named(names, side["accuracy"]["per_class"])
    return {
        "before": sides[0],
        "after": sides[1],
        "metric": metric_name(samples, settings),
        "latency": {"batch": settings.latency_batch, "threads": settings.threads, "on": on},
        "agreement": _agreement(given, sides[1], samples, metric_name(samples, settings)),
        "worst": worst,
        "samples": len(samples),
        "classes": list(sides[0]["accuracy"]["per_class"]),
        **more,
    }


def _home(before: ModelSource, after: ModelSource) -> ModelSource:
    """The ONNX model that says how samples are read: one of the two, or what they were made of."""
    found = [source for source in (before, after) if not is_deployed(source)]
    return found[0] if found else onnx_of(Path(str(before)))


def _figures(source: ModelSource, opened: Graph, settings: Settings) -> dict[str, Any]:
    """What a model costs, as far as that is known of a deployed file."""
    if is_deployed(source):
        unknown = dict.fromkeys(("params", "macs", "filters"))
        return {**unknown, "size_bytes": size_of(Path(str(source)))}
    model = load_model(source)
    inputs = {value.name for value in model.graph.input}
    shapes = {name: shape for name, shape in opened.input_shapes.items() if name in inputs}
    graph = Graph(model, input_shapes=shapes)
    graph.warn()
    return describe(model, count(graph), None, settings)


def _running(
    source: ModelSource, opened: Graph, settings: Settings
) -> AbstractContextManager[Runnable]:
    """A model as it runs: on onnxruntime, or where it was deployed to."""
    if is_deployed(source):
        return running_file(Path(str(source)), opened, settings.threads)
    return nullcontext(load_model(source))


def _named(names: Sequence[str], scores: Sequence[float | None]) -> dict[str, float | None]:
    """Scores by the names of their classes; a number stands for a name that is not there, or twice.

    >>> _named(["cat", "dog", "cat"], [0.5, None, 0.75, 1.0])
    {'cat': 0.5, 'dog': None, 'cat (2)': 0.75, '3': 1.0}
    """
    found: dict[str, float | None] = {}
    for number, score in enumerate(scores):
        name = names[number] if number < len(names) else str(number)
        found[f"{name} ({number})" if name in found else name] = score
    return found


WORST = 5
"""How many samples a comparison names, those that agree least."""


def _worst(judge: Evaluator, after: Runnable, samples: Data) -> list[dict[str, Any]]:
    """The samples on which a model agrees least with the unpruned one, the worst first."""
    if judge.metric.name != FIDELITY:
        return []
    measured = judge.of_rows(judge.outputs(after))
    scores = [measured(np.array([k])).mean for k in range(len(samples))]
    order = np.argsort(scores, kind="stable")[:WORST]
    names = samples.names or tuple(f"sample {k}" for k in range(len(samples)))
    return [{"sample": names[k], "score": scores[k]} for k in order.tolist()]


def _judged(judge: Evaluator, model: Runnable) -> tuple[Accuracy, npt.NDArray[Any] | None]:
    """The accuracy, and the classes that a model gives, where its metric is of classes."""
    return (judge(model), None) if judge.metric.parts else judge.judge(model)


def _agreement(
    classes: list[npt.NDArray[Any] | None], after: Mapping[str, Any], samples: Data, metric: str
) -> float | None:
    """Share of the samples that both models put into one class, or else their fidelity."""
    before, now = classes
    if metric in OVERLAPS:
        return None
    if before is None or now is None:
        return float(after["accuracy"]["harmonic"])
    return agreement(before, now) if all(h.is_scores for h in samples.heads[:1]) else None
