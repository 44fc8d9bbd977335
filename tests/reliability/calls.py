"""The system calls that write, counted one by one, so that each can fail, or be the last.

In the manner of SQLite's tests: a run counts its calls, and is run again for each of them, with
that one failing. Files that Python opens for writing by other ways than these are counted, too.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

BY_PATH = ("open", "replace", "rename", "unlink", "mkdir", "rmdir", "truncate")
BY_HANDLE = ("write", "fsync", "ftruncate", "close", "flock")

FAILS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "open": (errno.EACCES, errno.ENOSPC, errno.EROFS),
        "write": (errno.ENOSPC, errno.EIO),
        "fsync": (errno.EIO, errno.ENOSPC),
        "close": (errno.EIO,),
        "replace": (errno.EACCES, errno.EIO, errno.ENOSPC),
        "rename": (errno.EACCES, errno.EIO),
        "unlink": (errno.EACCES, errno.EIO),
        "mkdir": (errno.EACCES, errno.ENOSPC),
        "rmdir": (errno.EACCES,),
        "truncate": (errno.EIO,),
        "ftruncate": (errno.EIO,),
        "flock": (errno.ENOLCK,),
    }
)
"""What each call may answer."""

BEFORE, HALF, AFTER, SHORT = "killed before", "killed in the middle", "killed after", "short"
"""What else may happen at a call: SIGKILL, or that it writes one byte only."""

Act = str | int
"""One of these, or an error number."""

TEMPORARY = "tmp"
"""The folder under the root that is the system's for temporary files."""

UNSEEN = "open by other ways"
"""The name of a call that opens a file for writing, and is none of these."""


class Call(NamedTuple):
    """A call: on which file under the root, and what its name becomes."""

    name: str
    path: str
    target: str = ""


class Calls:
    """Counts the calls on what lies under a folder; something happens at the call `at`.

    With `on`, it happens at all later ones of the same kind as well.
    """

    def __init__(self, root: Path, at: int = -1, act: Act = "", *, on: bool = False) -> None:
        self.root, self.at, self.act, self.on = root.resolve(), at, act, on
        self.made: list[Call] = []
        self._handles: dict[int, str] = {}
        self._kind = ""

    def install(self) -> None:
        """Stand between this process and its system calls until it ends."""
        import fcntl

        for name in (*BY_PATH, *BY_HANDLE):
            module = fcntl if name == "flock" else os
            setattr(module, name, self._guard(name, getattr(module, name)))
        sys.addaudithook(self._hear)

    def _hear(self, event: str, given: tuple[Any, ...]) -> None:
        """Count a file that is opened for writing by other ways, as by `open`."""
        if event == "open" and isinstance(given[0], str | os.PathLike) and given[1] is not None:
            path = Path(given[0]).absolute()
            temporary = path.is_relative_to(self.root / TEMPORARY)
            if set(given[1]) & set("wxa+") and path.is_relative_to(self.root) and not temporary:
                self.made.append(Call(UNSEEN, self._called(path)))

    def _called(self, path: Any) -> str:
        return os.path.relpath(Path(path).absolute(), self.root)

    def _guard(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            mine = self._mine(name, arguments)
            if mine is None:
                return real(*arguments, **more)
            number = len(self.made)
            self.made.append(mine)
            if number == self.at:
                self._kind = name
            if number == self.at or (self.on and name == self._kind):
                short = self._happen(name, real, arguments, more)
                if short is not None:
                    return short
            found = real(*arguments, **more)
            if name == "open":
                self._handles[found] = mine.path
            if number == self.at and self.act == AFTER:
                die()
            return found

        return call

    def _mine(self, name: str, given: tuple[Any, ...]) -> Call | None:
        """Return the call, if it is on what lies under the root."""
        if name in BY_PATH:
            if not Path(given[0]).parent.resolve().is_relative_to(self.root):
                return None
            moved = name in ("replace", "rename")
            return Call(name, self._called(given[0]), self._called(given[1]) if moved else "")
        if given[0] not in self._handles:
            return None
        path = self._handles.pop(given[0]) if name == "close" else self._handles[given[0]]
        return Call(name, path)

    def _happen(self, name: str, real: Callable[..., Any], given: Any, more: Any) -> int | None:
        """Do what is to happen; return what a short write took."""
        if self.act == BEFORE:
            die()
        if name == "write" and self.act in (HALF, SHORT):
            size = len(given[1]) // 2 if self.act == HALF else 1
            done: int = real(given[0], bytes(given[1])[:size])
            if self.act == HALF:
                die()
            return done
        if isinstance(self.act, int):
            if name == "close":
                real(*given, **more)  # the handle is gone all the same
            raise OSError(self.act, os.strerror(self.act), str(given[0]))
        return None


def die() -> None:
    """End this process as no handler can see it."""
    os.kill(os.getpid(), signal.SIGKILL)


def acts(name: str, *, kills: bool) -> tuple[Act, ...]:
    """What may happen at a call."""
    if kills:
        return (BEFORE, *((HALF,) if name == "write" else ()), AFTER)
    return (*FAILS[name], *((SHORT,) if name == "write" else ()))


def disordered(made: Sequence[Call]) -> list[str]:
    """Say what is not written as promised: on the disk, then named, then its name on the disk.

    A file takes its name after it was synced, and nothing was written to it since; its folder is
    synced after that.
    """
    wrong, synced, named = list[str](), set[str](), dict[str, str]()
    for name, path, target in made:
        if name == UNSEEN:
            wrong.append(f"{path}: opened by other ways than those of files.py")
        elif name == "write":
            synced.discard(path)
        elif name == "fsync":
            synced.add(path)
            named = {where: folder for where, folder in named.items() if folder != path}
        elif name in ("replace", "rename") and not target.startswith(TEMPORARY):
            if path not in synced:
                wrong.append(f"{target}: got its name before it was on the disk")
            named[target] = str(Path(target).parent)
    return wrong + [f"{where}: its name may not be on the disk" for where in named]
