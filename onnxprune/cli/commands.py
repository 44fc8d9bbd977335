"""The commands: each parses its options, calls a function and prints the result."""

from __future__ import annotations

import json
from itertools import chain, count
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxprune.cli import options
from onnxprune.cli.help import example
from onnxprune.cli.program import Program, Screen
from onnxprune.files import check_place, folder_to_fill, make_folder
from onnxprune.search import Settings

MODEL = click.argument("model", type=options.FILE)
OUTPUT = click.option(
    "-o", "--output", type=options.FILE, required=True, metavar="FILE", help="The file to write."
)


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="onnxprune", prog_name="onnxprune")
def main() -> None:
    """Make a trained CNN smaller and faster by removing filters from its ONNX graph.

    Relevance (LRP) on a few labelled samples ranks the filters; the harmonic mean of the class
    accuracies limits how many go. Nothing is trained.
    """


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
        check_place(svg)
    from onnxprune.report import inspect

    found = inspect(model, svg=svg, **asked)
    if svg:
        screen.say(f"drawing: {svg}")
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
def score(screen: Screen, /, model: str, data: str | None, output: str, **asked: Any) -> None:
    """Score the channels of MODEL by a criterion.

    Writes an .npz with the score of each channel, for each class where the criterion tells classes
    apart.
    """
    check_place(output)
    from onnxprune.channels import find_groups
    from onnxprune.graph import load_model
    from onnxprune.relevance import score
    from onnxprune.search import open_model, walk_batch

    settings = Settings.of(**asked)
    graph, samples = open_model(load_model(model), data, settings)
    groups = find_groups(graph, allow_inexact=settings.allow_inexact, also=settings.also)
    with screen.progress(f"scoring {len(groups):,} channels"):
        scores = score(
            graph,
            groups,
            samples,
            settings.criterion,
            device=settings.device,
            batch_size=walk_batch(graph, samples, settings),
            threads=settings.threads,
            rng=np.random.default_rng(settings.seed),
        )
    scores.save(output)
    screen.say(f"scores of {len(groups):,} channels: {output}")


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
    for place in filter(None, (output, plan)):
        check_place(place)
    asked = Settings.of(**settings)
    result = _prune(screen, model, data, asked, run_dir=run_dir, resume=resume)
    from onnxprune.graph import reads_back, save_model

    save_model(result.model, output, check=reads_back(result.model))
    if plan:
        result.plan.save(plan)
    screen.say(f"pruned model: {output}")
    if run_dir:
        screen.say(f"report: {Path(run_dir) / 'report.html'}")


def _prune(
    screen: Screen,
    /,
    model: str | Path,
    data: str | Path | None,
    settings: Settings,
    *,
    run_dir: str | Path | None,
    resume: bool = False,
) -> Any:
    """Run a search, show its progress and print its result."""
    from onnxprune.cli.tables import outcome, remarks, step_line
    from onnxprune.run import prune
    from onnxprune.search import summary

    goal = settings.target.rate

    def show(task: Any, state: Any) -> None:
        if state.stopped:
            return
        figures = summary(task, state)
        harmonic = None if state.accuracy is None else state.accuracy.harmonic
        line = step_line(figures, harmonic, included=bool(settings.limits.include))
        progress.step(line, figures["rate"] / goal if goal else None)

    with screen.resumable(run_dir), screen.progress("analysing the model") as progress:
        result = prune(
            model, data, settings=settings, run_dir=run_dir, resume=resume, on_state=show
        )
    screen.print(*outcome(result.report))
    for line in remarks(result.report):
        screen.say(line)
    return result


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
    check_place(output)
    from onnxprune.run import apply_to
    from onnxprune.search import Plan

    wanted = Plan.load(plan)
    apply_to(output, model, wanted, masked=masked, **asked)
    screen.say(f"{len(wanted):,} filters {'masked' if masked else 'removed'}: {output}")


@main.command(epilog=example("onnxprune compare model.onnx small.onnx --data test/"))
@MODEL
@click.argument("other", type=options.FILE)
@options.samples("--data", "TEST", "Test samples, best ones that pruning has not seen")
@options.TRUST_BASELINE
@options.JSON
@options.METRIC
@options.LATENCY_BATCH
@options.RUNNING
@click.pass_obj
def compare(
    screen: Screen, /, model: str, other: str, data: str, as_json: bool, **work: Any
) -> None:
    """Compare MODEL and OTHER on test samples.

    Shows class accuracies, agreement, size, parameters, MACs and latency.
    """
    found = _compare(screen, model, other, data, Settings.of(**work), quiet=as_json)
    if as_json:
        click.echo(json.dumps(found, indent=2))


def _compare(
    screen: Screen,
    /,
    model: str | Path,
    other: str | Path,
    data: str | Path,
    settings: Settings,
    *,
    quiet: bool = False,
) -> dict[str, Any]:
    from onnxprune.cli.tables import class_table, outcome, worst_line
    from onnxprune.comparison import compare

    with screen.progress("running both models"):
        found = compare(model, other, data, settings)
    if not quiet:
        screen.print(*outcome(found), class_table(found))
        if found["worst"]:
            screen.print(worst_line(found))
    return found


@main.command(
    epilog=example(
        "onnxprune curve model.onnx --data reference/ --test test/ -o curves/ \\",
        "    --method accuracy-aware/lrp --method one-shot/magnitude",
    )
)
@MODEL
@options.samples("--data", "REF", "Reference samples, to prune with")
@options.samples("--test", "TEST", "Test samples, to draw with")
@options.TRUST_BASELINE
@options.METHODS_DRAWN
@options.DRAWN_OVER
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    required=True,
    metavar="DIR",
    help="Folder for curve.json, curve.svg and curve.png.",
)
@options.UNLABELLED
@options.METRIC
@options.TUNE
@options.LIMITS
@options.WORK
@click.pass_obj
def curve(
    screen: Screen,
    /,
    model: str,
    data: str,
    test: str,
    methods: tuple[str, ...],
    over: str,
    output: str,
    **settings: Any,
) -> None:
    """Draw accuracy over what several methods save.

    Each method prunes until 95 % of the removable filters are gone, or of the figure that it is
    drawn over. The area under its curve (AUC) is relative to that of a curve which stays at 100 %.
    """
    from onnxprune.cli.tables import curve_line, curve_table
    from onnxprune.comparison import draw_curve, parse_method, write_curves
    from onnxprune.graph import load_model
    from onnxprune.report import write_curve_plot

    asked = Settings.of(**settings)
    for method in methods:
        parse_method(method, asked)
    proto = load_model(model)
    found: dict[str, Any] = {}
    with folder_to_fill(output) as folder:
        for method in dict.fromkeys(methods):
            with screen.progress(method) as progress:

                def show(method: str, saved: float, mean: float, progress: Any = progress) -> None:
                    progress.step(curve_line(method, saved, mean), max(saved, 0.0))

                drawn = draw_curve(proto, data, test, method, asked, over=over, on_point=show)
            found[method] = drawn.to_json()
            write_curves(found, asked.metric, folder / "curve.json")
        plots = (folder / f"curve.{kind}" for kind in ("png", "svg"))
        *_, drawing = (write_curve_plot(found, path, asked.metric) for path in plots)
    screen.print(curve_table(found))
    screen.say(f"curves: {drawing}")


@main.command(epilog=example("onnxprune report run/"))
@click.argument("directory", type=options.FILE)
@options.VOLUME
@click.pass_obj
def report(screen: Screen, /, directory: str) -> None:
    """Write the page of a run, finished or not, and print its path."""
    from onnxprune.report import write_page

    screen.print(str(write_page(directory)))


@main.command(
    epilog=example("onnxprune convert resnet18 --from torchvision --weights DEFAULT -o model.onnx")
)
@click.argument("source")
@OUTPUT
@options.CONVERSION
@options.SEED
@options.VOLUME
@click.pass_obj
def convert(screen: Screen, /, source: str, output: str, fixed_batch: bool, **choices: Any) -> None:
    """Write a network of another framework as ONNX.

    SOURCE is package.module:function, path/to/file.py:function, a .pt2 file, or the name of a
    torchvision model.
    """
    check_place(output)
    from onnxprune.converters import convert

    with screen.progress(f"converting {source}"):
        path = convert(source, output, dynamic_batch=not fixed_batch, **choices)
    screen.say(f"model: {path}")


@main.command(epilog=example("onnxprune demo"))
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="DIR",
    help="Folder to write; by default a new onnxprune-demo.",
)
@options.DEVICE
@options.VOLUME
@click.pass_obj
def demo(screen: Screen, /, output: str | None, device: str) -> None:
    """Prune a small model that comes with onnxprune, in under a minute."""
    from onnxprune.cli.tables import totals
    from onnxprune.report import inspect
    from onnxprune.samples import fashion_mnist as sample

    folder = make_folder(output or _free_name("onnxprune-demo"))
    # more threads would wait for each other on a model this small
    settings = Settings.of(device=device, threads=1, max_drop=0.03)
    screen.print(f"A small CNN for Fashion-MNIST: {totals(inspect(sample.MODEL))}.", "")
    screen.print("Pruned on 20 reference images of each class, with at most 3 points lost:")
    _prune(screen, sample.MODEL, sample.REFERENCE, settings, run_dir=folder)
    screen.print("Compared on 30 test images of each class, which pruning has not seen:")
    _compare(screen, sample.MODEL, folder / "pruned.onnx", sample.TEST, settings)
    screen.print(
        f"The pruned model: {folder / 'pruned.onnx'}",
        f"The report:       {folder / 'report.html'}",
        f"The original:     {sample.MODEL}",
    )


def _free_name(name: str) -> str:
    """Return the name, or the first of name-2, name-3, ... where it is taken."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(one for one in names if not Path(one).exists())
