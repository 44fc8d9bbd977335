"""What a public docstring has to say: the shapes of its arrays, and the errors that are raised.

Public is what a room's `__all__` hands out: functions, classes, and the public methods of these.

* An array in the signature, or in a field, needs `Shapes:`. That of a property or a field may stand
  in the docstring of its class.
* An error of ours needs `Raises:` with its name or that of a base class. Errors count that are
  raised in the body, or in the private functions of the same module that it calls.

pydoclint and ruff (DOC501) hold the sections of Google and numpy to a body; both know no `Shapes:`.
"""

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from onnxprune.errors import OnnxPruneError
from tests.test_architecture import ROOMS

ARRAY = re.compile(r"\b(\w*Array|ndarray|Tensor|Tensors)\b")
"""Names of array types in an annotation."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Public:
    """A public function, method or class: its place, its source and the docstrings that count."""

    name: str
    module: ModuleType
    node: ast.AST
    docs: str
    shapes_docs: str

    def arrays(self) -> list[str]:
        """The annotations that hold arrays."""
        if isinstance(self.node, ast.ClassDef):
            fields = [n.annotation for n in self.node.body if isinstance(n, ast.AnnAssign)]
            found = [*fields, *_annotations(self._method("__init__"))]
        else:
            found = _annotations(self.node)
        return [text for one in found if ARRAY.search(text := ast.unparse(one))]

    def errors(self) -> set[type[OnnxPruneError]]:
        """Our errors that the body raises, or a private function that it calls."""
        if isinstance(self.node, ast.ClassDef):
            makers = (self._method("__init__"), self._method("__post_init__"))
            return {error for one in makers if one for error in _raised(one, self.module)}
        return set(_raised(self.node, self.module))

    def _method(self, name: str) -> ast.AST | None:
        assert isinstance(self.node, ast.ClassDef)
        return next((n for n in self.node.body if getattr(n, "name", "") == name), None)

    def problems(self) -> list[str]:
        """What the docstring lacks."""
        found = []
        if self.arrays() and "Shapes:" not in self.shapes_docs:
            found.append(f"{self.name}: no `Shapes:` for {', '.join(self.arrays())}")
        said = self.docs.partition("Raises:")[2]
        for error in sorted(self.errors(), key=lambda error: error.__name__):
            names = [base.__name__ for base in error.__mro__ if issubclass(base, OnnxPruneError)]
            if not re.search(rf"\b({'|'.join(names)})\b", said):
                found.append(f"{self.name}: no `Raises:` for {error.__name__}")
        return found


def _annotations(node: ast.AST | None) -> list[ast.expr]:
    if not isinstance(node, Function):
        return []
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one]
    found = [one.annotation for one in every if one.annotation]
    return [*found, *([node.returns] if node.returns else [])]


def _raised(
    node: ast.AST, module: ModuleType, seen: frozenset[str] = frozenset()
) -> Iterator[type[OnnxPruneError]]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call):
            error = _error_of(inner.exc, module)
            if error:
                yield error
        elif isinstance(inner, ast.Call):
            called = inner.func
            name = called.id if isinstance(called, ast.Name) else ""
            if isinstance(called, ast.Attribute) and ast.unparse(called.value) in ("self", "cls"):
                name = called.attr
            if re.match(r"_[a-z]", name) and name not in seen:
                for helper in _functions(module).get(name, ()):
                    yield from _raised(helper, module, seen | {name})


def _error_of(call: ast.Call, module: ModuleType) -> type[OnnxPruneError] | None:
    """The class of `raise Error(...)`, also where a function makes it."""
    found: Any = vars(module).get(ast.unparse(call.func))
    if isinstance(found, FunctionType):
        made = found.__annotations__.get("return")
        found = vars(module).get(made) if isinstance(made, str) else made
    return found if isinstance(found, type) and issubclass(found, OnnxPruneError) else None


@functools.cache
def _functions(module: ModuleType) -> dict[str, list[ast.AST]]:
    found: dict[str, list[ast.AST]] = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, Function):
            found.setdefault(node.name, []).append(node)
    return found


def public_names() -> Iterator[Public]:
    """Everything that the rooms and the converters hand out."""
    rooms = [f"onnxprune.{room}" for room in ROOMS if not room.startswith("__")]
    seen: set[int] = set()
    for place in (*rooms, "onnxprune.converters"):
        room = importlib.import_module(place)
        for name in getattr(room, "__all__", _own_names(room)):
            value = getattr(room, name)
            if isinstance(value, type | FunctionType) and id(value) not in seen:
                seen.add(id(value))
                module = inspect.getmodule(value)
                if module is not None and module.__name__.startswith("onnxprune"):
                    yield from _of(value, module)


def _own_names(module: ModuleType) -> list[str]:
    names = [name for name in vars(module) if not name.startswith("_")]
    return [n for n in names if getattr(getattr(module, n), "__module__", "") == module.__name__]


def _of(value: Any, module: ModuleType) -> Iterator[Public]:
    name = f"{module.__name__.removeprefix('onnxprune.')}.{value.__qualname__}"
    node = ast.parse(inspect.cleandoc("\n" + inspect.getsource(value))).body[0]
    doc = value.__doc__ or ""
    if not isinstance(node, ast.ClassDef):
        yield Public(name, module, node, doc, doc)
        return
    made = getattr(vars(value).get("__init__"), "__doc__", None) or ""
    of_fields = [n.value.value for n in node.body if _is_text(n)]  # type: ignore[attr-defined]
    every = "\n".join([doc, made, *of_fields])
    yield Public(name, module, node, every, every)
    for method in node.body:
        if isinstance(method, Function) and re.match(r"[a-z]|__call__", method.name):
            own = ast.get_docstring(method) or ""
            wraps = any("property" in ast.unparse(one) for one in method.decorator_list)
            yield Public(f"{name}.{method.name}", module, method, own, own + doc * wraps)


def _is_text(node: ast.stmt) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


@functools.cache
def documented() -> dict[str, Public]:
    return {public.name: public for public in public_names()}


def test_public_docstrings_say_shapes_and_errors() -> None:
    assert [problem for one in documented().values() for problem in one.problems()] == []


def test_the_public_names_are_found() -> None:
    names = documented().keys()
    assert {"run.prune", "channels.groups.ChannelGroups.members", "converters.convert"} <= names
    assert len(names) > 100


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x: FloatArray) -> int:\n    return 1", "f: no `Shapes:` for FloatArray"),
        ("def f() -> 'npt.NDArray[Any]':\n    return 1", "f: no `Shapes:`"),
        ("class F:\n    x: dict[str, FloatArray]", "f: no `Shapes:`"),
        ("def f() -> None:\n    raise DataError('x')", "f: no `Raises:` for DataError"),
        ("def f() -> None:\n    _g()\n\ndef _g() -> None:\n    raise DataError('x')", "DataError"),
        ("class F:\n    def __init__(self) -> None:\n        raise DataError('x')", "DataError"),
        ("def f() -> None:\n    '''Raises: UnknownName.'''\n    raise DataError('x')", "DataError"),
    ],
)
def test_what_is_missing_is_found(source: str, expected: str, tmp_path: Path) -> None:
    assert expected in "\n".join(_problems_of(source, tmp_path))


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: FloatArray) -> int:\n    '''Shapes: x `[n]`.'''\n    return 1",
        "def f() -> None:\n    '''Raises: DataError when.'''\n    raise DataError('x')",
        "def f() -> None:\n    '''Raises: OnnxPruneError.'''\n    raise DataError('x')",
        "def f() -> None:\n    raise ValueError('x')",
        "def f(x: int) -> None:\n    ...",
    ],
)
def test_what_is_said_is_enough(source: str, tmp_path: Path) -> None:
    assert _problems_of(source, tmp_path) == []


def _problems_of(source: str, folder: Path) -> list[str]:
    path = folder / "one.py"
    path.write_text(f"from onnxprune.errors import *\n\n{source}\n", encoding="utf-8")
    module = ModuleType("one")
    module.__file__ = str(path)
    names: dict[str, Any] = vars(module)
    exec("from onnxprune.errors import *", names)
    node = ast.parse(source).body[0]
    assert isinstance(node, Function | ast.ClassDef)
    doc = ast.get_docstring(node) or ""
    return Public("f", module, node, doc, doc).problems()
