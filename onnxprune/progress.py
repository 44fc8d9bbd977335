"""What takes long says how far it is, to whoever listens; without a listener it costs nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Item = TypeVar("Item")

Hear = Callable[[str, int, int], None]
"""Hears what is done, how much of it, and how much there is to do; both alike at the end."""

TAKEN_BACK = "onnxprune.taken_back"
"""The logger of steps that were taken back, which a log shows beside those that stand."""

_hearing: ContextVar[Hear | None] = ContextVar("hearing", default=None)


@contextmanager
def heard_by(hear: Hear) -> Iterator[None]:
    """Let `hear` hear of everything that is tracked until the block ends."""
    token = _hearing.set(hear)
    try:
        yield
    finally:
        _hearing.reset(token)


def track(what: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """Yield the items, and tell the listener before each how many of `total` are done.

    >>> with heard_by(lambda what, done, total: print(what, done, "of", total)):
    ...     list(track("looking", "ab", 2))
    looking 0 of 2
    looking 1 of 2
    looking 2 of 2
    ['a', 'b']
    """
    hear = _hearing.get()
    if hear is None:
        yield from items
        return
    try:
        for done, item in enumerate(items):
            hear(what, min(done, total), total)
            yield item
    finally:
        hear(what, total, total)
