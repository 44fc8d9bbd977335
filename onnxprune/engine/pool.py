"""Workers that share the shards of a job, of which some die and some are slow.

Shard k has worker k modulo their number for its home, where its samples stay from one job to the
next. A call names several shards of a home, fewer towards the end. Each call costs the process that
leads, so calls name more where those of many workers would keep it busy. A worker that has nothing
left at home takes what no worker has begun; where workers keep what they made, only from a worker
that is held up. What is lost with a worker runs again, on the one that takes its place. Where
nothing is left to begin, shards that take far longer than others run on a second worker as well,
and the first result counts; both are equal. The parts are handed out in the order of the shards.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import pickle
import statistics
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from onnxprune.engine.job import Job, Portable
from onnxprune.engine.parcels import Parcel, Sender
from onnxprune.engine.worker import Call, Failure
from onnxprune.errors import EngineFailed

logger = logging.getLogger(__name__)

TOGETHER = 4
"""Shards of a call, at most, unless they are over too soon."""
MANY = 32
"""Those of a call whose shards are over at once."""
PACE = 1e-3
"""Unit: s. What a call to each worker may take the process that leads: twice what one costs it."""
AHEAD = 2
"""Calls for each worker that are begun beyond the one that is waited for: their parts are held."""
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
        """Return the parts that a call returned. Raises: Lost with its worker."""
        ...


@dataclass(frozen=True, eq=False)
class _Answer(Portable):
    value: Any


@dataclass(frozen=True)
class _Run:
    """A round of some shards on a worker, by its place."""

    worker: int
    talk: int
    round: int
    shards: tuple[int, ...]
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
        self._free = set(range(len(self.workers)))
        self._told: list[set[int]] = [set() for _ in self.workers]
        self._numbers = itertools.count()

    def talk(self, job: Job, shards: Sequence[Any]) -> _PoolTalk:
        """Begin a job."""
        number = next(self._numbers)
        self.talks.add(number)
        return _PoolTalk(self, number, job, shards)

    def free(self) -> list[int]:
        """The places of the workers that do nothing."""
        return sorted(self._free)

    def untold(self, worker: int, places: Mapping[int, Any]) -> dict[int, Any]:
        """Return those places of parcels that a worker has not been told, and count them as told.

        What a worker holds of parcels costs nothing in a call.
        """
        told = self._told[worker]
        found = {number: place for number, place in places.items() if number not in told}
        told.update(found)
        told.intersection_update(self.sender.alive)
        return found

    def begin(self, run: _Run, call: Call) -> None:
        """Begin a round of some shards."""
        self._free.discard(run.worker)
        self.running[self.crew.give(self.workers[run.worker], call)] = run

    def finished(self, seconds: float | None) -> Iterator[tuple[_Run, Any]]:
        """Yield what is done: the run, and its parts or the Lost worker, who is replaced."""
        for ticket in self.crew.wait(list(self.running), seconds):
            run = self.running.pop(ticket)
            self._free.add(run.worker)
            try:
                yield run, self.crew.result(ticket)
            except Lost as lost:
                logger.warning("a worker died (%s): another one takes its shard", lost)
                self.workers[run.worker] = self.crew.hire()
                self._told[run.worker] = set()
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

    @property
    def keeps(self) -> bool:
        """Whether workers keep what they made of a shard."""
        return bool(self._answers) or self._job.keeps

    def call(self, shards: Sequence[int], worker: int) -> Call:
        """Return the call for the next round of some shards on a worker."""
        sender = self._pool.sender
        job, *answers = (sender.number(one) for one in (self._job, *self._answers))
        return Call(
            self._number,
            {shard: self._shards[shard] for shard in shards},
            job,
            tuple(answers),
            self._pool.untold(worker, sender.places(job, *answers)),
            sender.alive,
            frozenset(self._pool.talks),
        )

    def home(self, shard: int) -> int:
        """The worker that has what a shard needs."""
        return self._homes[shard]

    def moved(self, shard: int, worker: int) -> None:
        """Note which worker has what a shard needs from here on."""
        self._homes[shard] = worker

    def alone(self, shard: int) -> bool:
        """Whether a shard runs alone, as a worker was lost with it and others."""
        return shard in self._losses

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
        self._count = len(of._shards)
        self._left: list[list[int]] = [[] for _ in pool.workers]  # by home
        for shard in range(self._count):
            self._left[of.home(shard)].append(shard)
        self._parts: dict[int, Any] = {}
        self._times: list[float] = []
        self._spent = 0.0
        self._began = time.monotonic()
        self._next = 0  # that is handed out
        self._first = 0  # no shard before is left

    def parts(self) -> Iterator[Any]:
        """Yield the parts in the order of the shards, as they come."""
        while self._next < self._count:
            self._begin()
            for run, parts in self._pool.finished(LEAST if self._may_be_slow() else None):
                if (run.talk, run.round) == (self._talk, self._number):
                    self._take(run, parts)
            while self._next in self._parts:
                yield self._parts.pop(self._next)
                self._next += 1

    def _take(self, run: _Run, parts: Any) -> None:
        if isinstance(parts, Lost):
            others = {shard for other in self._mine() for shard in other.shards}
            for shard in self._undone(run):
                self._of.lost(shard)
                if shard not in others:
                    bisect.insort(self._left[self._of.home(shard)], shard)
                    self._first = min(self._first, shard)
            return
        if isinstance(parts[-1], Failure):
            raise parts[-1].error
        self._times.append((time.monotonic() - run.started) / len(parts))
        self._spent += self._times[-1]
        undone = self._undone(run)
        for shard, part in zip(run.shards, parts, strict=True):
            if shard in undone:
                self._parts[shard] = part
                self._of.moved(shard, run.worker)

    def _undone(self, run: _Run) -> list[int]:
        """The shards of a run whose parts nobody else brought."""
        return [s for s in run.shards if s >= self._next and s not in self._parts]

    def _begin(self) -> None:
        """Give every free worker some shards, if there are any for it.

        What no worker has for its own is looked through once, as there may be hundreds of them.
        """
        most = self._next + AHEAD * self._together() * len(self._pool.workers)
        spare: Iterator[list[int]] | None = None
        for worker in self._pool.free():
            own = self._left[worker]
            if own and own[0] < most:
                shards = self._own(own, most)
            else:
                spare = self._spare(most) if spare is None else spare
                shards = next(spare, [])
            if shards:
                run = _Run(worker, self._talk, self._number, tuple(shards), time.monotonic())
                self._pool.begin(run, self._of.call(shards, worker))

    def _spare(self, most: int) -> Iterator[list[int]]:
        """Yield what is left at the homes of others, then what is slow and runs once."""
        slow = self._slow()
        if self._of.keeps:  # only the home has what it needs, unless that is held up
            busy = self._pool.running.values()
            held = {run.worker for run in slow} | {r.worker for r in busy if not self._is_mine(r)}
            for left in (self._left[worker] for worker in sorted(held)):
                while left and left[0] < most:
                    yield [left.pop(0)]
        else:
            while self._first < min(most, self._count):
                left = self._left[self._of.home(self._first)]
                if left and left[0] == self._first:
                    yield [left.pop(0)]
                self._first += 1
        copies = Counter(shard for run in self._mine() for shard in run.shards) if slow else {}
        for run in slow:
            again = self._undone(run)
            if all(copies[one] == 1 for one in again):
                yield again

    def _own(self, left: list[int], most: int) -> list[int]:
        """Take shards from those left at a home, half of them at most where others may take some.

        One that a worker was lost with comes alone.
        """
        count = (
            TOGETHER
            if self._of.keeps
            else max(min(self._together(), len(left) // 2), self._enough() // 2, 1)
        )
        near = left[: bisect.bisect_left(left, most)][:count]
        if alone := [place for place, shard in enumerate(near) if self._of.alone(shard)]:
            near = near[: max(alone[0], 1)]
        del left[: len(near)]
        return near

    def _together(self) -> int:
        """How many shards a call names at most."""
        return min(max(TOGETHER, self._enough()), MANY)

    def _enough(self) -> int:
        """How many shards a call names at least, so that the leader has time for all workers."""
        if not self._times or self._of.keeps:
            return 1
        usual = self._spent / len(self._times)
        return int(min(PACE * len(self._pool.workers) / max(usual, 1e-9), MANY))

    def _slow(self) -> list[_Run]:
        """What takes far longer than others of this round did."""
        now = time.monotonic()
        if not self._times or now - self._began < LEAST:
            return []
        usual = SLOW * statistics.median(self._times)
        return [
            run for run in self._mine() if now - run.started > max(LEAST, usual * len(run.shards))
        ]

    def _may_be_slow(self) -> bool:
        """Whether a worker waits for nothing but a slow one."""
        return bool(self._pool.free())

    def _mine(self) -> list[_Run]:
        """What runs of this round."""
        return [run for run in self._pool.running.values() if self._is_mine(run)]

    def _is_mine(self, run: _Run) -> bool:
        return (run.talk, run.round) == (self._talk, self._number)
