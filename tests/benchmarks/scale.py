"""Measure sums over samples on one and on two workers of ray, each of one thread.

    python -m tests.benchmarks.scale [--only PHASE ...] [--samples 96] [--size 32] [-o scale.json]
    python -m tests.benchmarks.scale --threads 1 2 4     on threads of this process, without ray

The network is a VGG16 with random weights. Each phase (relevance, damage, moments of least squares,
evaluation) runs in this process, on one worker and on two, and its result must have the same bits.
Other programs that run on the machine stretch the time on the clock, so CPU seconds are told as
well: of this process, and of each worker. The speed-up by them supposes that nothing overlaps: one
worker's seconds plus those of this process, over the busier one's of two plus those of this
process; of several runs, that which took the least. `tests.benchmarks.scale_simulation` reads what
is written.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from onnx import ModelProto, helper, numpy_helper

from onnxprune.channels import find_groups
from onnxprune.compensate import compensator
from onnxprune.data import Data
from onnxprune.engine import Job, using
from onnxprune.engine import each as each_of
from onnxprune.engine import pool as engine_pool
from onnxprune.engine.cluster import RayCrew
from onnxprune.engine.job import Course
from onnxprune.engine.pool import Pool
from onnxprune.evaluation import Evaluator
from onnxprune.graph import Graph
from onnxprune.relevance import Meter, find_composite, one_thread, score
from onnxprune.surgery import remove_channels

WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
"""The convolutions of a VGG16; 0 is a pool."""
CLASSES = 10
PHASES = ("relevance", "damage", "moments", "evaluation")
RECORDED = Path(__file__).with_name("scale.json")


def vgg16(seed: int = 0) -> ModelProto:
    """Return a VGG16 of 13 convolutions and a dense layer, with random weights."""
    rng = np.random.default_rng(seed)
    nodes, weights, signal, channels = [], [], "x", 3

    def weight(name: str, *shape: int) -> str:
        spread = np.sqrt(2 / np.prod(shape[1:]))
        values = (rng.normal(size=shape) * spread).astype(np.float32)
        weights.append(numpy_helper.from_array(values, name))
        return name

    for number, width in enumerate(WIDTHS):
        if not width:
            made = helper.make_node(
                "MaxPool", [signal], [f"pool{number}"], kernel_shape=[2, 2], strides=[2, 2]
            )
            nodes.append(made)
            signal = made.output[0]
            continue
        kernel = weight(f"w{number}", width, channels, 3, 3)
        weights.append(numpy_helper.from_array(np.zeros(width, np.float32), f"b{number}"))
        inputs = [signal, kernel, f"b{number}"]
        nodes.append(helper.make_node("Conv", inputs, [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        signal, channels = f"r{number}", width
    nodes.append(helper.make_node("GlobalAveragePool", [signal], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"]))
    dense = weight("dense", CLASSES, channels)
    weights.append(numpy_helper.from_array(np.zeros(CLASSES, np.float32), "bias"))
    nodes.append(helper.make_node("Gemm", ["flat", dense, "bias"], ["y"], transB=1))
    x = helper.make_tensor_value_info("x", 1, ["N", 3, "H", "W"])
    y = helper.make_tensor_value_info("y", 1, ["N", CLASSES])
    graph = helper.make_graph(nodes, "vgg16", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def samples(count: int, size: int) -> Data:
    """Return random images and labels."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(count, 3, size, size)).astype(np.float32)
    return Data(x, np.arange(count) % CLASSES, tuple(map(str, range(CLASSES))))


@dataclass
class Counted:
    """What a crew was asked for: messages, their bytes, and what each call took.

    `shards` are how many each call named.
    Units: bytes; seconds on the clock, and of the workers' CPU.
    """

    calls: int = 0
    shards: list[int] = field(default_factory=list)
    sent: int = 0
    given: int = 0
    received: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


class CountingCrew(RayCrew):
    """Actors of ray whose messages are counted."""

    def __init__(self, ray: Any, workers: int) -> None:
        super().__init__(ray, workers, 1, "cpu")
        self.counted = Counted()
        self.counting = True
        self.pids: list[int] = []
        self._begun: dict[Any, float] = {}
        self._spent = 0.0

    def put(self, parcel: Any) -> Any:
        self.counted.sent += len(parcel.content) + sum(array.nbytes for array in parcel.arrays)
        return super().put(parcel)

    def hire(self) -> Any:
        worker = super().hire()
        self.pids.append(self._ray.get(worker.pid.remote()))
        return worker

    def give(self, worker: Any, call: Any) -> Any:
        self.counted.calls += 1
        self.counted.shards.append(len(call.shards))
        self.counted.given += len(pickle.dumps(call.shards))
        ticket = super().give(worker, call)
        self._begun[ticket] = time.perf_counter()
        return ticket

    def result(self, ticket: Any) -> Any:
        self.counted.seconds.append(time.perf_counter() - self._begun.pop(ticket))
        part = super().result(ticket)
        if not self.counting:
            return part
        self.counted.received += size_of(part)
        spent = sum(self.cpu())
        self.counted.cpu.append(spent - self._spent)
        self._spent = spent
        return part

    def cpu(self) -> list[float]:
        """Return the CPU seconds of each worker."""
        return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in self.pids]  # all must live


def size_of(part: Any) -> int:
    """Return the bytes of the arrays in a part, about."""
    if isinstance(part, np.ndarray):
        return part.nbytes
    if isinstance(part, Mapping):
        return sum(map(size_of, part.values()))
    if isinstance(part, list | tuple):
        return sum(map(size_of, part))
    return sum(map(size_of, vars(part).values())) if hasattr(part, "__dict__") else 8


Phase = Callable[[], Any]


def phases(count: int, size: int, batch: int) -> dict[str, Phase]:
    """Return what is measured, by name; each returns something that shows its bits."""
    model = vgg16()
    graph = Graph(model, input_shapes={"x": (1, 3, size, size)})
    groups = find_groups(graph)
    data = samples(count, size)
    dead = np.zeros(len(groups), np.bool_)
    dead[np.random.default_rng(2).permutation(len(groups))[: len(groups) // 3]] = True
    dead &= groups.removable
    pruned = remove_channels(graph, groups, dead)
    composite = find_composite("epsilon")
    judge = Evaluator(data, device="cpu", threads=1, batch_size=batch)

    def moments() -> bytes:
        correct = compensator(graph, groups, data, "least-squares", device="cpu", batch_size=batch)
        assert correct is not None
        return correct(pruned, dead).SerializeToString(deterministic=True)

    def damage() -> Any:
        found = Meter(graph, data, composite, device="cpu", batch_size=batch)(graph, groups)
        return found.effects.tobytes(), found.slope.tobytes()

    return {
        "relevance": lambda: score(
            graph, groups, data, "lrp", device="cpu", batch_size=batch
        ).values.tobytes(),
        "damage": damage,
        "moments": moments,
        "evaluation": lambda: judge(model).counts(),
    }


def digest(found: Any) -> str:
    return hashlib.sha256(pickle.dumps(found)).hexdigest()[:16]


@contextmanager
def crew(workers: int) -> Iterator[CountingCrew]:
    """Start workers, and stop them."""
    import ray

    made = CountingCrew(ray, workers)
    pool = Pool(made)
    with using(pool):
        yield made
    for worker in pool.workers:
        ray.kill(worker)


def measure(phase: Phase, made: CountingCrew) -> dict[str, Any]:
    """Run a phase and return what it took."""
    made.counted, made._spent = Counted(), sum(made.cpu())
    before, cpu, started = made.cpu(), time.process_time(), time.perf_counter()
    bits = digest(phase())
    wall, own = time.perf_counter() - started, time.process_time() - cpu
    spent = [now - then for now, then in zip(made.cpu(), before, strict=True)]
    counted = made.counted
    return {
        "bits": bits,
        "wall": round(wall, 3),
        "driver_cpu": round(own, 3),
        "worker_cpu": [round(one, 3) for one in spent],
        "calls": counted.calls,
        "shards": sum(counted.shards),
        "first_shards": counted.shards[0],
        "call_seconds": round(median(counted.seconds), 4),
        "call_cpu": [round(one, 2) for one in counted.cpu[:40]],
        **{name: getattr(counted, name) for name in ("sent", "given", "received")},
    }


@dataclass(frozen=True, eq=False)
class Nothing(Job):
    """What a call costs by itself."""

    def run(self, shard: int) -> int:
        return shard


def constants(made_by: CountingCrew, shards: int = 2000, parts: int = 6) -> dict[str, float]:
    """Return what a call of empty shards, and a byte that is fetched and added, cost this process.

    Units: CPU s.
    """
    import ray

    each = np.zeros(2_000_000)
    list(each_of(Nothing(), range(10)))
    made_by.counted = Counted()
    made_by.counting = False
    kept, engine_pool.PACE = engine_pool.PACE, 0.0  # as many shards in a call as usual
    before = time.process_time()
    list(each_of(Nothing(), range(shards)))
    call = (time.process_time() - before) / made_by.counted.calls
    engine_pool.PACE, made_by.counting = kept, True
    made = ray.remote(num_cpus=0)(np.ones)
    total = each + ray.get(made.remote(len(each)))
    before = time.process_time()
    for _ in range(parts):
        total += ray.get(made.remote(len(each)))
    byte = (time.process_time() - before - parts * call) / (parts * each.nbytes)
    return {"call": round(call, 6), "byte": float(f"{byte:.3g}")}


def seconds(run: Mapping[str, Any]) -> float:
    """Return what the leader and the busier worker took. Units: CPU s."""
    return run["driver_cpu"] + max(run["worker_cpu"])  # type: ignore[no-any-return]


def quietest(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run that took the least CPU seconds: other programs only add to them."""
    return min(runs, key=seconds)


def on_threads(known: Mapping[str, Phase], counts: list[int]) -> None:
    """Run phases on threads of this process, and print CPU seconds: of the busiest thread and,
    outside of shards, of the main one. Bits must be the same."""
    print("| phase | threads | CPU s | busiest thread | main | speed-up | s |\n" + "|---" * 7 + "|")
    spent: Counter[str] = Counter()
    usual = Course.next

    def timed(course: Course, answer: Any = None) -> Any:
        before = time.thread_time()
        try:
            return usual(course, answer)
        finally:
            spent[threading.current_thread().name] += time.thread_time() - before

    Course.next = timed  # type: ignore[method-assign]
    for name, phase in known.items():
        usual_bits, alone = "", 0.0
        for count in counts:
            spent.clear()
            started, cpu, main = time.perf_counter(), time.process_time(), time.thread_time()
            with one_thread(count):
                bits = digest(phase())
            usual_bits = usual_bits or bits
            assert bits == usual_bits, name
            wall, whole = time.perf_counter() - started, time.process_time() - cpu
            own = time.thread_time() - main
            spent.pop("MainThread", None)  # those are in its own seconds
            busiest = max(spent.values(), default=0.0)
            alone = alone or whole
            taken = (busiest, own, alone / (busiest + own)) if count > 1 else (whole, 0.0, 1.0)
            row = (f"{whole:.1f}", *(f"{one:.2f}" for one in taken), f"{wall:.1f}")
            print("|", " | ".join((name, str(count), *row)), "|", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=list(PHASES), choices=PHASES)
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", nargs="+", type=int)
    parser.add_argument("-o", "--output", type=Path, default=RECORDED)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    known = phases(asked.samples, asked.size, asked.batch)
    if asked.threads:
        phases(2, 16, 1)["relevance"]()  # what torch starts once
        on_threads({name: known[name] for name in asked.only}, asked.threads)
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    few = phases(2 * asked.batch, 16, asked.batch)
    made_of = {name: known[name] for name in asked.only}
    found = json.loads(asked.output.read_text()) if asked.output.exists() else {"phases": {}}
    for name, phase in made_of.items():
        cpu, started = time.process_time(), time.perf_counter()
        bits = digest(phase())
        wall, own = time.perf_counter() - started, time.process_time() - cpu
        alone = {"bits": bits, "wall": round(wall, 3), "driver_cpu": round(own, 3)}
        what = {"samples": asked.samples, "size": asked.size, "batch": asked.batch}
        found["phases"][name] = {**what, "alone": alone}
        print(f"{name:<12} alone    {own:6.1f} CPU s", flush=True)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    for _ in range(asked.repeats):
        for workers in (1, 2):
            with crew(workers) as made:
                for name in ("relevance", "evaluation"):  # what workers start once: torch
                    few[name]()
                for name, phase in made_of.items():
                    gc.collect()
                    taken = measure(phase, made)
                    assert taken["bits"] == found["phases"][name]["alone"]["bits"], name
                    found["phases"][name].setdefault(str(workers), []).append(taken)
                    print(name, workers, json.dumps(taken), flush=True)
                found["constants"] = constants(made)
        asked.output.write_text(json.dumps(found, indent=1) + "\n")
    for name in made_of:
        sides = found["phases"][name]
        one, two = quietest(sides["1"]), quietest(sides["2"])
        sides["speed_up"] = round(seconds(one) / seconds(two), 3)
        clock = one["wall"] / two["wall"]
        print(f"{name:<12} {sides['speed_up']:.2f} by CPU seconds, {clock:.2f} on the clock")
    asked.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
