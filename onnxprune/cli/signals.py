"""Signals that ask a command to end: it drops what it is at, and is asked only once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""Signals that end a process if nobody heeds them."""

_came: list[int] = []


class Terminated(KeyboardInterrupt):
    """What a signal other than that of Ctrl-C raises; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def heeded() -> Iterator[None]:
    """Let signals raise KeyboardInterrupt, or `Terminated`, until the block ends.

    Those that are ignored, as SIGHUP under nohup, stay so; so do handlers of somebody else.
    """
    mine = threading.current_thread() is threading.main_thread()
    before = {one: signal.getsignal(one) for one in (signal.SIGINT, *ENDING)} if mine else {}
    default = (signal.SIG_DFL, signal.default_int_handler)
    taken = [one for one, handler in before.items() if handler in default]
    _came.clear()
    for one in taken:
        signal.signal(one, _raise)
    try:
        yield
    finally:
        for one in taken:
            signal.signal(one, before[one])


def _raise(number: int, frame: Any = None) -> None:
    _came.append(number)
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def check() -> None:
    """Raise again what came where Python drops exceptions, as in the end of an object.

    Raises: KeyboardInterrupt.
    """
    if _came:
        _raise(_came[-1])


def exit_code(stop: BaseException | None) -> int:
    """Return the exit code of an interrupted command: 128 and the number of the signal."""
    while stop is not None:
        if isinstance(stop, Terminated):
            return 128 + stop.number
        stop = stop.__cause__ or stop.__context__
    return 128 + signal.SIGINT


def named(stop: BaseException) -> str:
    """Return what happened, for a message."""
    code = exit_code(stop) - 128
    return "interrupted" if code == signal.SIGINT else f"stopped by {signal.Signals(code).name}"
