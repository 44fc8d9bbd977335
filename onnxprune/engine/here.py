"""Shards in this process: one after the other, or several at a time on threads.

Each thread computes a shard of its own, and the parts are handed out in the order of the shards. So
any number of threads gives the same bits, which threads that share one sum would not.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from onnxprune.engine.job import Course, Job

AHEAD = 2
"""Shards whose samples are read while one runs, where they run one after the other."""
BEGUN = 2
"""Shards for each thread that run, wait for a thread or are done: their parts are held."""
LITTLE = 2**20
"""Bytes. A shard that takes no more is over before a second thread is of use: Python's own part of
the work, which no two threads do at once, is most of it."""


@dataclass(frozen=True)
class _Threads:
    """How many shards may run at a time, how many bytes they may take, and how a thread begins."""

    count: int
    allowed: int
    begin: Callable[[], None]

    def fit(self, job: Job, shards: int) -> int:
        """How many shards of a job may run at a time."""
        most = min(self.count, shards)
        taken = job.taken if most > 1 else None
        if taken is None or taken <= LITTLE:
            return 1
        return max(min(most, self.allowed // taken), 1)


_threads: ContextVar[_Threads | None] = ContextVar("threads", default=None)


@contextmanager
def on_threads(count: int, allowed: int, begin: Callable[[], None]) -> Iterator[None]:
    """Run up to `count` shards at a time in this process until the block ends.

    All together take no more than `allowed` bytes, unless one alone does. Each thread calls `begin`
    once. Within such a block another one changes nothing.
    """
    token = _threads.set(_threads.get() or _Threads(count, allowed, begin))
    try:
        yield
    finally:
        _threads.reset(token)


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Here:
    """Runs jobs in this process."""

    def talk(self, job: Job, shards: Sequence[Any]) -> HereTalk:
        """Begin a job."""
        courses, threads = [Course(job, shard) for shard in shards], _threads.get()
        count = 1 if threads is None else threads.fit(job, len(shards))
        if threads is None or count == 1:
            return HereTalk(courses)
        return _SideBySide(courses, count, threads.begin)


class HereTalk:
    """A job on its shards, one after the other."""

    def __init__(self, courses: list[Course]) -> None:
        self._courses = courses

    def ask(self, answer: Any = None) -> Iterator[Any]:
        """Yield the part of each shard, in their order."""
        for number, course in enumerate(self._courses):
            for later in self._courses[number + 1 : number + 1 + AHEAD]:
                later.soon()
            yield course.next(answer)

    def close(self) -> None:
        """Forget the shards."""
        self._courses.clear()


class _SideBySide(HereTalk):
    """A job on its shards, `count` at a time, each of which reads its own samples."""

    def __init__(self, courses: list[Course], count: int, begin: Callable[[], None]) -> None:
        super().__init__(courses)
        self._pool = ThreadPoolExecutor(count, "shard", begin)
        self._most = BEGUN * count

    def ask(self, answer: Any = None) -> Iterator[Any]:
        """Yield the part of each shard, in their order."""
        begun = deque[Future[Any]]()
        for course in self._courses:
            begun.append(self._pool.submit(course.next, answer))
            if len(begun) == self._most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)
        super().close()
