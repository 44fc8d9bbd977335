"""What takes long says how far it is and what it took, to whoever listens.

Without a listener that costs nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

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


def is_heard() -> bool:
    """Say whether anybody hears of what is tracked."""
    return _hearing.get() is not None


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
            if done < total:  # there may be more than was known
                hear(what, done, total)
            yield item
    finally:
        hear(what, total, total)


Listen = Callable[[str, dict[str, Any]], None]
"""Hears of an event, by its name and what is known of it."""

_listening: ContextVar[Listen | None] = ContextVar("listening", default=None)


@contextmanager
def told_to(listen: Listen) -> Iterator[None]:
    """Let `listen` hear of every event until the block ends."""
    token = _listening.set(listen)
    try:
        yield
    finally:
        _listening.reset(token)


def tell(event: str, **known: Any) -> None:
    """Tell of an event whoever listens.

    >>> with told_to(print):
    ...     tell("step", rate=0.5)
    step {'rate': 0.5}
    """
    if (listen := _listening.get()) is not None:
        listen(event, known)


TRUST = 0.1
"""The share of a way that has to be gone until it counts as much as what was expected of it."""


@dataclass
class Outlook:
    """How much longer a way takes, by what was `expected` of all of it and what was seen since.

    The shares of the way that are gone are told as they are reached; the first may be above 0.

    >>> outlook = Outlook(expected=60.0)
    >>> [round(outlook.reach(share, now)) for share, now in ((0, 0), (0.1, 10), (0.5, 50))]
    [60, 72, 47]
    >>> round(outlook.left(55))
    42

    Units: expected, seconds, None where nobody knows.
    """

    expected: float | None = None
    _first: tuple[float, float] | None = None
    _last: tuple[float, float] | None = None

    def reach(self, share: float, now: float) -> float | None:
        """Return the seconds that are left where a share of the way is gone, None if unknown.

        Units: now, seconds.
        """
        self._first = self._first or (share, now)
        way, spent = share - self._first[0], now - self._first[1]
        known = 0.0 if self.expected is None else TRUST
        if known + way <= 0:
            return None
        whole = (known * (self.expected or 0.0) + spent) / (known + way)
        self._last = max(1 - share, 0.0) * whole, now
        return self._last[0]

    def left(self, now: float) -> float | None:
        """Return the seconds that are left by what was last said, None if unknown or overrun."""
        if self._last is None or now - self._last[1] >= self._last[0]:
            return None
        return self._last[0] - (now - self._last[1])


OTHER = "other"
"""What is spent outside of every phase."""


@dataclass
class Phases:
    """Where time goes. A phase inside another one takes its time from that.

    Units: seconds, s of each phase in the order in which they began.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    _open: list[str] = field(default_factory=lambda: [OTHER])
    _since: float = field(default_factory=time.monotonic)

    def turn(self) -> None:
        """Give the time since the last turn to the phase that is open."""
        now = time.monotonic()
        self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Count the time of a block for a phase."""
        self.turn()
        self.seconds.setdefault(name, 0.0)
        self._open.append(name)
        before = time.monotonic()
        try:
            yield
        finally:
            self.turn()
            self._open.pop()
            tell("phase", phase=name, seconds=round(time.monotonic() - before, 4))

    def to_json(self) -> dict[str, float]:
        """Return the seconds of each phase until now, what no phase took last."""
        self.turn()
        last = self.seconds.get(OTHER, 0.0)
        named = {name: value for name, value in self.seconds.items() if name != OTHER}
        return {name: round(value, 3) for name, value in {**named, OTHER: last}.items()}


_phases: ContextVar[Phases | None] = ContextVar("phases", default=None)


@contextmanager
def timed() -> Iterator[Phases]:
    """Count the time of the phases of a block."""
    phases = Phases()
    token = _phases.set(phases)
    try:
        yield phases
    finally:
        _phases.reset(token)


def spent_by_phase() -> dict[str, float]:
    """Return the seconds of each phase until now, nothing where phases are not timed."""
    phases = _phases.get()
    return {} if phases is None else phases.to_json()


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Count the time of a block, or of a function, for a phase, where phases are timed.

    >>> with timed() as phases:
    ...     with phase("relevance"), phase("evaluation"):
    ...         pass
    >>> list(phases.to_json())
    ['relevance', 'evaluation', 'other']
    """
    phases = _phases.get()
    if phases is None:
        yield
        return
    with phases.during(name):
        yield
