"""Shards on threads of this process: the bits of one thread, and no more memory than is allowed."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.channels import find_groups
from onnxprune.data import Data, load_data
from onnxprune.engine import Job, each, here, on_threads, once, talk
from onnxprune.errors import DataError
from onnxprune.graph import Graph
from onnxprune.relevance import Meter, find_composite, one_thread, score
from tests.support.small_net import Small

PLENTY = 2**40


def nothing() -> None: ...


@dataclass(frozen=True, eq=False)
class Watched(Job):
    """Notes how many shards run at a time, and on which threads; shards end in another order."""

    size: int = 2**30
    fails: frozenset[int] = frozenset()

    @property
    def taken(self) -> int:
        return self.size

    @once
    def seen(self) -> dict[str, Any]:
        return {"now": 0, "most": 0, "threads": set(), "lock": threading.Lock(), "both": None}

    def run(self, shard: int) -> int:
        seen = self.seen
        with seen["lock"]:
            seen["now"] += 1
            seen["most"] = max(seen["most"], seen["now"])
            seen["threads"].add(threading.current_thread().name)
        if seen["both"] is not None and shard < seen["both"].parties:
            seen["both"].wait(20)  # nobody goes on before all are there
        with seen["lock"]:
            seen["now"] -= 1
        if shard in self.fails:
            raise DataError(f"shard {shard}: not wanted")
        return shard


def running(count: int, allowed: int, job: Watched, shards: int = 12) -> list[int]:
    with on_threads(count, allowed, nothing):
        return list(each(job, range(shards)))


@pytest.mark.parametrize("count", [2, 4])
def test_so_many_shards_run_at_a_time_and_parts_come_in_order(count: int) -> None:
    job = Watched()
    job.seen["both"] = threading.Barrier(count)
    assert running(count, PLENTY, job) == list(range(12))
    assert job.seen["most"] == count


def test_what_does_not_fit_into_memory_runs_one_after_the_other() -> None:
    job = Watched(size=3 * 2**20)
    assert running(4, 7 * 2**20, job) == list(range(12))
    assert job.seen["most"] <= 2
    job = Watched(size=3 * 2**20)
    assert running(4, 2**20, job) == list(range(12))
    assert job.seen["threads"] == {threading.current_thread().name}


def test_little_work_stays_on_one_thread() -> None:
    job = Watched(size=here.LITTLE)
    running(4, PLENTY, job)
    assert job.seen["threads"] == {threading.current_thread().name}


def test_without_threads_nothing_leaves_this_one() -> None:
    job = Watched()
    assert list(each(job, range(3))) == [0, 1, 2]
    assert running(1, PLENTY, job) == list(range(12))
    assert job.seen["threads"] == {threading.current_thread().name}


def test_within_threads_no_more_begin() -> None:
    job = Watched()
    with on_threads(2, PLENTY, nothing):
        assert running(8, PLENTY, job) == list(range(12))
    assert job.seen["most"] <= 2


def test_the_first_shard_that_fails_is_the_one_that_is_named() -> None:
    job = Watched(fails=frozenset({3, 5}))
    with on_threads(4, PLENTY, nothing), pytest.raises(DataError, match="shard 3: not wanted"):
        list(each(job, range(12)))
    assert job.seen["now"] == 0  # nothing runs on


def test_every_thread_begins_once() -> None:
    begun = list[str]()
    job = Watched()
    job.seen["both"] = threading.Barrier(3)
    with on_threads(3, PLENTY, lambda: begun.append(threading.current_thread().name)):
        list(each(job, range(9)))
    assert sorted(begun) == sorted(job.seen["threads"])
    assert len(begun) == 3


@dataclass(frozen=True, eq=False)
class Means(Job):
    taken = 2**30  # type: ignore[assignment]

    def run(self, shard: int) -> Generator[float, float, None]:
        mean = yield float(shard)
        yield (shard - mean) ** 2


def test_rounds_wait_for_all_shards() -> None:
    with on_threads(3, PLENTY, nothing), talk(Means(), range(8)) as begun:
        mean = sum(begun.ask()) / 8
        assert sum(begun.ask(mean)) / 8 == np.var(range(8))


def test_what_is_made_once_is_made_once() -> None:
    made = list[int]()
    both = threading.Barrier(4)

    class Holder:
        @once
        def value(self) -> int:
            made.append(len(made))
            return made[-1]

    one = Holder()

    def ask(_: int) -> int:
        both.wait(20)
        return one.value

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(ask, range(4))) == [0] * 4
    assert made == [0]


def samples(small: Small) -> Data:
    return load_data(small.data, shape=(1, 8, 8))


def bits(small: Small, what: str) -> Any:
    graph = Graph.load(small.path)
    groups, data = find_groups(graph), samples(small)
    if what == "relevance":
        return score(graph, groups, data, device="cpu", batch_size=3, threads=1).values.tobytes()
    if what == "damage":
        meter = Meter(graph, data, find_composite("epsilon"), device="cpu", batch_size=3)
        found = meter(graph, groups)
        return found.effects.tobytes(), found.slope.tobytes()
    options = {"control": "iterative", "compensate": what}
    result = onnxprune.prune(small.path, small.data, rate=0.4, batch_size=3, threads=1, **options)
    return result.model.SerializeToString()


@pytest.mark.parametrize("what", ["relevance", "damage", "least-squares", "bias"])
def test_any_number_of_threads_gives_the_same_bits(
    small: Small, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here, "LITTLE", 0)
    with one_thread():
        alone = bits(small, what)
    pools = list[int]()
    usual = here.ThreadPoolExecutor
    monkeypatch.setattr(
        here, "ThreadPoolExecutor", lambda n, *more: pools.append(n) or usual(n, *more)
    )
    for count in (2, 4):
        with one_thread(count):
            assert bits(small, what) == alone
        assert pools, "no thread was used"
        assert max(pools) == count
        pools.clear()


CALLED_ON = list[str]()


def mine(mirror: Any, x: Any, y: Any, tensors: Any) -> Any:
    CALLED_ON.append(threading.current_thread().name)
    found = mirror.trace(x)
    return {name: found[name].abs().flatten(2).sum(2) for name in tensors}


def test_a_users_function_is_called_in_turn(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here, "LITTLE", 0)
    graph = Graph.load(small.path)
    with one_thread(4):
        score(graph, find_groups(graph), samples(small), mine, device="cpu", batch_size=3)
    assert set(CALLED_ON) == {threading.current_thread().name}
