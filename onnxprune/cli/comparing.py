"""Commands that say what came out: compare, curve, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from onnxprune.cli import options
from onnxprune.cli.group import MODEL, main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen, fail
from onnxprune.cli.sources import check_output
from onnxprune.files import check_apart, check_place, folder_to_fill, write_whole
from onnxprune.gate import Condition, figures
from onnxprune.search import Settings

PAGES = "compare.html"
"""The page of several runs, or of two models, where no other place is given."""


@main.command(epilog=example("onnxprune compare model.onnx small.onnx --data test/"))
@MODEL
@click.argument("other", type=options.FILE)
@options.samples(
    "--data", "TEST", "Test samples, best ones that pruning has not seen", required=False
)
@options.TRUST_BASELINE
@options.EXACT
@options.FAIL_IF
@options.JSON
@options.MARKDOWN
@options.PAGE
@options.COMPARED
@click.pass_obj
@options.ENGINE
def compare(
    screen: Screen,
    /,
    model: str,
    other: str,
    data: str | None,
    exact: bool,
    plan: str | None,
    tolerance: float | None,
    fail_if: Condition | None,
    as_json: bool,
    markdown: str | None,
    page: str | None,
    **work: Any,
) -> None:
    """Compare MODEL and OTHER on test samples.

    Shows class accuracies, agreement, size, parameters, MACs and latency.

    Given --exact, it says only whether both give the same outputs, and if not, which node is the
    first that differs.
    """
    if exact:
        if fail_if is not None or markdown is not None or page is not None:
            raise click.UsageError("--exact: takes neither --fail-if nor --markdown nor --page")
        _compare_exactly(screen, model, other, data, plan, tolerance, as_json, Settings.of(**work))
        return
    if plan is not None or tolerance is not None:
        raise click.UsageError("--plan and --tolerance: are for --exact")
    if data is None:
        raise click.UsageError("Missing option '--data'; only --exact does without")
    on_screen = markdown == options.SCREEN
    if as_json and on_screen:
        raise click.UsageError("--json and --markdown: give --markdown a file, or one of the two")
    if markdown is not None and not on_screen:
        check_output(markdown, model, other, data)
    if page is not None:
        check_output(page, model, other, data)
    check_apart(None if on_screen else markdown, page)
    quiet = as_json or on_screen
    asked = Settings.of(**work)
    found = show_comparison(screen, model, other, data, asked, quiet=quiet, evidence=bool(page))
    evidence = found.pop("evidence", {})
    if as_json:
        click.echo(json.dumps(found, indent=2))
    reasons = None if fail_if is None else fail_if.reasons(figures(found))
    if markdown is not None:
        _write_markdown(found, reasons, None if on_screen else markdown)
    if page is not None:
        _write_page({**found, "evidence": evidence}, model, other, page)
    screen.kept = page is not None or (markdown is not None and not on_screen)
    if reasons:
        fail(f"--fail-if: {'; '.join(reasons)}")


def _compare_exactly(
    screen: Screen,
    model: str,
    other: str,
    data: str | None,
    plan: str | None,
    tolerance: float | None,
    as_json: bool,
    settings: Settings,
) -> None:
    from onnxprune.exact import EXACT, compare_exactly

    tolerance = EXACT if tolerance is None else tolerance
    with screen.progress("running both models"):
        found = compare_exactly(
            model, other, data, plan=plan, tolerance=tolerance, settings=settings
        )
    if as_json:
        click.echo(json.dumps(found, indent=2))
    if not found["equal"]:
        fail(f"not equal: {found['problem']} (tolerance {tolerance:g})")
    if not as_json:
        screen.print(
            f"equal: outputs differ by at most {found['largest']:.2g} of the largest number, in "
            f"{found['runs']} runs (tolerance {tolerance:g})"
        )


def _write_markdown(
    found: Mapping[str, Any], reasons: Sequence[str] | None, path: str | None
) -> None:
    from onnxprune.report import markdown

    text = markdown(found, reasons)
    if path is None:
        click.echo(text)
    else:
        write_whole(path, text + "\n")


def _write_page(found: Mapping[str, Any], model: str, other: str, path: str) -> None:
    from onnxprune.report import write_pair

    write_pair(found, (Path(model).name, Path(other).name), path)


def show_comparison(
    screen: Screen,
    /,
    model: str | Path,
    other: str | Path,
    data: str | Path,
    settings: Settings,
    *,
    quiet: bool = False,
    evidence: bool = False,
) -> dict[str, Any]:
    from onnxprune.cli.tables import class_table, outcome, worst_line
    from onnxprune.comparison import compare

    with screen.progress("running both models"):
        found = compare(model, other, data, settings, evidence=evidence)
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
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Draw each method with so many seeds, from --seed on.",
)
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
@options.ENGINE
def curve(
    screen: Screen,
    /,
    model: str,
    data: str,
    test: str,
    methods: tuple[str, ...],
    seeds: int,
    over: str,
    output: str,
    **settings: Any,
) -> None:
    """Draw accuracy over what several methods save.

    Each method prunes until 95 % of the removable filters are gone, or of the figure that it is
    drawn over. The area under its curve (AUC) is relative to that of a curve which stays at 100 %.
    """
    from onnxprune.cli.tables import curve_line, curve_table
    from onnxprune.comparison import draw_curves, parse_method, seeded, write_curves
    from onnxprune.graph import load_model
    from onnxprune.report import write_curve_plot

    asked = Settings.of(**settings)
    for method in methods:
        parse_method(method, asked)
    proto = load_model(model)
    found: dict[str, Any] = {}
    runs, shown = seeded(methods, asked.seed, seeds), list[Any]()

    def show(name: str, saved: float, mean: float) -> None:
        shown[-1].step(curve_line(name, saved, mean), max(saved, 0.0))

    curves = draw_curves(proto, data, test, runs, asked, over=over, on_point=show)
    with folder_to_fill(output) as folder:
        for name in runs:
            with screen.progress(name) as progress:
                shown.append(progress)
                found[name] = next(curves).to_json()
            write_curves(found, asked.metric, folder / "curve.json")
        plots = (folder / f"curve.{kind}" for kind in ("png", "svg"))
        *_, drawing = (write_curve_plot(found, path, asked.metric) for path in plots)
        screen.kept = True
    screen.print(curve_table(found))
    screen.say(f"curves: {drawing}")


@main.command(
    epilog=example(
        "onnxprune report run/",
        "onnxprune report run/ other/ -o both.html",
        "onnxprune report edge/small.xml edge/small.mnn --data test/ -o both.html",
    )
)
@click.argument("places", type=options.FILE, nargs=-1, required=True, metavar="DIR...|A B")
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="FILE",
    help="The page of several runs or of two models; by default compare.html.",
)
@options.samples("--data", "TEST", "Test samples of two models", required=False)
@options.TRUST_BASELINE
@options.COMPARED
@click.pass_context
def report(
    context: click.Context,
    /,
    places: tuple[str, ...],
    output: str | None,
    data: str | None,
    **work: Any,
) -> None:
    """Write the page of a run, finished or not, and print its path.

    Of several runs it writes one page that shows them side by side; of two models, ONNX or deployed
    ones, that of their comparison, as compare --page does.
    """
    from onnxprune.report import write_comparison, write_page

    screen = context.ensure_object(Screen)
    if _are_models(places, data is not None):
        model, other = places
        if data is None:
            raise click.UsageError("Missing option '--data'; two models are compared on samples")
        page = output or PAGES
        check_output(page, model, other, data)
        asked = Settings.of(**work)
        found = show_comparison(screen, model, other, data, asked, quiet=True, evidence=True)
        _write_page(found, model, other, page)
        screen.print(page)
        screen.kept = True
        return
    for one in context.command.params:
        if one.name in {"data", *work} and _given(context, one):
            raise click.UsageError(f"{one.opts[-1]}: is for two models, not for runs")
    if len(places) > 1:
        place = check_place(output or PAGES, *places)
        screen.print(str(write_comparison(places, place)))
        screen.kept = True
        return
    if output is not None:
        raise click.UsageError(
            "--output: is for several runs; the page of one is report.html in its own folder"
        )
    screen.print(str(write_page(places[0])))
    screen.kept = True


def _are_models(places: Sequence[str], sampled: bool) -> bool:
    """Whether two files are named, one of which may be missing, or both where samples are given."""
    paths = [Path(place) for place in places]
    files = sampled or any(path.is_file() for path in paths)
    return files and len(paths) == 2 and not any(path.is_dir() for path in paths)


def _given(context: click.Context, option: click.Parameter) -> bool:
    return context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT
