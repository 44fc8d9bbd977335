"""Writes docs/commands.md: every command and option, from the help of the command line.

`python tasks.py docs` runs this.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from onnxprune.cli.commands import main
from onnxprune.cli.help import SECTIONS

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "commands.md"

INTRO = """\
# Commands

<!-- Written by `python tasks.py docs` from the command line; a test holds it to that. -->

What `onnxprune COMMAND --help` says. Exit codes: 0; 1, an error, in one line on stderr (`-vv` shows
where it came from); 2, a wrong call; 130, interrupted. A share may be written in percent.
"""


def page() -> str:
    """Return the document."""
    assert isinstance(main, click.Group)
    context = main.make_context("onnxprune", [], resilient_parsing=True)
    names = main.list_commands(context)
    return "\n".join([INTRO, *(_command(main.commands[name], context) for name in names)])


def _command(command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=command.name, parent=parent)
    text = inspect.cleandoc(command.help or "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    shown = (command.epilog or "").partition("Example:\n")[2]
    example = f"```sh\n{inspect.cleandoc(shown)}\n```\n" if shown else ""
    tables = list(_tables(command, context))
    return (
        "\n".join(
            [f"## {command.name}\n", f"```text\n{usage}\n```\n", f"{text}\n", *tables, example]
        ).rstrip("\n")
        + "\n"
    )


def _tables(command: click.Command, context: click.Context) -> Iterator[str]:
    """The options of a command, in the sections of its help."""
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    records = {one.opts[-1]: one.get_help_record(context) for one in options}
    for title, names in [*SECTIONS.items(), ("Options", " ".join(records))]:
        if rows := [row for name in names.split() if (row := records.pop(name, None))]:
            yield f"| {title} | |\n|---|---|\n{''.join(map(_row, rows))}"


def _row(record: tuple[str, str]) -> str:
    flags, text = (re.sub(r"\s+", " ", part).replace("|", "\\|") for part in record)
    return f"| `{flags}` | {text} |\n".replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
