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
    epilog=example(
        "onnxprune convert model.keras -o model.onnx",
        "onnxprune convert resnet18 --from torchvision --weights DEFAULT -o model.onnx",
    )
)
@click.argument("source")
@OUTPUT
@options.CONVERSION
@options.SEED
@options.VOLUME
@click.pass_obj
def convert(
    screen: Screen,
    /,
    source: str,
    output: str,
    fixed_batch: bool,
    shapes: dict[str, Any],
    **choices: Any,
) -> None:
    """Write a network of another framework as ONNX.

    SOURCE is a file or folder of PyTorch, Ultralytics, Keras, TensorFlow or Paddle; a function that
    builds a network of PyTorch, Keras or JAX, as package.module:function or
    path/to/file.py:function; or a model of torchvision, timm or Hugging Face by its name.
    """
    check_place(output, source, choices["weights"])
    from onnxprune.converters import convert

    with screen.progress(f"converting {source}") as progress:
        path = convert(
            source,
            output,
            dynamic_batch=not fixed_batch,
            on_step=progress.step,
            **shapes,
            **choices,
        )
    screen.wrote(f"model: {path}")
