"""The simulation of many workers against what can be said without one, and against two."""

import json

import pytest

from tests.benchmarks.scale import RECORDED
from tests.benchmarks.scale_simulation import Machine, Work, foretold, rows, simulate

EVEN = Work(shards=64, compute=2.0, call=0.0)


@pytest.mark.parametrize("workers", [1, 2, 8, 64])
def test_what_costs_the_leader_nothing_is_shared_evenly(workers: int) -> None:
    found = simulate(EVEN, workers)
    assert found.seconds == pytest.approx(128 / workers)
    assert found.bottleneck == "the workers"


def test_the_last_shard_is_waited_for() -> None:
    assert simulate(Work(shards=9, compute=1.0, call=0.0), 8).seconds == pytest.approx(2.0)


def test_a_leader_that_is_slow_sets_the_pace() -> None:
    found = simulate(Work(shards=64, compute=0.1, call=1.0, add=2.0), 8)
    assert found.seconds == pytest.approx(32 * 1.0 + 64 * 2.0, rel=0.05)  # 4, 2, 1 and 1 in a call
    assert found.bottleneck == "the leader"


def test_so_does_its_network() -> None:
    found = simulate(Work(shards=64, compute=0.1, call=0.0, received=3e9), 8, port=1e9)
    assert found.seconds == pytest.approx(64 * 3.0, rel=0.01)
    assert found.bottleneck == "the leader's network"


def test_every_worker_begins_once() -> None:
    found = simulate(Work(shards=64, compute=2.0, call=0.0, begin=5.0, end=1.0), 8)
    assert found.seconds == pytest.approx(5.0 + 16.0 + 1.0)


def test_two_workers_take_what_was_foretold_from_one() -> None:
    measured = json.loads(RECORDED.read_text())
    found = {name: told / took for name, told, took in foretold(measured)}
    assert found.keys() == {"relevance", "damage", "moments", "evaluation"}
    assert all(0.8 < one < 1.2 for one in found.values())


def test_results_had_the_same_bits_wherever_they_were_computed() -> None:
    for phase in json.loads(RECORDED.read_text())["phases"].values():
        runs = [phase["alone"], *phase["1"], *phase["2"]]
        assert len({run["bits"] for run in runs}) == 1


def test_the_page_says_what_is_projected() -> None:
    page = (RECORDED.parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    for name, gpus, found, share in rows(json.loads(RECORDED.read_text()), Machine()):
        line = f"| {name} | {gpus} | {found.seconds:.1f} | {share:.2f} | {found.bottleneck} |"
        assert line in page
