"""The help groups options by what they are for, and leaves none out."""

import re

import click
import pytest
from click.testing import CliRunner

from onnxprune.cli.commands import main
from onnxprune.cli.help import SECTIONS, Command


def sections(command: str) -> dict[str, list[str]]:
    """The long names of the options that the help of a command lists, by section."""
    found: dict[str, list[str]] = {}
    title = ""
    for line in CliRunner().invoke(main, [command, "--help"]).stdout.splitlines():
        if re.fullmatch(r"\w[\w ]*:", line):
            title = line.removesuffix(":")
        elif match := re.match(r"  (?:-\w, )?(--[\w-]+)", line):
            found.setdefault(title, []).append(match[1])
    return found


@pytest.mark.parametrize("command", main.commands)
def test_each_option_is_in_its_section(command: str) -> None:
    found = sections(command)
    known = {name: title for title, names in SECTIONS.items() for name in names.split()}
    assert all(known[name] == title for title, names in found.items() for name in names)
    listed = [name for names in found.values() for name in names]
    options = {p.opts[-1] for p in main.commands[command].params if isinstance(p, click.Option)}
    assert sorted(listed) == sorted(options | {"--help"})


def test_prune_has_its_sections_in_order() -> None:
    asked = ["Samples", "Target", "Accuracy", "Limits", "Method"]
    expected = [*asked, "Network", "Computation", "Run directory", "Output"]
    assert list(sections("prune")) == expected
    assert sections("prune")["Run directory"] == ["--run-dir", "--resume"]


def test_an_option_of_no_section_comes_last() -> None:
    command = Command("x", params=[click.Option(["--odd"], help="Odd."), click.Option(["--rate"])])
    text = command.get_help(click.Context(command))
    assert text.index("Target:") < text.index("--rate") < text.index("Options:")
    assert text.index("Options:") < text.index("--odd")


def test_help_in_a_pipe_is_plain() -> None:
    text = CliRunner().invoke(main, ["prune", "--help"]).stdout
    assert text.isascii()
    assert "\x1b" not in text
