"""The engine that is in use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

from onnxprune.engine.here import Here
from onnxprune.engine.job import Job
from onnxprune.errors import check_name
from onnxprune.progress import track

PROCESS, RAY = "process", "ray"
ENGINES = (PROCESS, RAY)
"""In this process; on the workers of a ray cluster."""


class Talk(Protocol):
    """A job on its shards, round by round."""

    def ask(self, answer: Any = None) -> Iterator[Any]:
        """Yield the part of each shard, in the order of the shards.

        `answer` is what became of the parts of the round before. All parts are read before the next
        round is asked for.
        """
        ...

    def close(self) -> None:
        """Forget what is kept of the shards between rounds."""
        ...


class Engine(Protocol):
    """What runs jobs."""

    def talk(self, job: Job, shards: Sequence[Any]) -> Talk:
        """Begin a job."""
        ...


HERE: Engine = Here()

_engine: ContextVar[Engine] = ContextVar("engine", default=HERE)


def is_spread() -> bool:
    """Whether jobs run in other processes than this one."""
    return _engine.get() is not HERE


@contextmanager
def talk(job: Job, shards: Sequence[Any]) -> Iterator[Talk]:
    """Begin a job of several rounds on the engine in use."""
    found = (HERE if job.stays else _engine.get()).talk(job, shards)
    try:
        yield found
    finally:
        found.close()


def each(job: Job, shards: Sequence[Any], what: str = "") -> Iterator[Any]:
    """Yield what a job makes of each shard, in their order; `what` names it for progress."""
    with talk(job, shards) as begun:
        parts = begun.ask()
        yield from track(what, parts, len(shards)) if what else parts


@contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Run jobs on an engine until the block ends."""
    token = _engine.set(engine)
    try:
        yield
    finally:
        _engine.reset(token)


def use_engine(
    name: str = PROCESS,
    *,
    address: str | None = None,
    workers: int = 0,
    threads: int = 1,
    device: str = "auto",
) -> AbstractContextManager[None]:
    """Run jobs on the engine of a name until the block ends.

    `address` is that of a ray cluster, None for one that is started here; `workers` 0 are as many
    as it has room for, of so many `threads` each, and of a GPU where the `device` is one.
    Raises: UnknownName for another name; MissingPackage without ray; EngineFailed where there is no
    cluster at the address.
    """
    check_name("engine", name, ENGINES)
    if name == PROCESS:
        return nullcontext()
    from onnxprune.engine.cluster import on_cluster

    return on_cluster(address, workers, threads, device)
