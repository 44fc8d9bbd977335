"""The command that writes other frameworks' networks as ONNX."""

from __future__ import annotations

from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.group import OUTPUT, main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen
from onnxprune.files import check_place


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
