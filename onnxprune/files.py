"""Output files appear whole or not at all: written beside the target, then moved into place.

A file is on the disk before it takes its name. Whatever fails, and whenever the process is killed,
under its name stands what was there before, or all of the new. What a killed process left beside
goes when the next file is written into the folder.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from onnxprune.errors import InvalidType, OutputError
from onnxprune.locks import Held, locked, release, take

BESIDE = ".onnxprune-"
"""How the names begin of what is written beside its place."""

LEFT = re.compile(rf"{re.escape(BESIDE)}[0-9a-f]{{16}}")
"""The name of a file, or a folder, that is written beside its place."""

UNSYNCED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What a file system answers that has no sync of folders, or none at all."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_whole(
    path: str | Path,
    content: bytes | str | Iterable[bytes | memoryview],
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Write `content`, in one piece or several, to `path` in one step and return the path.

    `check` reads the file before it takes its name; what it raises leaves nothing behind. A link is
    followed: the file that it leads to is replaced.
    Raises: OutputError when the place is not writable, or is a folder, a device or a named pipe;
    InvalidType for what is no path.
    """
    if not isinstance(path, str | os.PathLike):
        raise InvalidType(f"path: is {type(path).__name__}; expected the path of a file to write")
    path, place = Path(path), find_place(path)
    content = content.encode() if isinstance(content, str) else content
    with _told(path):
        sweep(place.parent)
        with _beside(place.parent, [content] if isinstance(content, bytes) else content) as beside:
            if check is not None:
                check(beside)
            beside.replace(place)
        _sync_folder(place.parent)
    return path


def write_passing(path: Path, content: Iterable[bytes]) -> Path:
    """Write a file of a temporary folder, which nobody keeps: it does not wait for the disk.

    Raises: OutputError when it cannot be written.
    """
    with _told(path), path.open("wb", buffering=0) as file:
        for piece in content:
            _write(file.fileno(), piece)
    return path


def move_whole(made: Sequence[Path], folder: Path) -> None:
    """Move files that somebody else wrote into a folder of the same disk, one after another.

    They are on the disk before they take their names.
    Raises: OutputError when they cannot be written.
    """
    with _told(folder):
        for path in made:
            handle = os.open(path, os.O_RDWR | _BINARY)
            try:
                _sync(handle)
            finally:
                os.close(handle)
        for path in made:
            path.replace(folder / path.name)
        _sync_folder(folder)


def append(path: Path, line: str) -> None:
    """Add a line to a file; it is on the disk when this returns, and not there if this fails.

    Raises: OutputError when it cannot be written.
    """
    with _told(path):
        new = not path.exists()
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY, 0o666)
        before = os.fstat(handle).st_size
        try:
            _write(handle, line.encode())
            _sync(handle)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(handle, before)
            with contextlib.suppress(OSError):
                os.close(handle)
            raise
        os.close(handle)
        if new:
            _sync_folder(path.parent)


def cut(path: Path, size: int) -> None:
    """Shorten a file to so many bytes.

    Raises: OutputError when it cannot be written.
    """
    with _told(path):
        os.truncate(path, size)


def remove(path: Path) -> None:
    """Remove a file, if there is one.

    Raises: OutputError when it cannot be removed.
    """
    with _told(path):
        path.unlink(missing_ok=True)


def find_place(path: str | Path) -> Path:
    """Return the file that is written for a path: where links lead.

    Raises: OutputError when there is something that no file may take the place of.
    """
    given, path = os.fspath(path), Path(path)
    if "\0" in given:
        raise OutputError(f"{path}: cannot be written; no file has such a name")
    if given and os.path.split(given)[1] in ("", os.curdir, os.pardir):  # Path drops the end
        raise OutputError(f"{given}: names a folder; name a file to write")
    try:
        place = path.resolve() if path.is_symlink() else path
        if path.is_dir():
            raise OutputError(f"{path}: is a folder; name a file to write")
        if path.exists() and not path.is_file():
            raise OutputError(f"{path}: is a device or a named pipe; name a file to write")
    except OSError as error:
        raise _refused(path, error) from error
    except RuntimeError as error:
        raise OutputError(
            f"{path}: cannot be written (links that lead in a circle); choose another place"
        ) from error
    if place.exists() and not os.access(place, os.W_OK):
        raise OutputError(f"{path}: is there and may not be written; choose another place")
    return place


def check_place(path: str | Path, *read: object) -> Path:
    """Refuse, before long work starts, a file that could not be written after it.

    `read` are what the command reads: paths, with a function of theirs or not; others are passed.
    Raises: OutputError when the path is a folder, its own folder is missing or not writable, or it
    is a file that is read, under this name or another.
    """
    place, path = find_place(path), Path(path)
    if not place.parent.is_dir():
        raise OutputError(f"{path}: the folder {place.parent} does not exist; create it first")
    for one in read:
        _check_other(path, one)
    try:
        with _beside(place.parent):
            return path
    except OSError as error:
        raise _refused(path, error) from error


READ_WHOLE = (".onnx", ".html", ".svg", ".md")
"""What we write ourselves may stand in a folder that is read."""


def _check_other(path: Path, read: object) -> None:
    """Refuse to write what is read, or what lies in a folder that is read.

    Raises: OutputError.
    """
    if not isinstance(read, str | Path):
        return
    given = str(read)
    for name in dict.fromkeys((given, given.rpartition(":")[0])):
        other = Path(name)
        with contextlib.suppress(OSError, ValueError):
            if name and path.exists() and other.is_file() and path.samefile(other):
                raise OutputError(f"{path}: is the {name} that is read; name another file to write")
            if name and other.is_dir() and path.is_file() and path.suffix not in READ_WHOLE:
                if path.resolve().is_relative_to(other.resolve()):
                    raise OutputError(f"{path}: is in {name}, which is read; name another file")


def check_apart(*paths: str | Path | None) -> None:
    """Refuse two outputs of one name. Of a name that nothing can have, whoever writes says it.

    Raises: OutputError.
    """
    places: set[Path] = set()
    for path in (one for one in paths if one is not None):
        try:
            place = Path(path).resolve()
        except (OSError, ValueError, RuntimeError):  # links in a circle, too
            continue
        if place in places:
            raise OutputError(f"{path}: is named for two outputs; give each a file of its own")
        places.add(place)


def make_folder(path: str | Path) -> Path:
    """Create a folder, with its parents, and return its path.

    Raises: OutputError when it cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise OutputError(
            f"{path}: the folder cannot be created ({said}); choose another place"
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


@contextlib.contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Create a folder in a folder, which goes when the block ends, and one day if this is killed.

    Raises: OutputError when it cannot be created.
    """
    sweep(folder)
    made, lock = list[Path](), None
    try:
        with _told(folder):
            lock = _create_folder(folder, made)
        yield made[-1]
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                shutil.rmtree(one, ignore_errors=True)
        release(lock)


def _create_folder(folder: Path, made: list[Path]) -> int | None:
    """Create an empty folder, the last of `made`, and lock it; return its lock."""
    while True:
        made.append(folder / f"{BESIDE}{secrets.token_hex(8)}")
        made[-1].mkdir(0o700)
        with contextlib.suppress(Held, FileNotFoundError):  # somebody sweeps it: another name
            lock = take(made[-1])
            if lock is None or made[-1].exists():
                return lock
            release(lock)


def temporary_place() -> Path:
    """Return the system's folder for temporary files.

    Raises: OutputError where none can be written to.
    """
    try:
        return Path(tempfile.gettempdir())
    except OSError as error:
        raise OutputError(
            "no folder for temporary files can be written to; free some space, or set TMPDIR"
        ) from error


@contextlib.contextmanager
def temporary() -> Iterator[Path]:
    """Create a folder for temporary files, as `scratch` does."""
    with scratch(temporary_place()) as folder:
        yield folder


def sweep(folder: Path) -> None:
    """Remove what was written beside its place by processes that were killed."""
    with contextlib.suppress(OSError):
        for left in [one for one in folder.iterdir() if LEFT.fullmatch(one.name)]:
            with contextlib.suppress(OSError, Held), locked(left) as sure:
                if sure and left.is_dir():
                    shutil.rmtree(left)
                elif sure:
                    left.unlink()


_BINARY = getattr(os, "O_BINARY", 0)


@contextlib.contextmanager
def _beside(folder: Path, content: Iterable[bytes | memoryview] | None = None) -> Iterator[Path]:
    """Write a file in a folder, under a name of its own that goes when the block ends.

    It is on the disk, and locked so that nobody sweeps it.
    Raises: OSError.
    """
    made, lock = list[Path](), None
    try:
        handle, lock = _create(folder, made)
        try:
            if content is not None:
                for piece in content:
                    _write(handle, piece)
                _sync(handle)
        finally:
            os.close(handle)
        yield made[-1]
    finally:
        for one in made:
            with contextlib.suppress(OSError):
                one.unlink()
        release(lock)


def _create(folder: Path, made: list[Path]) -> tuple[int, int | None]:
    """Create an empty file and lock it; return its handle and its lock.

    Its path is the last of `made`, where it is before the file is: a signal may come at any moment.
    """
    while True:
        beside = folder / f"{BESIDE}{secrets.token_hex(8)}"
        made.append(beside)
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
        with contextlib.suppress(Held, FileNotFoundError):  # somebody sweeps it: another name
            lock = take(beside)
            if lock is None or beside.exists():
                return handle, lock
            release(lock)
        os.close(handle)


def _write(handle: int, piece: bytes | memoryview) -> None:
    """Write all bytes, in as many calls as the system takes."""
    rest = memoryview(piece).cast("B")
    while rest:
        rest = rest[os.write(handle, rest) :]


def _sync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system does that."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder that may not be read, or Windows
        return
    try:
        _sync(handle)
    finally:
        with contextlib.suppress(OSError):
            os.close(handle)


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one line what the system refuses.

    Raises: OutputError in place of OSError.
    """
    try:
        yield
    except OSError as error:
        raise _refused(path, error) from error


def _refused(path: Path, error: OSError) -> OutputError:
    remedy = "free some space" if error.errno in FULL else "choose another place"
    return OutputError(f"{path}: cannot be written ({error.strerror}); {remedy}")
