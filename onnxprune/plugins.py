"""The user's own functions, named as `package.module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxprune.errors import DataError, OnnxPruneError, UnknownName


@contextmanager
def beside(text: str) -> Iterator[None]:
    """Let a function's file import what lies beside it, and a module what lies in the folder.

    As `python file.py` and `python -m package.module` do.
    """
    path = Path(text.rpartition(":")[0]).resolve()
    folder = str(path.parent if path.suffix == ".py" else Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]


def find_function(text: str, expected: str) -> Callable[..., Any]:
    """Import a function by its name; modules are also looked for in the working directory.

    Raises: UnknownName when there is no such module or function, or importing it fails; `expected`
    ends the sentence.
    """
    place, _, name = text.rpartition(":")
    if place.endswith(".py") and not Path(place).is_file():
        raise UnknownName(f"{text}: no such file; expected {expected}")
    try:
        with beside(text):
            module = _load(place)
    except Exception as error:  # the code is the user's: it may raise anything
        reason = first_line(error)
        raise UnknownName(f"{text}: cannot be imported ({reason}); expected {expected}") from error
    if name not in vars(module):
        nearest = difflib.get_close_matches(name, vars(module), n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UnknownName(f"{text}: '{place}' has no '{name}'; expected {expected}{hint}")
    found = vars(module)[name]
    if not callable(found):
        raise UnknownName(f"{text}: is {type(found).__name__}; expected {expected}")
    return found  # type: ignore[no-any-return]


def _load(place: str) -> ModuleType:
    """Import a module, or run a file as one.

    The module of a file stays in `sys.modules`, where its classes are looked up. It has a name of
    its own there: a file called torch.py must not become `torch`.
    """
    path = Path(place).resolve()
    if path.suffix != ".py":
        importlib.invalidate_caches()
        return importlib.import_module(place)
    digest = hashlib.sha256(bytes(path)).hexdigest()[:16]
    module = ModuleType(f"_onnxprune_{digest}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(path.read_bytes(), path, "exec"), vars(module))
    return module


def name_of(function: Callable[..., Any]) -> str:
    """Return the name by which `find_function` finds a function.

    Raises: UnknownName when there is none: a lambda, or a function within another.
    """
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    if module is None or not name.isidentifier():
        raise UnknownName(f"{name}: has no name to import it by; expected a function of a module")
    return f"{module}:{name}"


@contextmanager
def users_code(what: str, expected: str) -> Iterator[None]:
    """Turn whatever a user's function raises into one line: `what` failed, `expected` was.

    Raises: DataError; an error of ours passes as it is.
    """
    try:
        yield
    except OnnxPruneError:
        raise
    except Exception as error:  # the code is the user's: it may raise anything
        raise DataError(f"{what}: {first_line(error)}; expected {expected}") from error


def first_line(error: BaseException) -> str:
    """Name an error of somebody else's code in one line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
