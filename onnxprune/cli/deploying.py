"""The command that writes a model for other runtimes."""

from __future__ import annotations

import json
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.group import MODEL, main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen, fail
from onnxprune.deploy import QUANTISERS
from onnxprune.search import Settings


@main.command(
    epilog=example("onnxprune deploy small.onnx --to openvino,mnn,ncnn --data test/ -o edge/")
)
@MODEL
@options.DEPLOYMENT
@click.option(
    "--original", type=options.FILE, metavar="MODEL", help="The unpruned model, to measure beside."
)
@click.option(
    "--int8",
    is_flag=False,
    flag_value=QUANTISERS[0],
    type=click.Choice(QUANTISERS),
    metavar="[BY]",
    help=f"Quantise, too: as far as the floor allows, by {' or '.join(QUANTISERS)}.",
)
@options.samples(
    "--calibrate", "REF", "Samples to quantise with, on which the floor holds", required=False
)
@options.FLOOR
@options.samples("--data", "TEST", "Test samples; without, inputs are made up", required=False)
@click.option(
    "-o", "--output", type=options.FILE, required=True, metavar="DIR", help="The folder to fill."
)
@options.JSON
@options.METRIC
@options.RUNNING
@click.pass_obj
def deploy(
    screen: Screen,
    /,
    model: str,
    data: str | None,
    output: str,
    as_json: bool,
    original: str | None,
    int8: str | None,
    calibrate: str | None,
    to: tuple[str, ...],
    tolerance: float,
    time_limit: float,
    python: tuple[tuple[str, str], ...],
    **work: Any,
) -> None:
    """Write MODEL for other runtimes, each verified.

    A runtime converts and runs it in a process of its own. Only what gives onnxruntime's outputs on
    all samples is written: one sample at a time, all axes fixed, in 32-bit floats and, with
    --int8, in 8-bit integers.
    """
    from onnxprune.cli.deployed import deployed_table, remarks
    from onnxprune.deploy import Request, deploy, problems

    request = Request(to=to, tolerance=tolerance, time_limit=time_limit, python=python)
    settings = Settings.of(**work)
    with screen.progress("reading the model") as progress:
        record = deploy(
            model,
            output,
            data,
            settings,
            request=request,
            original=original,
            int8=int8,
            calibrate=calibrate,
            on_step=progress.step,
        )
    screen.kept = True
    if as_json:
        click.echo(json.dumps(record, indent=2))
    else:
        screen.print(deployed_table(record), *remarks(record))
    if problem := problems(record):
        fail(problem)
    screen.say(f"deployed: {output}")
