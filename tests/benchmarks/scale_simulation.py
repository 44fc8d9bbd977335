"""Project sums over samples to many machines, from what one worker was measured to take.

    python -m tests.benchmarks.scale_simulation [--measured scale.json] [--scored 400]

A discrete-event simulation of `onnxprune.engine.pool`: the leading process hands out calls of some
shards one after another, workers compute, parts come back through the leader's one network port and
are added in the order of the shards. What a call and a byte cost the leader, and what messages
weigh, is read from `scale.json`, which `tests.benchmarks.scale` writes. First it foretells the runs
on two workers from those on one, and says how far off it is. What GPUs compute, and networks carry,
is assumed: see `Machine`.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from onnxprune.engine.pool import AHEAD, MANY, PACE, TOGETHER
from onnxprune.relevance.batches import MOST
from tests.benchmarks.scale import RECORDED, quietest, seconds

IMAGENET, VALIDATION, CLASSES = 1_281_167, 50_000, 1000
FILTERS = 26_560
"""Of the convolutions of a ResNet50."""
SIZES = (8, 64, 512)
GOAL = 0.85


@dataclass(frozen=True)
class Machine:
    """What is assumed: nothing of this was measured here.

    A GPU explains `scored` images in a second and runs `judged`, reading them meanwhile. `port` is
    what the leader's network port carries, `model` what a worker is sent of a ResNet50, through
    ray's object store, which passes it on from machine to machine.
    Units: images/s, bytes/s, bytes.
    """

    scored: float = 400.0
    judged: float = 2500.0
    port: float = 1.25e9
    model: float = 1.02e8

    def begin(self, phase: Mapping[str, Any]) -> float:
        """Return what a worker takes before its first shard: the model comes, and is opened.

        Opening was measured on a smaller model, and is taken to grow with its bytes. Units: s.
        """
        return self.model * (opening(phase)[0] / quietest(phase["1"])["sent"] + 1 / self.port)


def opening(phase: Mapping[str, Any]) -> tuple[float, float]:
    """Return what one worker took before its first shard, and for each shard. Units: CPU s."""
    run = quietest(phase["1"])
    first, few, whole = run["call_cpu"][0], run["first_shards"], sum(run["worker_cpu"])
    each = (whole - first) / max(run["shards"] - few, 1)
    return max(first - few * each, 0.0), each


@dataclass(frozen=True)
class Work:
    """What a round of shards costs; where workers `keep` what they made, no other takes a shard.

    Units: compute, of a worker for a shard, and begin, before its first: s; call, of the leader for
    some shards, add, for a part, and end, after all: s; received: bytes of a part.
    """

    shards: int
    compute: float
    call: float
    add: float = 0.0
    received: float = 0.0
    begin: float = 0.0
    end: float = 0.0
    keep: bool = False


@dataclass(frozen=True)
class Found:
    """How long a round takes, and how long the leader, its port and each worker are busy for it.

    Units: s.
    """

    seconds: float
    leader: float
    port: float
    workers: tuple[float, ...]

    @property
    def bottleneck(self) -> str:
        """What is busy for the largest part of the time."""
        named = {
            "the workers": max(self.workers),
            "the leader": self.leader,
            "the leader's network": self.port,
        }
        return max(named, key=named.__getitem__)


def simulate(work: Work, workers: int, port: float = 1.25e9) -> Found:
    """Let workers share the shards of a round.

    The leader does one thing at a time: it hands out a call, or adds a part, when it is free.
    """
    clock = leader = line = led = carried = 0.0
    spent, begun = [0.0] * workers, [False] * workers
    free, running = list(range(workers))[::-1], dict[int, list[int]]()
    events: list[tuple[float, int, str, int]] = []  # when, in which order, what, which worker
    left = [deque(range(worker, work.shards, workers)) for worker in range(workers)]
    arrived: set[int] = set()
    first = taken = order = 0
    together, least = TOGETHER, 1
    enough = int(min(PACE * workers / max(work.compute, 1e-9), MANY))
    while taken < work.shards:
        if arrived and not work.keep:  # how long a shard takes is known
            together, least = max(enough, TOGETHER), max(enough // 2, 1)
        most, idle = taken + AHEAD * together * workers, []
        while free:
            worker = free.pop()
            own = left[worker]
            count = together if work.keep else max(min(together, len(own) // 2), least)
            given = [own.popleft() for _ in range(count) if own and own[0] < most]
            while not (given or work.keep) and first < min(most, work.shards):
                other = left[first % workers]
                given = [other.popleft()] if other and other[0] == first else []
                first += 1
            if not given:
                idle.append(worker)
                continue
            leader = max(leader, clock) + work.call
            led += work.call
            needed = len(given) * work.compute + (0.0 if begun[worker] else work.begin)
            begun[worker], running[worker] = True, given
            spent[worker] += needed
            order += 1
            heapq.heappush(events, (leader + needed, order, "computed", worker))
        free = idle[::-1]
        clock, _, what, worker = heapq.heappop(events)
        if what == "computed":
            took = len(running[worker]) * work.received / port
            line = max(line, clock) + took
            carried += took
            order += 1
            heapq.heappush(events, (line, order, "received", worker))
            continue
        arrived.update(running.pop(worker))
        free.append(worker)
        while taken in arrived:
            leader = max(leader, clock) + work.add
            led += work.add
            taken += 1
    return Found(max(leader, clock) + work.end, led + work.end, carried, tuple(spent))


def measured_work(
    phase: Mapping[str, Any], constants: Mapping[str, float], *, keep: bool = False
) -> tuple[Work, int]:
    """Return a round of a phase as one worker was measured to take it, and how many rounds.

    The shards of a phase with rounds are alike in each; what the leader does that is no call and no
    byte, such as solving, is shared by the rounds.
    """
    run = quietest(phase["1"])
    batches = -(-phase["samples"] // phase["batch"])
    rounds = max(round(run["shards"] / batches), 1)
    known = run["calls"] * constants["call"] + run["received"] * constants["byte"]
    begin, each = opening(phase)
    return Work(
        shards=batches,
        compute=each,
        call=constants["call"],
        add=constants["byte"] * run["received"] / run["shards"],
        received=0.0,  # between processes of one machine
        begin=begin / rounds,
        end=max(run["driver_cpu"] - known, 0.0) / rounds,
        keep=keep,
    ), rounds


def foretold(measured: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield each phase, and its CPU seconds on two workers as foretold and as measured.

    They are those of the busier worker and of the leader.
    """
    for name, phase in measured["phases"].items():
        work, rounds = measured_work(phase, measured["constants"], keep=name == "moments")
        found = simulate(work, 2)
        took = seconds(quietest(phase["2"]))
        yield name, rounds * (max(found.workers) + found.leader), took


def scoring(machine: Machine, measured: Mapping[str, Any], *, in_order: bool = True) -> Work:
    """Return the scoring of ImageNet: the sums of relevance for each class and filter.

    Images are taken in the order of their classes (`MANY`), so that a shard has two of these at
    most; as they come, it would have nearly as many as images.
    """
    constants, phase = measured["constants"], measured["phases"]["relevance"]
    batches = -(-IMAGENET // 32)
    images = 32 * -(-batches // MOST)
    rows = 2 if in_order else CLASSES * (1 - (1 - 1 / CLASSES) ** images)
    part = rows * FILTERS * 8.0
    shards, add = -(-IMAGENET // images), part * constants["byte"]
    compute = images / machine.scored
    return Work(shards, compute, constants["call"], add, part, machine.begin(phase))


def validation(
    machine: Machine, measured: Mapping[str, Any], *, first: bool, images: int = VALIDATION
) -> Work:
    """Return a run over the validation images of ImageNet, or more: three sums for each class.

    Unless it is the first of a model, the workers have opened it.
    """
    constants, batch = measured["constants"], 64
    begin = machine.begin(measured["phases"]["evaluation"]) if first else 0.0
    part = 3 * CLASSES * 8.0
    shards, add = -(-images // batch), part * constants["byte"]
    return Work(shards, batch / machine.judged, constants["call"], add, part, begin)


def curves(machine: Machine, measured: Mapping[str, Any], points: int = 20) -> Work:
    """Return `curve` for 512 pairs of a method and a seed, each of them on one worker.

    Every point is a new model, which that worker opens.
    """
    one = validation(machine, measured, first=True)
    each = points * (one.shards * one.compute + one.begin)
    return Work(SIZES[-1], each, one.call, received=points * 8.0 * 2)


def rows(measured: Mapping[str, Any], machine: Machine) -> Iterator[tuple[str, int, Found, float]]:
    """Yield what is projected, to how many GPUs, what comes out, and the share of linear."""
    works = {
        "scoring": scoring(machine, measured),
        "scoring, images as they come": scoring(machine, measured, in_order=False),
        "validation, of a new model": validation(machine, measured, first=True),
        "validation, of one that is open": validation(machine, measured, first=False),
        "a run over all training images, of a new model": validation(
            machine, measured, first=True, images=IMAGENET
        ),
        "512 curves of 20 validations": curves(machine, measured),
    }
    for name, work in works.items():
        linear = work.shards * work.compute
        for gpus in SIZES:
            found = simulate(work, gpus, machine.port)
            yield name, gpus, found, linear / gpus / found.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measured", type=Path, default=RECORDED)
    parser.add_argument("--scored", type=float, default=Machine.scored)
    parser.add_argument("--judged", type=float, default=Machine.judged)
    parser.add_argument("--port", type=float, default=Machine.port)
    asked = parser.parse_args()
    measured = json.loads(asked.measured.read_text())
    print("| phase | foretold | measured | off |\n|---|---|---|---|")
    offs = []
    for name, told, took in foretold(measured):
        offs.append(abs(told / took - 1))
        print(f"| {name} | {told:.1f} s | {took:.1f} s | {100 * (told / took - 1):+.0f} % |")
    print(f"\nOff by {100 * fmean(offs):.0f} % in the mean.\n")
    print("| what | GPUs | seconds | of linear | busiest |\n|---|---|---|---|---|")
    machine = Machine(asked.scored, asked.judged, asked.port)
    for name, gpus, found, share in rows(measured, machine):
        print(f"| {name} | {gpus} | {found.seconds:.1f} | {share:.2f} | {found.bottleneck} |")


if __name__ == "__main__":
    main()
