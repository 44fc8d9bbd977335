"""Shards on workers: the order of their parts, deaths, slow ones, and what is sent."""

import gc
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.engine import Job, Portable, each, pool, talk
from onnxprune.engine.worker import Call
from onnxprune.errors import DataError, EngineFailed
from tests.support.crew import SimulatedCrew, never, on_crew, once


@dataclass(frozen=True, eq=False)
class Numbers(Portable):
    values: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Total(Job):
    """The sum of some numbers."""

    numbers: Numbers

    def run(self, shard: slice) -> float:
        return float(self.numbers.values[shard].sum())


@dataclass(frozen=True, eq=False)
class Spread(Job):
    """The sums, then the squares around a mean, then around the root of their mean."""

    numbers: Numbers

    def run(self, shard: slice) -> Generator[float, float, None]:
        own = self.numbers.values[shard]
        mean = yield float(own.sum())
        root = yield float(((own - mean) ** 2).sum())
        yield float(((own - root) ** 2).sum())


@dataclass(frozen=True, eq=False)
class Refuses(Job):
    def run(self, shard: int) -> int:
        if shard == 3:
            raise DataError("three: not wanted")
        return shard


NUMBERS = Numbers(np.random.default_rng(0).normal(size=40))
SHARDS = [slice(k, k + 4) for k in range(0, 40, 4)]


def spread() -> list[float]:
    """What the rounds of `Spread` end in, on the engine in use."""
    with talk(Spread(NUMBERS), SHARDS) as rounds:
        mean = sum(rounds.ask()) / 40
        root = (sum(rounds.ask(mean)) / 40) ** 0.5
        return list(rounds.ask(root))


def of_round(number: int) -> Any:
    return once(lambda call: len(call.answers) == number and call.shard == 5)


def test_parts_come_in_the_order_of_the_shards() -> None:
    expected = [float(NUMBERS.values[shard].sum()) for shard in SHARDS]
    assert list(each(Total(NUMBERS), SHARDS)) == expected
    with on_crew(SimulatedCrew(3, seed=1)) as crew:
        assert list(each(Total(NUMBERS), SHARDS)) == expected
    order = [call.shard for call in crew.calls]
    assert order != sorted(order)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.sets(st.integers(0, 40), max_size=6))
def test_rounds_end_alike_whoever_dies(size: int, seed: int, deaths: set[int]) -> None:
    """A worker dies of the calls whose numbers are drawn, but a shard only of one."""
    expected, dead = spread(), set[int]()

    def dies(call: Call) -> bool:
        if len(crew.calls) in deaths and call.shard not in dead:
            dead.add(call.shard)
            return True
        return False

    with on_crew(SimulatedCrew(size, seed=seed, dies=dies)) as crew:
        assert spread() == expected
    assert crew.hired == size + len(dead)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_runs_again_from_its_first_round(number: int) -> None:
    expected = spread()
    with on_crew(SimulatedCrew(dies=of_round(number))) as crew:
        assert spread() == expected
    runs = Counter((call.shard, len(call.answers)) for call in crew.calls)
    assert runs[5, number] == 2 and sum(runs.values()) == 31 and crew.hired == 3


def test_a_shard_that_every_worker_dies_of_ends_the_run() -> None:
    crew = SimulatedCrew(dies=lambda call: call.shard == 2)
    with on_crew(crew), pytest.raises(EngineFailed, match="3 workers died on shard 2 of 10"):
        list(each(Total(NUMBERS), SHARDS))


def test_a_slow_shard_runs_twice_and_the_first_result_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "LEAST", 0.0)
    monkeypatch.setattr(pool, "SLOW", 0.0)
    expected = spread()
    crew = SimulatedCrew(2)
    crew.held.add(1)  # the second call is never done
    with on_crew(crew):
        assert spread() == expected
    assert crew.hired == 2 and max(Counter(call.shard for call in crew.calls).values()) == 3


def test_what_is_done_twice_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LEAST", 0.0)
    monkeypatch.setattr(pool, "SLOW", 0.0)
    with on_crew(SimulatedCrew(4, seed=2)) as crew:
        assert list(each(Total(NUMBERS), SHARDS)) == list(each(Total(NUMBERS), SHARDS))
    assert len(crew.calls) > 20


def test_what_a_job_raises_is_raised_where_it_is_asked_for() -> None:
    with on_crew(SimulatedCrew()), pytest.raises(DataError, match="three: not wanted"):
        list(each(Refuses(), range(5)))


def test_a_value_is_sent_once_and_forgotten_with_its_owner() -> None:
    numbers = Numbers(np.zeros(1000))
    with on_crew(SimulatedCrew(2)) as crew:
        for _ in range(3):
            list(each(Total(numbers), SHARDS))
        sizes = [sum(array.nbytes for array in parcel.arrays) for parcel in crew.parcels]
        assert sorted(sizes) == [0, 0, 0, 8000]
        del numbers
        gc.collect()
        list(each(Total(NUMBERS), SHARDS))
        assert len(crew.calls[-1].alive) == 2


def test_what_a_value_remembers_stays_behind() -> None:
    @dataclass(frozen=True, eq=False)
    class Held(Portable):
        number: int

    held = Held(1)
    object.__setattr__(held, "remembered", 2)
    assert held.__getstate__() == {"number": 1}


def test_a_job_that_cannot_leave_runs_here() -> None:
    class Stays(Total):
        stays = True

    with on_crew(SimulatedCrew()) as crew:
        list(each(Stays(NUMBERS), SHARDS))
    assert not crew.calls


def test_parts_are_taken_up_while_others_run() -> None:
    """So that no more are held than the workers are ahead."""
    with on_crew(SimulatedCrew(2, dies=never)) as crew:
        parts: Iterator[float] = each(Total(NUMBERS), [*SHARDS, *SHARDS, *SHARDS])
        next(parts)
        assert len(crew.calls) < 2 + pool.AHEAD * 2
