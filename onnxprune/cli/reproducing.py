"""The command that does a run again."""

from __future__ import annotations

import json
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.group import main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen, fail
from onnxprune.cli.sources import as_onnx


@main.command(epilog=example("onnxprune reproduce run/", "onnxprune reproduce run/ --data moved/"))
@click.argument("run_dir", type=options.FILE, metavar="DIR")
@click.option(
    "--model", type=options.FILE, metavar="MODEL", help="Where the model of the run is now."
)
@options.samples("--data", "REF", "Where the reference samples of the run are now", required=False)
@click.option(
    "--trust", is_flag=True, help="Run the code that the run names, such as a metric of one's own."
)
@options.JSON
@options.VOLUME
@click.pass_obj
def reproduce(
    screen: Screen, /, run_dir: str, model: str | None, data: str | None, as_json: bool, trust: bool
) -> None:
    """Do the run in DIR again, and say whether the result is equal.

    Runs in a temporary place, with the recorded settings. Equal are plan, ONNX bytes and accuracy:
    exit code 0. Else the exit code is 1, and the error names what differs, the first step of the
    journal that does, and what is not as it was: versions, the machine.
    """
    from onnxprune.cli.tables import step_line
    from onnxprune.reproduction import reproduce
    from onnxprune.search import summary

    with screen.progress("doing the run again") as progress:

        def show(task: Any, state: Any) -> None:
            if not state.stopped:
                harmonic = None if state.accuracy is None else state.accuracy.harmonic
                progress.step(step_line(summary(task, state), harmonic), task.way(state.dead))

        source = None if model is None else as_onnx(model)
        found = reproduce(run_dir, model=source, data=data, on_state=show, trust=trust)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    around = "; ".join(found["around"])
    if not found["equal"]:
        where = f"; first at step {found['step']}: {', '.join(found['step_differs'])}"
        fail(
            f"not equal: {', '.join(found['differs'])}{where if found['step_differs'] else ''}"
            f"{f'; not as then: {around}' if around else ''}"
        )
    if not as_json:
        screen.print(
            f"equal: plan, ONNX bytes and accuracy, {found['steps']} steps "
            f"({found['seconds']:.1f} s)"
        )
        if around:
            screen.say(f"although not as then: {around}")
