"""Workers that share the shards of a job, of which some die and some are slow.

Shard k has worker k modulo their number for its home, where its samples stay from one job to the
next. A worker that has nothing left at home takes what no worker has begun; in later rounds of a
talk, only from a worker that is held up. What is lost with a worker runs again, on the one that
takes its place. Where nothing is left to begin, a shard that takes far longer than others runs on a
second worker as well, and the first result counts; both are equal. The parts are handed out in the
order of the shards.
"""

from __future__ import annotations

import itertools
import logging
import pickle
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from onnxprune.engine.job import Job, Portable
from onnxprune.engine.parcels import Parcel, Sender
from onnxprune.engine.worker import Call, Failure
from onnxprune.errors import EngineFailed

logger = logging.getLogger(__name__)

AHEAD = 4
"""Shards for each worker that are begun beyond the one that is waited for: their parts are held."""
SLOW = 3.0
"""A shard that takes so many times the median is begun a second time, if a worker is free."""
LEAST = 1.0
"""Unit: s. No shard is slow before."""
LOSSES = 3
"""How many workers a shard may lose; after that the shard is to blame."""


class Lost(Exception):
    """A worker that died, and what it was doing with it."""


class Crew(Protocol):
    """Where workers come from and how they are spoken to; `size` is how many there are room for."""

    size: int
    pickler: type[pickle.Pickler]

    def put(self, parcel: Parcel) -> Any:
        """Place a parcel where workers find it."""
        ...

    def hire(self) -> Any:
        """Start a worker."""
        ...

    def give(self, worker: Any, call: Call) -> Any:
        """Begin a call on a worker; return a ticket for it."""
        ...

    def wait(self, tickets: Collection[Any], seconds: float | None) -> Collection[Any]:
        """Return the tickets that are done, at least one unless the time is over."""
        ...

    def result(self, ticket: Any) -> Any:
        """Return what a call returned. Raises: Lost with its worker."""
        ...


@dataclass(frozen=True, eq=False)
class _Answer(Portable):
    value: Any


@dataclass(frozen=True)
class _Run:
    """A round of a shard on a worker, by its place."""

    worker: int
    talk: int
    round: int
    shard: int
    started: float


@dataclass(eq=False)
class Pool:
    """Workers of a crew that share shards."""

    crew: Crew
    workers: list[Any] = field(init=False)
    talks: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.workers = [self.crew.hire() for _ in range(self.crew.size)]
        self.sender = Sender(self.crew.put, self.crew.pickler)
        self.running: dict[Any, _Run] = {}
        self._numbers = itertools.count()

    def talk(self, job: Job, shards: Sequence[Any]) -> _PoolTalk:
        """Begin a job."""
        number = next(self._numbers)
        self.talks.add(number)
        return _PoolTalk(self, number, job, shards)

    def free(self) -> list[int]:
        """The places of the workers that do nothing."""
        busy = {run.worker for run in self.running.values()}
        return [place for place in range(len(self.workers)) if place not in busy]

    def begin(self, run: _Run, call: Call) -> None:
        """Begin a round of a shard."""
        self.running[self.crew.give(self.workers[run.worker], call)] = run

    def finished(self, seconds: float | None) -> Iterator[tuple[_Run, Any]]:
        """Yield what is done: the run, and its part or the Lost worker, who is replaced."""
        for ticket in self.crew.wait(list(self.running), seconds):
            run = self.running.pop(ticket)
            try:
                yield run, self.crew.result(ticket)
            except Lost as lost:
                logger.warning("a worker died (%s): another one takes its shard", lost)
                self.workers[run.worker] = self.crew.hire()
                yield run, lost


class _PoolTalk:
    """A job on its shards, as `onnxprune.engine.Talk` says."""

    def __init__(self, pool: Pool, number: int, job: Job, shards: Sequence[Any]) -> None:
        self._pool, self._number, self._job, self._shards = pool, number, job, shards
        self._begun = False
        self._answers: list[_Answer] = []
        self._homes = [k % len(pool.workers) for k in range(len(shards))]
        self._losses: Counter[int] = Counter()

    def ask(self, answer: Any = None) -> Iterator[Any]:
        """Yield the part of each shard in their order."""
        if self._begun:
            self._answers.append(_Answer(answer))
        self._begun = True
        return _Round(self._pool, self._number, len(self._answers), self).parts()

    def close(self) -> None:
        """Forget the talk; workers hear of it with their next call."""
        self._pool.talks.discard(self._number)
        self._answers.clear()

    def call(self, shard: int) -> Call:
        """Return the call for the next round of a shard."""
        sender = self._pool.sender
        job, *answers = (sender.number(one) for one in (self._job, *self._answers))
        return Call(
            self._number,
            shard,
            self._shards[shard],
            job,
            tuple(answers),
            sender.places(job, *answers),
            sender.alive,
            frozenset(self._pool.talks),
        )

    def home(self, shard: int) -> int:
        """The worker that has what a shard needs."""
        return self._homes[shard]

    def moved(self, shard: int, worker: int) -> None:
        """Note which worker has what a shard needs from here on."""
        self._homes[shard] = worker

    def lost(self, shard: int) -> None:
        """Note a worker that a shard lost. Raises: EngineFailed after too many."""
        self._losses[shard] += 1
        if self._losses[shard] >= LOSSES:
            raise EngineFailed(
                f"engine: {LOSSES} workers died on shard {shard} of {len(self._shards)}; expected "
                "it to fit into their memory: give --memory in MB, or lower --batch-size"
            )


class _Round:
    """One round of a talk: every shard once."""

    def __init__(self, pool: Pool, talk: int, number: int, of: _PoolTalk) -> None:
        self._pool, self._talk, self._number, self._of = pool, talk, number, of
        self._left = dict.fromkeys(range(len(of._shards)))
        self._parts: dict[int, Any] = {}
        self._times: list[float] = []
        self._next = 0

    def parts(self) -> Iterator[Any]:
        """Yield the parts in the order of the shards, as they come."""
        count = len(self._left)
        while self._next < count:
            self._begin()
            for run, part in self._pool.finished(LEAST if self._may_be_slow() else None):
                if (run.talk, run.round) == (self._talk, self._number):
                    self._take(run, part)
            while self._next in self._parts:
                yield self._parts.pop(self._next)
                self._next += 1

    def _take(self, run: _Run, part: Any) -> None:
        done = run.shard < self._next or run.shard in self._parts
        if done:
            return
        if isinstance(part, Lost):
            self._of.lost(run.shard)
            if not any(other.shard == run.shard for other in self._mine()):
                self._left[run.shard] = None
            return
        if isinstance(part, Failure):
            raise part.error
        self._times.append(time.monotonic() - run.started)
        self._parts[run.shard] = part
        self._of.moved(run.shard, run.worker)

    def _begin(self) -> None:
        """Give every free worker a shard, if there is one for it."""
        for worker in self._pool.free():
            shard = self._choose(worker)
            if shard is None:
                continue
            self._left.pop(shard, None)
            run = _Run(worker, self._talk, self._number, shard, time.monotonic())
            self._pool.begin(run, self._of.call(shard))

    def _choose(self, worker: int) -> int | None:
        """The shard that a worker does next: one of its own, one of another's, or a slow one."""
        most = self._next + AHEAD * len(self._pool.workers)
        near = [shard for shard in sorted(self._left) if shard < most]
        own = [shard for shard in near if self._of.home(shard) == worker]
        slow = self._slow()
        if self._number:  # later rounds need what their worker has, unless that is held up
            held_up = {run.worker for run in self._pool.running.values() if run not in self._mine()}
            held_up |= {run.worker for run in slow}
            near = [shard for shard in near if self._of.home(shard) in held_up]
        copies = Counter(run.shard for run in self._mine())
        again = [run.shard for run in slow if copies[run.shard] == 1 and run.worker != worker]
        return next(iter((*own, *near, *again)), None)

    def _slow(self) -> list[_Run]:
        """What takes far longer than others of this round did."""
        if not self._times:
            return []
        limit = max(LEAST, SLOW * statistics.median(self._times))
        now = time.monotonic()
        return [run for run in self._mine() if now - run.started > limit]

    def _may_be_slow(self) -> bool:
        """Whether a worker waits for nothing but a slow one."""
        return bool(self._pool.free())

    def _mine(self) -> list[_Run]:
        """What runs of this round."""
        return [
            run
            for run in self._pool.running.values()
            if (run.talk, run.round) == (self._talk, self._number)
        ]
