"""The program that every command is part of, and the arguments that many take."""

from __future__ import annotations

import click

from onnxprune.cli import options, sources
from onnxprune.cli.program import Program

MODEL = sources.model
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
