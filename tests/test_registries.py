"""Every registry alike: found by name, listed in the help, written up and tested."""

import ast
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from onnxprune.cli.commands import main
from onnxprune.compensate import METHODS
from onnxprune.converters import CONVERTERS, find_converter
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation import METRICS, find_metric
from onnxprune.relevance import CRITERIA, RULES, find_criterion
from onnxprune.relevance.rules import find_composite
from onnxprune.search import CONTROLLERS, Settings, find_controller

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Registry:
    """What a user chooses from by name; each entry is to be named in `docs` and in `tests`."""

    known: Collection[str]
    find: Callable[[str], Any]
    option: str
    docs: str
    tests: str


REGISTRIES = {
    "controllers": Registry(CONTROLLERS, find_controller, "--control", "method.md", ""),
    "criteria": Registry(CRITERIA, find_criterion, "--criterion", "method.md", "relevance"),
    "LRP rules": Registry(RULES, find_composite, "--criterion", "method.md", "relevance"),
    "compensations": Registry(
        METHODS, lambda name: Settings(compensate=name), "--compensate", "method.md", "compensate"
    ),
    "metrics": Registry(METRICS, find_metric, "--metric", "reference.md", "evaluation"),
    "converters": Registry(
        CONVERTERS,
        find_converter,
        "--from",
        "how-to/convert.md",
        "converters",
    ),
}

each_registry = pytest.mark.parametrize("kind", REGISTRIES)


def named(name: str, text: str) -> bool:
    """Say whether a text names an entry, as a word of its own."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def unnamed(known: Collection[str], text: str) -> list[str]:
    return [name for name in known if not named(name, text)]


def strings(folder: Path) -> str:
    """All strings that the tests of a folder are written with, one a line."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return "\n".join(str(node.value) for node in nodes if isinstance(node, ast.Constant))


@each_registry
def test_an_unknown_name_is_answered_with_the_list_and_the_nearest(kind: str) -> None:
    registry = REGISTRIES[kind]
    nearest = next(iter(registry.known))
    with pytest.raises(OnnxPruneError) as caught:
        registry.find(f"{nearest}x")
    listed = str(caught.value).partition("expected one of ")[2]
    assert unnamed(registry.known, listed) == []
    assert listed.endswith(f"; did you mean {nearest!r}?")


@each_registry
def test_every_entry_is_in_the_help(kind: str) -> None:
    registry = REGISTRIES[kind]
    assert isinstance(main, click.Group)
    texts = [
        " ".join(option.get_help_record(click.Context(command)) or ())
        for command in main.commands.values()
        for option in command.params
        if isinstance(option, click.Option) and registry.option in option.opts
    ]
    assert texts
    for text in texts:
        assert unnamed(registry.known, text) == []


@each_registry
def test_every_entry_is_in_the_documents(kind: str) -> None:
    registry = REGISTRIES[kind]
    text = (ROOT / "docs" / registry.docs).read_text(encoding="utf-8")
    code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL))
    assert unnamed(registry.known, code) == []


@each_registry
def test_every_entry_is_tested(kind: str) -> None:
    registry = REGISTRIES[kind]
    assert unnamed(registry.known, strings(ROOT / "tests" / registry.tests)) == []


def test_an_entry_nobody_names_is_found() -> None:
    assert unnamed(["one", "on"], "lrp:one") == ["on"]
