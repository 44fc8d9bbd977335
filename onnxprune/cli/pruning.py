"""Commands that say what may go, and take it: inspect, score, prune, apply."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxprune.cli import options
from onnxprune.cli.group import MODEL, OUTPUT, main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen
from onnxprune.cli.signals import check, named
from onnxprune.cli.sources import check_output
from onnxprune.files import check_apart
from onnxprune.search import Settings

WHOLE = 20
"""How many times as long as measuring the unpruned model, twice, a search takes, more or less."""


@main.command(epilog=example("onnxprune inspect model.onnx"))
@MODEL
@options.JSON
@click.option("--svg", type=options.FILE, metavar="FILE", help="Also draw the network, as SVG.")
@options.ALLOW_INEXACT
@options.ALSO
@options.INPUT_SHAPES
@options.VOLUME
@click.pass_obj
def inspect(screen: Screen, /, model: str, as_json: bool, svg: str | None, **asked: Any) -> None:
    """Show which filters can go, what that would save, and why the others stay.

    The convolutions of one group are tied: their filters go together. "each" is what the removal
    of one filter saves.
    """
    if svg:
        check_output(svg, model)
    from onnxprune.report import inspect

    found = inspect(model, svg=svg, **asked)
    if svg:
        screen.wrote(f"drawing: {svg}")
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    from onnxprune.cli.tables import group_table, pinned_table, totals

    screen.print(group_table(found), *pinned_table(found), totals(found))
    if found["inexact"]:
        screen.say(f"inexact, as allowed: {', '.join(found['inexact'])}")


@main.command(epilog=example("onnxprune score model.onnx --data reference/ -o scores.npz"))
@MODEL
@options.DATA
@OUTPUT
@options.CRITERION
@options.ALLOW_INEXACT
@options.ALSO
@options.WORK
@click.pass_obj
@options.ENGINE
def score(screen: Screen, /, model: str, data: str | None, output: str, **asked: Any) -> None:
    """Score the channels of MODEL by a criterion.

    Writes an .npz with the score of each channel, for each class where the criterion tells classes
    apart.
    """
    check_output(output, model, data)
    from onnxprune.channels import find_groups
    from onnxprune.graph import load_model, naming_file
    from onnxprune.relevance import Halving, score
    from onnxprune.search import open_model, walk_batch

    settings = Settings.of(**asked)
    with naming_file(model):
        graph, samples = open_model(load_model(model), data, settings)
        groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    with screen.progress(f"scoring {len(groups):,} channels"):
        on = partial(score, device=settings.device, threads=settings.threads)
        batch_size = walk_batch(graph, samples, settings)
        scored = Halving(lambda size: partial(on, batch_size=size), batch_size)
        rng = np.random.default_rng(settings.seed)
        scores = scored(graph, groups, samples, settings.criterion, rng=rng)
    scores.save(output)
    screen.wrote(f"scores of {len(groups):,} channels: {output}")


@main.command(
    epilog=example("onnxprune prune model.onnx -o small.onnx --data reference/ --max-drop 0.01")
)
@MODEL
@OUTPUT
@options.DATA
@options.TRUST_BASELINE
@options.METHOD
@options.TARGET
@options.FLOOR
@options.CONFIDENCE
@options.LIMITS
@click.option("--plan", type=options.FILE, metavar="FILE", help="Also save the plan.")
@click.option(
    "--run-dir",
    type=options.FILE,
    metavar="DIR",
    help="Record the run here: settings, journal, plan, model, report, page.",
)
@click.option("--resume", is_flag=True, help="Continue the run in --run-dir.")
@options.WORK
@click.pass_obj
@options.ENGINE
def prune(
    screen: Screen,
    /,
    model: str,
    output: str,
    data: str | None,
    plan: str | None,
    run_dir: str | None,
    resume: bool,
    **settings: Any,
) -> None:
    """Remove filters from MODEL.

    Stops when a target is reached, or when the next step would break the accuracy floor. With
    neither given, the floor is a drop of 0.01 in the harmonic mean of the class accuracies on the
    reference samples.
    """
    check_apart(output, plan, run_dir)
    for place in (output, *([] if plan is None else [plan])):
        check_output(place, model, data, settings.get("unlabelled"))
    asked = Settings.of(**settings)

    def keep(result: Any) -> str:
        result.save(output)
        if plan:
            result.plan.save(plan)
        return output

    show_pruning(screen, model, data, asked, keep, run_dir=run_dir, resume=resume)
    screen.wrote(f"pruned model: {output}")
    page = None if run_dir is None else Path(run_dir) / "report.html"
    if page is not None and page.exists():  # a warning said why it is not
        screen.say(f"report: {page}")


def show_pruning(
    screen: Screen,
    /,
    model: str | Path,
    data: str | Path | None,
    settings: Settings,
    keep: Callable[[Any], str | Path],
    *,
    run_dir: str | Path | None,
    resume: bool = False,
) -> None:
    """Run a search, show its progress, keep its result and print it.

    `keep` writes a result, that of an interrupted search as well, and returns where it is.
    """
    from onnxprune.cli.tables import outcome, remarks, step_line
    from onnxprune.progress import spent_by_phase
    from onnxprune.run import Interrupted, prune
    from onnxprune.search import summary

    def show(task: Any, state: Any) -> None:
        check()
        if state.stopped:
            return
        if not state.dead.any() and settings.control != "one-shot":
            progress.expect(WHOLE * spent_by_phase().get("evaluation", 0.0))
        figures = summary(task, state)
        harmonic = None if state.accuracy is None else state.accuracy.harmonic
        line = step_line(figures, harmonic, included=bool(settings.limits.include))
        progress.step(line, task.way(state.dead))

    def save(stop: KeyboardInterrupt) -> str:
        nothing = "no step was finished, so no model is written"
        if not isinstance(stop, Interrupted):
            return nothing
        screen.say(f"{named(stop)}: saving the best model so far; once more stops at once")
        best = stop.best()
        if best is None:
            return nothing
        return f"the best model so far, {_removed(best)}, is {keep(best)}"

    with screen.resumable(run_dir, save):
        with screen.progress("analysing the model") as progress:
            result = prune(
                model, data, settings=settings, run_dir=run_dir, resume=resume, on_state=show
            )
        try:
            keep(result)
        except KeyboardInterrupt as stop:
            raise Interrupted(lambda: result) from stop
    screen.kept = True
    screen.print(*outcome(result.report))
    for line in remarks(result.report):
        screen.say(line)


def _removed(result: Any) -> str:
    return f"{len(result.plan):,} filters less"


@main.command(epilog=example("onnxprune apply model.onnx run/plan.json -o small.onnx"))
@MODEL
@click.argument("plan", type=options.FILE)
@OUTPUT
@click.option("--masked", is_flag=True, help="Set the filters to zero; all shapes stay.")
@options.INPUT_SHAPES
@options.VOLUME
@click.pass_obj
def apply(
    screen: Screen, /, model: str, plan: str, output: str, masked: bool, **asked: Any
) -> None:
    """Remove the filters of PLAN from MODEL.

    Needs neither samples nor torch. A plan names filters and holds no weights: the weights that a
    run corrected (--compensate) are only in the model that it wrote.
    """
    check_output(output, model, plan)
    from onnxprune.run import apply_to
    from onnxprune.search import Plan

    wanted = Plan.load(plan)
    apply_to(output, model, wanted, masked=masked, **asked)
    screen.wrote(f"{len(wanted):,} filters {'masked' if masked else 'removed'}: {output}")
