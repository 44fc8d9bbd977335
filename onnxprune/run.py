"""A whole pruning run: from a model and samples to the pruned model, its plan and its report.

With a run directory every accepted step is journalled before the next begins, so a killed run
continues where it was (`resume`) and ends in the same plan. One that is interrupted hands out what
it had reached (`Interrupted`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from onnx import ModelProto

from onnxprune.channels import find_groups
from onnxprune.checks import Flag, Text, kind_of
from onnxprune.data import Data, Inputs, SampleSource, read
from onnxprune.errors import InvalidType, OnnxPruneError, OutputError
from onnxprune.evaluation import check_weights
from onnxprune.graph import (
    NONE_APART,
    Graph,
    InputShapes,
    ModelSource,
    Weights,
    fill,
    load_model,
    naming_file,
    reads_back,
    save_model,
    to_graphsurgeon,
    to_ir,
)
from onnxprune.plugins import first_line
from onnxprune.progress import TAKEN_BACK, spent_by_phase, tell, timed
from onnxprune.proof import Proof
from onnxprune.relevance import one_thread
from onnxprune.report import write_page
from onnxprune.search import (
    ABOUT,
    EVIDENCE,
    Nets,
    Plan,
    RunDirectory,
    Settings,
    State,
    Task,
    about_run,
    already_met,
    check_baseline,
    check_fallback,
    check_own,
    check_reach,
    complete,
    evidence_of,
    find_controller,
    make_evaluator,
    make_report,
    make_task,
    measured_on,
    merged,
    open_model,
    open_unlabelled,
    parted,
    samples_decide,
    search,
    summary,
    to_try,
    told,
    unreachable,
    with_fallback,
)
from onnxprune.surgery import mask, remove_channels_apart
from onnxprune.written import Measure, Written

if TYPE_CHECKING:
    import onnx_graphsurgeon
    import onnx_ir

logger = logging.getLogger(__name__)
taken_back = logging.getLogger(TAKEN_BACK)


OnState = Callable[[Task, State], None]


@dataclass(frozen=True)
class Result:
    """What a run ends in; `report` holds the keys of `report.json`."""

    model: ModelProto
    plan: Plan
    report: dict[str, Any]
    check: Callable[[Path], None] | None = field(default=None, repr=False, compare=False)

    def save(self, path: str | Path) -> Path:
        """Write the model to a file, which is read again and run before it takes its name.

        Raises: OutputError when the place is not writable; SurgeryError, which leaves no file
        behind, where what was written is not what the report says.
        """
        return save_model(self.model, path, check=self.check or reads_back(self.model))

    def as_graphsurgeon(self) -> onnx_graphsurgeon.Graph:
        """Return the pruned model as a graph of onnx-graphsurgeon.

        Raises: MissingPackage when onnx-graphsurgeon is not installed.
        """
        return to_graphsurgeon(self.model)

    def as_ir(self) -> onnx_ir.Model:
        """Return the pruned model as a model of onnx_ir.

        Raises: MissingPackage when onnx_ir is not installed.
        """
        return to_ir(self.model)


class Interrupted(KeyboardInterrupt):
    """A run that was interrupted, by Ctrl-C or by what a signal raised.

    `best()` returns the net of the last accepted step, run as every result is, or None before the
    first that removed anything. Its report holds the figures of that step.
    """

    def __init__(self, best: Callable[[], Result | None]) -> None:
        super().__init__("interrupted")
        self.best = best


def prune(
    model: ModelSource,
    data: SampleSource | None = None,
    *,
    settings: Settings | None = None,
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_state: OnState | None = None,
    **options: Any,
) -> Result:
    """Prune a model as far as its settings say.

    `options` are fields of `Settings`, or of its target, floor and limits: `rate=0.5`,
    `max_drop=0.01`, `control="one-shot"`; what they do not name is as in `settings`. With neither
    target nor floor, a drop of 0.01 is allowed. `on_state(task, state)` hears of every step. The
    result is run before it is returned (`onnxprune.proof`).
    Raises: OnnxPruneError, one line, for whatever is wrong with the model, the samples or the ask;
    Interrupted, which has the best net so far, in place of KeyboardInterrupt.
    """
    settings = merged(settings, options)
    run_dir, resume = RUN_DIR("run_dir", run_dir), Flag()("resume", resume)
    if on_state is not None and not callable(on_state):
        raise InvalidType(f"on_state: is {kind_of(on_state)}; expected a function (task, state)")
    with one_thread(settings.threads, settings.memory), timed():
        return _prune(model, data, settings, run_dir, resume, on_state)


RUN_DIR = Text(of="a folder", path=True, optional=True)


def _prune(
    model: ModelSource,
    data: SampleSource | None,
    asked: Settings,
    run_dir: str | Path | None,
    resume: bool,
    on_state: OnState | None,
) -> Result:
    measured_on(asked)  # refuses a runtime that is not there, before anything long
    check_own(run_dir)
    proto = load_model(model)
    with naming_file(model):
        graph, samples = open_model(proto, data, asked)
        settings = with_fallback(graph, samples, complete(asked, samples))
        started = time.monotonic()
        more = open_unlabelled(graph, samples, settings)
        nets = Nets(make_task(graph, samples, settings, more))
    if nets.task.costs.caveat:
        logger.warning("%s", nets.task.costs.caveat)
    reached: list[State] = []
    with RunDirectory.open(run_dir, settings, proto, samples, more, resume=resume) as record:
        try:
            if record.path is not None and not (record.path / ABOUT).exists():
                record.keep(ABOUT, about_run(nets.task, model, data, asked, record.path))
            run = (nets, samples, settings, record, started, on_state, reached)
            return _search(*run, lambda report: check_fallback(asked, settings, report))
        except OnnxPruneError:
            record.abandon()
            raise
        except KeyboardInterrupt as stop:
            raise Interrupted(lambda: _best(nets, samples, settings, reached)) from stop


def _search(
    nets: Nets,
    samples: Data | None,
    settings: Settings,
    record: RunDirectory,
    started: float,
    on_state: OnState | None,
    reached: list[State],
    refuse: Callable[[Mapping[str, Any]], None],
) -> Result:
    """Walk to the end, from the last state that is recorded; `reached` gets the accepted states.

    A report that is refused ends the run before anything is written.
    """
    last, spent = record.last(len(nets.task.groups))
    nets.evaluations = spent.evaluations
    state = last
    reached += [] if last is None else [last]
    if last is None:
        check_reach(nets)
        check_baseline(nets.task.graph.model, samples, settings, decide=samples_decide(settings))
    if settings.control == "accuracy-aware":
        nets.task = record.timed(nets.task, settings)
        if "latency" in nets.task.aims:
            nets.latency = record.latency(nets.task.graph, lambda: nets.latency)
    for state in search(nets, find_controller(settings.control), last):
        spent_now = spent.seconds + time.monotonic() - started
        back = nets.taken_back(state)
        tried = [to_try(one, summary(nets.task, one)) for one in back]
        for one in back:
            _say_taken_back(nets, one)
        record.append(state, summary(nets.task, state), nets.evaluations, spent_now, tried)
        reached[:] = [state]
        tell("step", **told(nets, state, spent_now))
        if on_state is not None:
            on_state(nets.task, state)
    assert state is not None
    if state.stopped == "target" and not state.dead.any():
        logger.warning("%s", already_met(nets, state))
    if state.stopped == "limits" and nets.task.goals:
        raise unreachable(nets, state)
    pruned = _build(nets, state, samples)
    seconds = spent.seconds + time.monotonic() - started
    report = make_report(nets, state, pruned, parted(samples)[1], settings, seconds)
    refuse(report)
    plan = Plan.of(nets.task.groups, state.dead, settings.allow_inexact)
    judged = _judged(nets, report, samples, settings)
    check = Written(nets.task.graph, pruned, _few(samples), *judged)
    report["phases"] = spent_by_phase()
    result = Result(pruned, plan, report, check)
    record.finish(result.model, result.plan, result.report, check)
    if record.path is not None:
        try:
            record.keep(EVIDENCE, _evidence(nets, state, pruned, samples, settings))
            write_page(record.path)
        except OutputError as error:
            logger.warning("%s; 'onnxprune report' writes the page again", error)
    return result


def _say_taken_back(nets: Nets, state: State) -> None:
    if state.accuracy is None:
        return
    said = "%5.1f %% removed, harmonic mean %.1f %%"
    figures = [100 * nets.task.rate(state.dead), 100 * state.accuracy.harmonic]
    if state.net in nets.floors.broken:
        said += ", up to %.1f points less on unseen samples"
        figures.append(100 * nets.floors.broken[state.net])
    taken_back.info(said + ": taken back", *figures)


def _build(nets: Nets, state: State, samples: Data | None) -> ModelProto:
    """Return the net of a state, which has been run."""
    pruned, task = nets.build(state), nets.task
    corrected = state.corrected and task.compensate is not None
    Proof(task.graph, task.groups, state.dead, _few(samples), corrected=corrected)(pruned)
    return pruned


def _best(
    nets: Nets, samples: Data | None, settings: Settings, reached: Sequence[State]
) -> Result | None:
    """Return what an interrupted run has come to."""
    if not reached or not reached[-1].dead.any():
        return None
    state, task = reached[-1], nets.task
    plan = Plan.of(task.groups, state.dead, settings.allow_inexact)
    return Result(_build(nets, state, samples), plan, {**summary(task, state), "stopped": ""})


def _evidence(
    nets: Nets, state: State, pruned: ModelProto, samples: Data | None, settings: Settings
) -> dict[str, Any]:
    """What the page shows of samples and layers. A run that has ended is not lost for its want."""
    try:
        return evidence_of(nets, state, pruned, samples, settings)
    except Exception as error:
        logger.warning("the page lacks samples and layers: %s", first_line(error))
        return {}


def _judged(
    nets: Nets, report: Mapping[str, Any], samples: Data | None, settings: Settings
) -> tuple[Mapping[str, Any] | None, Measure | None]:
    """The accuracy that a report says, and what measures that of a file."""
    judging = parted(samples)[1]
    if judging is None:
        return None, None
    evaluate = nets.task.evaluate or make_evaluator(judging, settings)
    return report["after"]["accuracy"], lambda model: evaluate(model).to_json()


def _few(samples: Data | None) -> npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | None:
    """A few samples to run the result on, unless each of them is a run of its own."""
    if samples is None:
        return None
    x = read(samples.x[:3])
    if not isinstance(x, Inputs):
        return x
    return None if x.apart else x.feeds


def apply(
    model: ModelSource,
    plan: Plan | str | Path,
    *,
    masked: bool = False,
    input_shapes: InputShapes = (),
) -> ModelProto:
    """Return the model without the filters of a plan, or with these set to zero.

    `input_shapes` are sizes of inputs that the model leaves open, by name.
    Raises: InvalidPlan when the plan does not belong to the model; InvalidType for a model or a
    plan that is none.
    """
    return fill(*_apply(model, plan, masked, input_shapes)[:2])


def apply_to(
    path: str | Path,
    model: ModelSource,
    plan: Plan | str | Path,
    *,
    masked: bool = False,
    input_shapes: InputShapes = (),
) -> Path:
    """Write what `apply` returns to a file, which is run before it takes its name.

    Raises: InvalidPlan as `apply` does; OutputError when the place is not writable; SurgeryError,
    which leaves no file behind, where what was written does not run or gives other outputs.
    """
    small, weights, proof = _apply(model, plan, masked, input_shapes)
    return save_model(small, path, weights=weights, check=proof)


def _apply(
    model: ModelSource, plan: Plan | str | Path, masked: bool, input_shapes: InputShapes
) -> tuple[ModelProto, Weights, Proof]:
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    masked = Flag()("masked", masked)
    graph = Graph.load(model, input_shapes=input_shapes)
    graph.warn()
    with naming_file(model):
        check_weights(graph)
        groups = find_groups(graph, allow_inexact=plan.allow_inexact, also=plan.also)
    dead = plan.dead(groups)
    proof = Proof(graph, groups, dead)
    if masked:
        return mask(graph, groups, dead), NONE_APART, proof
    return *remove_channels_apart(graph, groups, dead), proof
