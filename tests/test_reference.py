"""docs/python.md says what the docstrings say, docs/commands.md what the command line says."""

import re

import pytest

import onnxprune
from onnxprune.cli.commands import main
from tests.support import commands
from tests.support.reference import PAGE, page


@pytest.fixture(scope="module")
def written() -> str:
    return page()


def test_the_page_is_current(written: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == written, "run `python tasks.py docs`"


def test_every_public_name_is_on_the_page_once(written: str) -> None:
    assert sorted(re.findall(r"^### (\w+)$", written, re.MULTILINE)) == sorted(onnxprune.__all__)


def test_errors_shapes_and_fields_are_shown(written: str) -> None:
    apply = written.partition("### apply\n")[2].partition("###")[0]
    assert "apply(\n    model: ModelSource,\n    plan: Plan | str | Path,\n" in apply
    assert "* *Raises*: InvalidPlan when" in apply
    assert "* *Shapes*: x `[n, ...]`" in written
    assert "    max_layer_rate: float = 1.0," in written
    assert "InvalidModel" in written


def test_the_page_of_commands_is_current() -> None:
    assert commands.PAGE.read_text(encoding="utf-8") == commands.page(), (
        "run `python tasks.py docs`"
    )


def test_every_option_of_every_command_is_on_the_page() -> None:
    sections = dict(
        re.findall(r"^## ([\w-]+)\n(.*?)(?=^## |\Z)", commands.page(), re.MULTILINE | re.DOTALL)
    )
    assert sections.keys() == main.commands.keys()
    for name, command in main.commands.items():
        for one in command.params:
            assert one.param_type_name == "argument" or one.opts[-1] in sections[name]
