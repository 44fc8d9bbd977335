"""What happens on a worker: the next round of some shards."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.engine.job import Course
from onnxprune.engine.parcels import Parcel, Receiver
from onnxprune.engine.running import HERE, using


@dataclass(frozen=True)
class Call:
    """The next round of some shards.

    `talk` numbers the talk; `shards` are what it gives, by number. `job` and `answers`, those of
    all rounds before, are numbers of parcels; `places` are those of parcels that the worker has not
    been told. `alive` are the numbers of all parcels that may still be asked for, `talks` those of
    the talks.
    """

    talk: int
    shards: Mapping[int, Any]
    job: int
    answers: tuple[int, ...]
    places: Mapping[int, Any]
    alive: frozenset[int]
    talks: frozenset[int]


@dataclass(frozen=True)
class Failure:
    """What a worker returns in place of a part, where the job raises."""

    error: Exception


class Worker:
    """Runs shards of jobs, one at a time; keeps what it was sent, and shards between rounds.

    A shard whose earlier rounds ran elsewhere runs again from the first: its job gives the same
    parts, and is given the same answers.
    """

    def __init__(self, fetch: Callable[[Any], Parcel]) -> None:
        self._received = Receiver(fetch)
        self._courses: dict[tuple[int, int], Course] = {}

    def step(self, call: Call) -> list[Any]:
        """Return the parts of the next round, in order; the last one may be how it failed."""
        parts: list[Any] = []
        try:
            with using(HERE):
                self._received.hear(call.places, call.alive)
                talks = call.talks
                self._courses = {key: one for key, one in self._courses.items() if key[0] in talks}
                parts.extend(self._step(call, shard) for shard in call.shards)
        except Exception as error:  # raised again where the part is asked for
            parts.append(Failure(_sendable(error)))
        return parts

    def _step(self, call: Call, shard: int) -> Any:
        key = call.talk, shard
        course = self._courses.get(key)
        if course is None or course.done != len(call.answers):
            course = Course(self._received.value(call.job), call.shards[shard])
            self._courses[key] = course
        given = [None] if not course.done else []
        answers = [self._received.value(one).value for one in self._left(call, course)]
        part = None
        for answer in (*given, *answers):
            part = course.next(answer)
        return part

    @staticmethod
    def _left(call: Call, course: Course) -> tuple[int, ...]:
        return call.answers[max(course.done - 1, 0) :]


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error may hold what cannot be sent
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
