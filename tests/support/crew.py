"""A crew without a cluster: calls run here, in any order, and workers die when they are told to."""

import itertools
import pickle
import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from onnxprune.engine import using
from onnxprune.engine.parcels import Parcel
from onnxprune.engine.pool import Lost, Pool
from onnxprune.engine.worker import Call, Worker

Fate = Callable[[Call], bool]
"""Whether the worker of a call dies of it."""


MOST = 20_000
"""Waits of a crew; what takes more will never end."""


def never(_: Call) -> bool:
    return False


class SimulatedCrew:
    """Runs one call at a time, the next one by chance; `held` are tickets that are never done.

    `hired` counts workers, `calls` holds what was run, and `by` on which of them.
    """

    pickler = pickle.Pickler

    def __init__(self, size: int = 2, *, seed: int = 0, dies: Fate = never) -> None:
        self.size, self.dies = size, dies
        self.hired = 0
        self.calls: list[Call] = []
        self.by: list[Worker] = []
        self.waits = 0
        self.parcels: list[Parcel] = []
        self.held: set[int] = set()
        self._random = random.Random(seed)
        self._tickets = itertools.count()
        self._given: dict[int, tuple[Worker, Call]] = {}
        self._done: dict[int, Any] = {}

    def put(self, parcel: Parcel) -> Parcel:
        self.parcels.append(parcel)
        return parcel

    def hire(self) -> Worker:
        self.hired += 1
        return Worker(lambda parcel: parcel)

    def give(self, worker: Worker, call: Call) -> int:
        ticket = next(self._tickets)
        self._given[ticket] = worker, pickle.loads(pickle.dumps(call))
        return ticket

    def wait(self, tickets: Collection[int], seconds: float | None) -> list[int]:
        self.waits += 1
        assert self.waits < MOST, "waits for ever"
        able = [ticket for ticket in tickets if ticket not in self.held]
        if not able:
            assert seconds is not None, "waits for ever"
            return []
        ticket = self._random.choice(able)
        worker, call = self._given.pop(ticket)
        self.calls.append(call)
        self.by.append(worker)
        self._done[ticket] = Lost("killed") if self.dies(call) else worker.step(call)
        return [ticket]

    def result(self, ticket: int) -> Any:
        found = self._done.pop(ticket)
        if isinstance(found, Lost):
            raise found
        return pickle.loads(pickle.dumps(found))


@contextmanager
def on_crew(crew: SimulatedCrew) -> Iterator[SimulatedCrew]:
    """Run jobs on a crew until the block ends."""
    with using(Pool(crew)):
        yield crew


def once(wanted: Fate) -> Fate:
    """Say yes to the first call that is wanted, no more."""
    left = [True]

    def dies(call: Call) -> bool:
        if left[0] and wanted(call):
            left[0] = False
            return True
        return False

    return dies
