"""docs/troubleshooting.md quotes lines that the program prints, of every kind of error."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from onnxprune import errors

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
LINES = re.findall(r"^\| `(.+?)` \|", PAGE, re.MULTILINE)
KINDS = sorted(
    name
    for name, value in vars(errors).items()
    if isinstance(value, type) and value.__module__ == errors.__name__
)
HOLE = "…"
"""Stands for what differs from case to case."""


def said(node: ast.expr) -> str:
    """A text as it stands in the code, with a hole for each expression in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(said, node.values))
    if isinstance(node, ast.BinOp):
        return said(node.left) + said(node.right)
    return HOLE


@cache
def texts() -> str:
    """Every text of the program, one a line."""
    found = []
    for folder in ("onnxprune", "converters"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            found += [said(one) for one in nodes if isinstance(one, ast.JoinedStr | ast.Constant)]
    return "\n".join(text.replace("\n", " ") for text in found)


def missing(line: str) -> list[str]:
    """The pieces of a quoted line that no text of the program has."""
    pieces = [piece.strip(" ':;,()") for piece in line.split(HOLE)]
    return [piece for piece in pieces if len(piece) > 2 and piece not in texts()]


@pytest.mark.parametrize("line", LINES)
def test_the_program_says_what_is_quoted(line: str) -> None:
    assert missing(line) == []


def test_a_line_that_nothing_prints_is_found() -> None:
    assert missing("…: no such file; give the path of an ONNX model") == []
    assert missing("…: no such folder; give the path of an ONNX model") != []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "OnnxPruneError"])
def test_every_kind_of_error_has_a_section(kind: str) -> None:
    assert re.search(rf"^## .*\b{kind}\b", PAGE, re.MULTILINE)


def test_there_are_lines_of_every_section() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert [one.splitlines()[0] for one in sections if "| `" not in one] == []
    assert len(LINES) > 40
