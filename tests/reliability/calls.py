"""The system calls that write, counted one by one, so that each can fail, or be the last.

In the manner of SQLite's tests: a run counts its calls, and is run again for each of them, with
that one failing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

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


class Calls:
    """Counts the calls on what lies under a folder; something happens at the call `at`.

    With `on`, it happens at all later ones of the same kind as well.
    """

    def __init__(self, root: Path, at: int = -1, act: Act = "", *, on: bool = False) -> None:
        self.root, self.at, self.act, self.on = root.resolve(), at, act, on
        self.names: list[str] = []
        self._handles: set[int] = set()
        self._kind = ""

    def install(self) -> None:
        """Stand between this process and its system calls until it ends."""
        import fcntl

        for name in (*BY_PATH, *BY_HANDLE):
            module = fcntl if name == "flock" else os
            setattr(module, name, self._guard(name, getattr(module, name)))

    def _guard(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if not self._mine(name, arguments):
                return real(*arguments, **more)
            number = len(self.names)
            self.names.append(name)
            if number == self.at:
                self._kind = name
            if number == self.at or (self.on and name == self._kind):
                short = self._happen(name, real, arguments, more)
                if short is not None:
                    return short
            found = real(*arguments, **more)
            if name == "open":
                self._handles.add(found)
            if number == self.at and self.act == AFTER:
                die()
            return found

        return call

    def _mine(self, name: str, arguments: tuple[Any, ...]) -> bool:
        if name in BY_PATH:
            return Path(arguments[0]).parent.resolve().is_relative_to(self.root)
        held = arguments[0] in self._handles
        if name == "close":
            self._handles.discard(arguments[0])
        return held

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
