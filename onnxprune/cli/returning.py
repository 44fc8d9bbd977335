"""The command that takes a pruned model back to the torch module that it was exported from."""

from __future__ import annotations

from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.group import MODEL, OUTPUT, main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen
from onnxprune.cli.sources import check_output


@main.command(
    "export-weights",
    epilog=example(
        "onnxprune export-weights small.onnx --plan plan.json --module model.py:build -o small.pt"
    ),
)
@MODEL
@click.option(
    "--plan",
    type=options.FILE,
    required=True,
    metavar="FILE",
    help="The plan that was saved with MODEL.",
)
@click.option(
    "--module",
    required=True,
    metavar="FUNCTION",
    help="package.module:function or path/to/file.py:function that returns the unpruned module.",
)
@click.option(
    "--weights",
    type=options.FILE,
    metavar="FILE",
    help="A file with the state dict of the unpruned module, unless the function loads it.",
)
@OUTPUT
@options.INPUT_SHAPES
@options.VOLUME
@click.pass_obj
def export_weights(
    screen: Screen,
    /,
    model: str,
    plan: str,
    module: str,
    weights: str | None,
    output: str,
    **asked: Any,
) -> None:
    """Cut a torch module as MODEL was pruned, to train it further.

    MODEL is the pruned model. Its weights, corrected ones included, go into the module's layers;
    the outputs of both are compared before the file is written. Load it by
    onnxprune.load_pruned_module(build(), "small.pt").
    """
    check_output(output, model, plan, module, weights)
    from onnxprune.modules import build_module, export_weights

    with screen.progress(f"cutting {module}"):
        built = build_module(module, weights)
        export_weights(model, plan, built, output, **asked)
    screen.wrote(f"pruned module: {output}")
