"""MODEL of a command: a path of an ONNX model, or a file of another framework that becomes one."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.program import Screen
from onnxprune.errors import ConversionError
from onnxprune.files import check_place, temporary

TRUSTED = "onnxprune.trusted"
"""Where the context of a command remembers --trust."""


def _remember(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[TRUSTED] = value


def model(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its MODEL, which is converted first where it is no ONNX."""

    @functools.wraps(command)
    def run(*args: Any, **values: Any) -> Any:
        named = (p for p in click.get_current_context().command.params if p.metavar == "FILE")
        if values.get("output") and "output" in {one.name for one in named}:
            check_place(values["output"], values["model"])
        return command(*args, **values | {"model": as_onnx(values["model"])})

    trust = click.option(
        "--trust",
        is_flag=True,
        expose_value=False,
        callback=_remember,
        help=options.TRUST_HELP,
    )
    return click.argument("model", type=options.FILE)(trust(run))


def check_output(path: str, model: str, *read: object) -> None:
    """Refuse an output that could not be written, or is read: MODEL, its weights, other files.

    Raises: OutputError.
    """
    check_place(path, model, *read)
    if Path(path).exists() and Path(path).suffix != ".onnx":
        from onnxprune.graph import files_of

        check_place(path, *files_of(model))


def as_onnx(source: str) -> str:
    """Return the path of an ONNX model: the source itself, or what it is converted to.

    The file is removed when the command ends.
    Raises: ConversionError, MissingPackage as `onnxprune.converters.convert`.
    """
    from onnxprune.converters import convert, is_foreign

    if not is_foreign(source):
        return source
    context = click.get_current_context()
    screen = context.ensure_object(Screen)
    folder = context.with_resource(temporary())
    path = folder / f"{Path(source).stem}.onnx"
    with screen.progress(f"converting {source}") as progress:
        try:
            convert(source, path, trust=context.meta.get(TRUSTED, False), on_step=progress.step)
        except ConversionError as error:
            raise ConversionError(f"{error}; 'onnxprune convert' takes more options") from error
    kept = shlex.join(["onnxprune", "convert", source, "-o", path.name])
    screen.say(f"{source}: converted to ONNX for this command; {kept} keeps it")
    return str(path)
