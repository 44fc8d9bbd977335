"""Locks on files and folders that no kill leaves behind: the system drops them with the process."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
"""A file in a folder, where the file system locks files only."""

_held: set[int] = set()
"""The open handles that hold a lock. A fork shares them, and closes its own."""


class Held(Exception):
    """Another process, or another thread of this one, holds the lock."""


@contextlib.contextmanager
def locked(path: str | Path) -> Iterator[bool]:
    """Hold the lock of a file or folder; yield False where the file system has no locks.

    Raises: Held when somebody else holds it; OSError when the path cannot be opened.
    """
    handle = take(path)
    try:
        yield handle is not None
    finally:
        release(handle)


def take(path: str | Path) -> int | None:
    """Take the lock of a file or folder, and return what `release` is given.

    The result is None where the file system has no locks.
    Raises: Held when somebody else holds it; OSError when the path cannot be opened.
    """
    if fcntl is None:
        return None
    handle = _lock(path, os.O_RDONLY)
    if handle is None and Path(path).is_dir():  # NFS locks what may be written to
        handle = _lock(Path(path) / LOCK, os.O_RDWR | os.O_CREAT)
    return handle


def _lock(path: str | Path, how: int) -> int | None:
    handle = os.open(path, how, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise Held from error
        return None
    _held.add(handle)
    return handle


def release(handle: int | None) -> None:
    """Give a lock back."""
    if handle in _held:
        _held.discard(handle)
        os.close(handle)


def _forget() -> None:
    """Close what a fork took over: its parent's locks end with its parent."""
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
