"""Writes docs/python.md: every public name, from its signature and its docstring.

`python tasks.py docs` runs this. The parsers of documentation tools know the sections of Google and
of numpy, not `Shapes:` and `Units:`; the standard library reads what is needed here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxprune
from onnxprune import errors
from onnxprune.checks import Checked, rules_of

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "python.md"
WIDTH = 96

INTRO = """\
# Python

<!-- Written by `python tasks.py docs` from the docstrings; a test holds it to them. -->

Everything that `import onnxprune` gives. A `ModelSource` is a path, an `onnx.ModelProto`, a graph
of onnx-graphsurgeon or a model of onnx_ir. A `SampleSource` is
[whatever `--data` takes](reference.md#samples), arrays `(x, y)`, or anything that yields batches of
them. Errors are subclasses of `OnnxPruneError`, and their text is one line.
"""

SECTION = re.compile(r"(?:^|(?<=\. ))(Shapes|Units|Raises|Sources?):\s*", re.MULTILINE)
ROOMS = (
    *(
        "run",
        "comparison",
        "retraining",
        "modules",
        "search",
        "report",
        "relevance",
        "surgery",
        "channels",
    ),
    "evaluation",
    *("graph", "data", "engine", "errors"),
)
"""In the order in which a user meets them."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def page() -> str:
    """Return the document."""
    parts = [INTRO]
    names = {name: getattr(onnxprune, name) for name in onnxprune.__all__}
    for room in ROOMS:
        own = [n for n, value in names.items() if value.__module__.split(".")[1] == room]
        if own:
            title = (importlib.import_module(f"onnxprune.{room}").__doc__ or "").splitlines()[0]
            parts.append(f"## {title.rstrip('.:')}\n")
            for name in sorted(own, key=lambda n: (isinstance(names[n], type), n)):
                parts += _entry(name, names[name])
    tree = (errors.__doc__ or "").split("\n\n")[1]
    return "\n".join([*parts, f"```text\n{textwrap.dedent(tree)}\n```\n"])


def _entry(name: str, value: Any) -> Iterator[str]:
    node = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    if isinstance(node, ast.ClassDef):
        signature = _class(node)
    else:
        assert isinstance(node, Function)
        signature = _function(name, node)
    yield f"### {name}\n"
    yield f"```python\n{signature}\n```\n"
    yield _text(value.__doc__ or "")
    if isinstance(value, type) and issubclass(value, Checked):
        lines = (
            textwrap.fill(f"* {line}", WIDTH + 2, subsequent_indent="  ") for line in _rules(value)
        )
        yield "\n".join(lines) + "\n"
    if isinstance(node, ast.ClassDef):
        yield from _members(name, node)


def _rules(kind: type[Checked]) -> Iterator[str]:
    """What each field must be, and what it is for."""
    for name, rule in rules_of(kind).items():
        expected = f"{rule.expected}, or None" if rule.optional else rule.expected
        yield " ".join(filter(None, (f"`{name}`: {expected}.", rule.help)))


def _members(owner: str, node: ast.ClassDef) -> Iterator[str]:
    """Fields with a docstring of their own, properties and methods."""
    for one, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(one, ast.AnnAssign) and (said := _string(following)):
            yield f"**`{ast.unparse(one.target)}`**: {_text(said)}"
        if not isinstance(one, Function) or not re.match(r"[a-z]|__call__", one.name):
            continue
        kinds = {ast.unparse(decorator).split(".")[-1] for decorator in one.decorator_list}
        if kinds & {"property", "cached_property"}:
            returned = f": {ast.unparse(one.returns)}" if one.returns else ""
            yield f"**`.{one.name}{returned}`**\n"
        else:
            prefix = owner if "classmethod" in kinds else ""
            call = prefix if one.name == "__call__" else f"{prefix}.{one.name}"
            yield f"```python\n{_function(call, one, method=True)}\n```\n"
        yield _text(ast.get_docstring(one) or "")


def _string(node: ast.stmt | None) -> str:
    value = node.value if isinstance(node, ast.Expr) else None
    return str(value.value) if isinstance(value, ast.Constant) else ""


def _class(node: ast.ClassDef) -> str:
    made = [one for one in node.body if isinstance(one, Function) and one.name == "__init__"]
    if made:
        return _function(node.name, made[0], method=True).removesuffix(" -> None")
    fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
    return _call(node.name, [_field(one) for one in fields if _is_argument(one)])


def _is_argument(field: ast.AnnAssign) -> bool:
    return "init=False" not in ast.unparse(field.value or ast.Constant(None))


def _field(field: ast.AnnAssign) -> str:
    text = f"{ast.unparse(field.target)}: {ast.unparse(field.annotation)}"
    if field.value is None:
        return text
    if isinstance(field.value, ast.Call) and ast.unparse(field.value.func) == "asked":
        return f"{text} = {ast.unparse(field.value.args[1])}"
    value = ast.unparse(field.value)
    return f"{text} = ..." if value.startswith("field(") else f"{text} = {value}"


def _function(name: str, node: Function, *, method: bool = False) -> str:
    signature = node.args
    plain = [*signature.posonlyargs, *signature.args]
    values: list[ast.expr | None] = [None] * (len(plain) - len(signature.defaults))
    values += signature.defaults
    shown = [_argument(one, value) for one, value in zip(plain, values, strict=True)]
    shown = shown[1:] if method else shown
    if signature.posonlyargs:
        shown.insert(len(signature.posonlyargs) - method, "/")
    if signature.vararg:
        shown.append("*" + _argument(signature.vararg, None))
    elif signature.kwonlyargs:
        shown.append("*")
    for one, value in zip(signature.kwonlyargs, signature.kw_defaults, strict=True):
        shown.append(_argument(one, value))
    if signature.kwarg:
        shown.append("**" + _argument(signature.kwarg, None))
    returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return _call(name, shown, returned)


def _argument(one: ast.arg, value: ast.expr | None) -> str:
    kind = f": {ast.unparse(one.annotation)}" if one.annotation else ""
    given = "" if value is None else f" = {ast.unparse(value)}"
    return f"{one.arg}{kind}{given}"


def _call(name: str, arguments: list[str], returned: str = "") -> str:
    line = f"{name}({', '.join(arguments)}){returned}"
    if len(line) <= WIDTH:
        return line
    return "\n".join([f"{name}(", *(f"    {one}," for one in arguments), f"){returned}"])


def _text(doc: str) -> str:
    """A docstring as Markdown: its sections become a list."""
    body, *sections = SECTION.split(inspect.cleandoc(doc))
    listed = [
        f"* *{title}*: " + " ".join(line.strip() for line in text.split("\n") if line.strip())
        for title, text in zip(sections[::2], sections[1::2], strict=True)
    ]
    wrapped = [textwrap.fill(one, 100, subsequent_indent="  ") for one in listed]
    return "\n\n".join(filter(None, [body.strip(), "\n".join(wrapped)])) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
