"""Jobs: what is computed on each shard of the samples."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import fields
from functools import cached_property
from threading import RLock
from typing import Any, TypeVar

Value = TypeVar("Value")


class once(cached_property[Value]):  # noqa: N801  # as the property that it is
    """A cached property that is made once, where several threads ask for it as well."""

    def __init__(self, make: Callable[[Any], Value]) -> None:
        super().__init__(make)
        self._making = RLock()

    def __get__(  # type: ignore[override]
        self, instance: Any, owner: type[Any] | None = None
    ) -> Value:
        with self._making:
            return super().__get__(instance, owner)  # type: ignore[no-any-return]


class Portable:
    """A dataclass that is sent to a worker once, however many jobs hold it.

    Only its fields are sent: what it remembers beside them, each worker makes for itself.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]


class Job(Portable):
    """Work that is the same on every shard; its result depends on the fields and the shard only."""

    @property
    def stays(self) -> bool:
        """Whether it cannot leave this process."""
        return False

    @property
    def keeps(self) -> bool:
        """Whether a worker keeps what it made of a shard, so that no other one should take it."""
        return False

    @property
    def taken(self) -> int | None:
        """How many bytes a shard takes while it runs; None where no two may run at a time."""
        return None

    def soon(self, shard: Any) -> None:
        """Begin to read, on a thread, what a shard needs that will run after another one."""

    def run(self, shard: Any) -> Any:
        """Return the part of one shard.

        A generator works in rounds: each value it yields is a part, and what is made of the parts
        of all shards comes back as the value of its `yield`.
        """
        raise NotImplementedError


class Course:
    """The work on one shard, round by round."""

    def __init__(self, job: Job, shard: Any) -> None:
        self._job, self._shard = job, shard
        self._rounds: Generator[Any, Any, None] | None = None
        self.done = 0

    def soon(self) -> None:
        """Begin to read what the first round needs."""
        if not self.done:
            self._job.soon(self._shard)

    def next(self, answer: Any = None) -> Any:
        """Return the part of the next round; `answer` is what became of the parts of the last."""
        self.done += 1
        if self._rounds is not None:
            return self._rounds.send(answer)
        found = self._job.run(self._shard)
        if not isinstance(found, Generator):
            return found
        self._rounds = found
        return next(found)
