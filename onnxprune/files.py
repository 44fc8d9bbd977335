"""Output files appear whole or not at all: written beside the target, then moved into place."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from onnxprune.errors import InvalidType, OutputError


def write_whole(
    path: str | Path,
    content: bytes | str | Iterable[bytes],
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Write `content`, in one piece or several, to `path` in one step and return the path.

    `check` reads the file before it takes its name; what it raises leaves nothing behind.
    Raises: OutputError when the folder is missing or not writable; InvalidType for what is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidType(f"path: is {type(path).__name__}; expected the path of a file to write")
    path = Path(path)
    content = content.encode() if isinstance(content, str) else content
    pieces = [content] if isinstance(content, bytes) else content
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file to write")
    beside = path.parent / f".onnxprune-{secrets.token_hex(8)}"
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        if check is not None:
            check(beside)
        beside.replace(path)
        _settle(path.parent)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}); free some space") from (
            error
        )
    finally:
        beside.unlink(missing_ok=True)
    return path


def check_place(path: str | Path) -> Path:
    """Refuse, before long work starts, a file that could not be written after it.

    Raises: OutputError when the path is a folder, or its own folder is missing or not writable.
    """
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: the folder {path.parent} does not exist; create it first")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return path
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); choose another place"
        ) from error


def make_folder(path: str | Path) -> Path:
    """Create a folder, with its parents, and return its path.

    Raises: OutputError when it cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: the folder cannot be created ({error.strerror}); choose another place"
        ) from error
    if not os.access(path, os.W_OK):
        raise OutputError(f"{path}: the folder is not writable; choose another place")
    return path


@contextlib.contextmanager
def folder_to_fill(path: str | Path) -> Iterator[Path]:
    """Create a folder as `make_folder` does; if it is new and an error leaves it empty, it goes.

    Raises: OutputError when it cannot be created or written to.
    """
    known = Path(path).exists()
    folder = make_folder(path)
    try:
        yield folder
    finally:
        if not known and not any(folder.iterdir()):
            folder.rmdir()


def _settle(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system does that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
