"""The second file of a large model: how it is named, which files a model reads, what may go."""

from __future__ import annotations

import contextlib
import mmap
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnxprune.errors import OutputError
from onnxprune.files import write_whole
from onnxprune.locks import Held, locked

DIGITS = 16
"""Hexadecimal digits of the SHA-256 that name a file of weights."""


def second_file(path: Path, digest: str) -> Path:
    """Return where the weights of a model lie, named by the hash of what is in it."""
    return path.with_name(f"{path.name}.{digest[:DIGITS]}.data")


def check_own_place(path: Path) -> None:
    """Refuse a link as the place of a model that has a second file: it is looked for beside it.

    Raises: OutputError.
    """
    if path.is_symlink():
        raise OutputError(
            f"{path}: is a link, and a model of this size has a second file beside it; name a "
            f"place that is no link"
        )


@contextlib.contextmanager
def held(path: Path, content: Callable[[], Iterable[bytes]]) -> Iterator[None]:
    """Write a second file, which no other process removes until the block ends.

    Raises: OutputError when it cannot be written.
    """
    write_whole(path, content())
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(Held, OSError):
            stack.enter_context(locked(path))
        if not path.exists():  # another process removed it between the two
            write_whole(path, content())
        yield


def sweep_weights(path: Path) -> None:
    """Remove the second files of a model's path that no model of the folder names.

    One that another process writes stays.
    """
    own = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{DIGITS}}}\.data")
    with contextlib.suppress(OSError):
        found = [other for other in path.parent.iterdir() if own.fullmatch(other.name)]
        models = list(path.parent.glob("*.onnx")) if found else []
        for other in found:
            with contextlib.suppress(OSError, Held), locked(other):
                if not any(_says(model, other.name) for model in {*models, path}):
                    other.unlink(missing_ok=True)


def _says(model: Path, name: str) -> bool:
    """Say whether a name stands in a file. One that cannot be read may hold it."""
    try:
        with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return view.find(name.encode()) >= 0
    except FileNotFoundError:
        return False
    except (OSError, ValueError):  # an empty file cannot be mapped
        return model.stat().st_size > 0


def files_of(model: str | Path) -> Iterator[Path]:
    """Yield the files that an ONNX model is read from: its own, and those of its weights."""
    path = Path(model)
    yield path
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except Exception:  # whatever is wrong with it is said when it is read
        return
    for tensor in proto.graph.initializer:
        if uses_external_data(tensor):
            with contextlib.suppress(Exception):
                yield path.parent / ExternalDataInfo(tensor).location
