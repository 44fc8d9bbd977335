"""The user's own functions, named as `package.module:function` or `path/to/file.py:function`.

A file is run because the user names it; what a record names is not (`only_given`). A module is
imported only where Python finds it without the working folder: what merely lies there, a
`photos.py` beside a folder that is called `photos:2024`, is not run by accident.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import logging
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

from onnxprune.errors import NOTICE, DataError, OnnxPruneError, RunDirectoryError, UnknownName

WHATEVER = (Exception, SystemExit)
"""What a user's code may raise; `sys.exit(0)` must not end a run as if it had succeeded."""

logger = logging.getLogger(__name__)


_record: ContextVar[tuple[str, Collection[str]] | None] = ContextVar("record", default=None)


@contextmanager
def only_given(record: str, given: Collection[str]) -> Iterator[None]:
    """Run no code in the block but what the user has `given` by name: a `record` names the rest."""
    token = _record.set((record, given))
    try:
        yield
    finally:
        _record.reset(token)


def check_given(text: str) -> None:
    """Refuse code that a record names, and not the user.

    Raises: RunDirectoryError.
    """
    held = _record.get()
    if held is not None and text not in held[1]:
        raise RunDirectoryError(
            f"{held[0]}: the run used code, {text}; look at it, and give --trust to run it"
        )


@contextmanager
def beside(text: str) -> Iterator[None]:
    """Let a function's file import what lies beside it, as `python file.py` does."""
    path = Path(text.rpartition(":")[0]).resolve()
    if path.suffix != ".py":
        yield
        return
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]


def find_function(text: str, expected: str) -> Callable[..., Any]:
    """Return a function by its name, from a file or a module; a module's import is announced.

    Raises: UnknownName when there is no such file, module or function, or importing it fails;
    `expected` ends the sentence. RunDirectoryError where a record names it, and not the user.
    """
    check_given(text)
    place, _, name = text.rpartition(":")
    if not name.isidentifier():
        raise UnknownName(f"{text}: '{name}' is no name of a function; expected {expected}")
    try:
        with beside(text):
            module = _run(Path(place)) if place.endswith(".py") else _import(place)
    except UnknownName as error:
        raise UnknownName(f"{text}: {error}; expected {expected}") from error
    except WHATEVER as error:
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


def _run(path: Path) -> ModuleType:
    """Run a file as a module.

    It stays in `sys.modules`, where its classes are looked up. It has a name of its own there: a
    file called torch.py must not become `torch`.
    """
    if not path.is_file():
        raise UnknownName("no such file")
    path = path.resolve()
    digest = hashlib.sha256(bytes(path)).hexdigest()[:16]
    module = ModuleType(f"_onnxprune_{digest}_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(path.read_bytes(), path, "exec"), vars(module))
    return module


def _import(place: str) -> ModuleType:
    """Import a module that Python finds without the working folder, and say so before."""
    if not all(part.isidentifier() for part in place.split(".")):
        raise UnknownName(f"'{place}' is no name of a module, and no .py file")
    if place in sys.modules:
        return sys.modules[place]
    importlib.invalidate_caches()
    with _without_working_folder():
        package = importlib.util.find_spec(place.partition(".")[0])
        if package is None:
            here = Path(*place.split(".")).with_suffix(".py")
            lies = f", and {here} in the working folder is run as {here}:..." * here.is_file()
            raise UnknownName(f"cannot be imported: no module '{place}' is installed{lies}")
        logger.log(NOTICE, "importing %s (%s)", place, package.origin)
        return importlib.import_module(place)


@contextmanager
def _without_working_folder() -> Iterator[None]:
    """Leave out of Python's path what stands for the working folder: `python -m` puts it there."""
    held, here = list(sys.path), Path.cwd()
    script = getattr(sys.modules["__main__"], "__file__", None)
    given = script is not None and Path(script).resolve().parent == here  # `python script.py`
    first = held[:1] if given or not held or Path(held[0]).resolve() != here else []
    sys.path[:] = [entry for entry in (*first, *held[1:]) if entry]
    try:
        yield
    finally:
        added = [entry for entry in sys.path if entry not in held]
        sys.path[:] = [*added, *held]


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
    except WHATEVER as error:
        raise DataError(f"{what}: {first_line(error)}; expected {expected}") from error


def first_line(error: BaseException) -> str:
    """Name an error of somebody else's code in one line."""
    return f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
