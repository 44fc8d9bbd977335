"""Shards on workers: the order of their parts, deaths, slow ones, and what is sent."""

import gc
import time
from collections import Counter
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from onnxprune.engine import Job, Portable, each, pool, talk
from onnxprune.engine.worker import Call
from onnxprune.errors import DataError, EngineFailed
from tests.support.crew import SimulatedCrew, on_crew, once
from tests.support.models import model


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
    """The sums, then the squares around a mean, then around their root, which needs all before."""

    numbers: Numbers

    def run(self, shard: slice) -> Generator[float, float, None]:
        own = self.numbers.values[shard]
        mean = yield float(own.sum())
        root = yield float(((own - mean) ** 2).sum())
        yield float(((own - root) ** 2).sum()) + mean


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


def runs_of(crew: SimulatedCrew) -> Counter[tuple[int, int]]:
    """How often each round of each shard was asked for."""
    return Counter((shard, len(call.answers)) for call in crew.calls for shard in call.shards)


def of_round(number: int) -> Any:
    return once(lambda call: len(call.answers) == number and 5 in call.shards)


def test_parts_come_in_the_order_of_the_shards() -> None:
    expected = [float(NUMBERS.values[shard].sum()) for shard in SHARDS]
    assert list(each(Total(NUMBERS), SHARDS)) == expected
    with on_crew(SimulatedCrew(3, seed=1)) as crew:
        assert list(each(Total(NUMBERS), SHARDS)) == expected
    order = [shard for call in crew.calls for shard in call.shards]
    assert order != sorted(order)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(0, 1000), st.sets(st.integers(0, 40), max_size=6))
def test_rounds_end_alike_whoever_dies(size: int, seed: int, deaths: set[int]) -> None:
    """A worker dies of the calls whose numbers are drawn, but a shard only of one."""
    expected, dead = spread(), set[int]()

    def dies(call: Call) -> bool:
        if len(crew.calls) in deaths and dead.isdisjoint(call.shards):
            dead.update(call.shards)
            died.append(call)
            return True
        return False

    died: list[Call] = []
    with on_crew(SimulatedCrew(size, seed=seed, dies=dies)) as crew:
        assert spread() == expected
    assert crew.hired == size + len(died)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_shard_runs_again_from_its_first_round(number: int) -> None:
    expected = spread()
    with on_crew(SimulatedCrew(dies=of_round(number))) as crew:
        assert spread() == expected
    runs = runs_of(crew)
    again = [shard for (shard, n), count in runs.items() if count == 2 and n == number]
    assert 5 in again and sum(runs.values()) == 30 + len(again) and crew.hired == 3


def test_a_shard_that_every_worker_dies_of_ends_the_run() -> None:
    crew = SimulatedCrew(dies=lambda call: 2 in call.shards)
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
    assert crew.hired == 2 and sum(runs_of(crew).values()) == 30  # without the one that is held


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
        assert crew.by[-1]._received._held.keys() <= crew.calls[-1].alive


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


def test_parts_are_taken_up_while_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no more are held than the workers are ahead."""

    class FirstIsLast(SimulatedCrew):
        def wait(self, tickets: Collection[int], seconds: float | None) -> list[int]:
            return super().wait([one for one in tickets if one] or tickets, seconds)

    monkeypatch.setattr(pool, "PACE", 0.0)
    with on_crew(FirstIsLast(2)) as crew:
        parts: Iterator[float] = each(Total(NUMBERS), SHARDS * 6)
        next(parts)
        assert sum(runs_of(crew).values()) <= pool.AHEAD * pool.TOGETHER * 2


def test_calls_are_few_and_fewer_shards_come_together_towards_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool, "PACE", 0.0)
    with on_crew(SimulatedCrew(2)) as crew:
        list(each(Total(NUMBERS), SHARDS * 4))
    sizes = [len(call.shards) for call in crew.calls]
    assert max(sizes) == pool.TOGETHER and sizes[-1] == 1 and len(sizes) < 20


def test_calls_name_more_where_many_workers_would_keep_the_leader_busy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = list(each(Total(NUMBERS), SHARDS * 20))
    monkeypatch.setattr(pool, "PACE", 1e6)  # as if there were very many workers
    with on_crew(SimulatedCrew(2)) as crew:
        assert list(each(Total(NUMBERS), SHARDS * 20)) == expected
    sizes = [len(call.shards) for call in crew.calls]
    assert sizes[0] == pool.TOGETHER and max(sizes) == pool.MANY


def test_later_rounds_take_a_call_for_each_worker() -> None:
    with on_crew(SimulatedCrew(3)) as crew:
        spread()
    calls = Counter(len(call.answers) for call in crew.calls)
    assert calls[1] == calls[2] == 3 and sum(runs_of(crew).values()) == 30


@dataclass(frozen=True, eq=False)
class Kept(Total):
    keeps = True  # type: ignore[assignment]


def test_a_shard_stays_where_it_is_kept() -> None:
    """Whoever is done first: another worker would have to make anew what its home has."""
    with on_crew(SimulatedCrew(2, seed=4)) as crew:
        for _ in range(3):
            list(each(Kept(NUMBERS), SHARDS))
    pairs = zip(crew.by, crew.calls, strict=True)
    assert len({(id(worker), shard % 2) for worker, call in pairs for shard in call.shards}) == 2


def test_a_worker_is_told_once_where_a_parcel_is() -> None:
    with on_crew(SimulatedCrew(2, dies=of_round(1))) as crew:
        spread()
    places = Counter(number for call in crew.calls for number in call.places)
    assert max(places.values()) <= 3  # two workers, and the one that takes a dead one's place
    assert len(crew.calls[-1].places) <= 1


def test_a_shard_that_dies_of_itself_does_not_blame_the_others() -> None:
    """After a loss each shard of the call runs alone."""
    crew = SimulatedCrew(1, dies=lambda call: 4 in call.shards)
    with on_crew(crew), pytest.raises(EngineFailed, match="died on shard 4 of 10"):
        list(each(Total(NUMBERS), SHARDS))
    assert crew.hired == 4


@dataclass(frozen=True, eq=False)
class Holds(Job):
    """A model on a worker, as it was sent."""

    model: ModelProto

    def run(self, shard: int) -> bytes:
        return self.model.SerializeToString()


def test_the_bytes_of_a_model_are_no_part_of_what_is_pickled() -> None:
    """An object store hands them to every worker of a machine without a copy."""
    held = model("m (float[1,1000] x) => (float[1,1000] y) <float[1000] w> { y = Add(x, w) }")
    with on_crew(SimulatedCrew(2)) as crew:
        assert set(each(Holds(held), range(3))) == {held.SerializeToString()}
    (parcel,) = crew.parcels
    assert len(parcel.content) < 1000 < sum(array.nbytes for array in parcel.arrays)


class Instant(SimulatedCrew):
    """Returns at once, in the order in which it was asked."""

    def hire(self) -> Any:
        return object()

    def give(self, worker: Any, call: Call) -> int:
        ticket = next(self._tickets)
        self.calls.append(call)
        self._done[ticket] = list(call.shards)
        return ticket

    def wait(self, tickets: Collection[int], seconds: float | None) -> list[int]:
        return [next(iter(tickets))]


def seconds_of_a_call(workers: int) -> float:
    with on_crew(Instant(workers)) as crew:
        started = time.process_time()
        assert list(each(Total(NUMBERS), range(8 * workers))) == list(range(8 * workers))
        return (time.process_time() - started) / len(crew.calls)


def test_a_call_costs_the_leader_the_same_on_many_workers() -> None:
    """Looking at every worker with every event cost 512 of them 2 ms a call."""
    assert seconds_of_a_call(512) < 8 * min(seconds_of_a_call(32) for _ in range(3))
