"""Measure what an accuracy-aware search costs, in evaluations, and against a plain loop.

    python -m tests.benchmarks.search --reference reference.tar [--weights FILE.npz]
        [--classes cat,dog,ship] [--per-class 20] [--rate 0.95] [--threads 1] [--every 1]

The network is VGG16, as `tests/benchmarks/vgg16_cifar10.py` builds it. It is searched down to a
rate, once with its weights untouched and once with least squares. The unit of cost is one
evaluation of the unpruned model on the same images, on onnxruntime with the same number of threads.
The time of the search is split into parts that do not overlap.

The plain loop makes the decisions that the search made. For every net that the search tried, it
prunes, corrects, starts a session, evaluates all samples and scores all channels, each time from
scratch. It has one LRP pass for each class and image, each with its own forward pass; the figure in
brackets is that of one pass for each image, for its true class. With `--every N` only every Nth net
is run, and its time counts N times. CPU seconds are the sum over threads. Wall-clock seconds mean
little on a shared machine.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

from onnxprune.data import Data
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.graph.graph import Graph
from onnxprune.relevance.batches import batches_of
from onnxprune.relevance.criteria import find_criterion
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror
from onnxprune.search.assemble import make_task
from onnxprune.search.controllers import find_controller, search
from onnxprune.search.nets import Nets
from onnxprune.search.settings import Settings
from onnxprune.search.target import share_removed
from onnxprune.search.task import State, Task
from onnxprune.surgery.removal import remove_channels
from tests.benchmarks.linear_head import attach_head, fit_head, run
from tests.benchmarks.pictures import draw, read_pictures, to_arrays
from tests.benchmarks.vgg16_cifar10 import SIZE, build, download_weights, read_weights

PARTS = ("relevance", "evaluation", "compensation", "pruning", "picking", "rest")
PENALTY = 0.1


@dataclass
class Stopwatch:
    """Counts CPU and wall-clock seconds of parts. Nested parts count to the inner one only."""

    seconds: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _since: np.ndarray[Any, Any] = field(default_factory=lambda: np.zeros(2))

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Count the time of a `with` block to a part."""
        self._stop()
        self._open.append(part)
        try:
            yield
        finally:
            self._stop()
            self._open.pop()

    def _stop(self) -> None:
        now = np.array([time.process_time(), time.perf_counter()])
        if self._open:
            part = self._open[-1]
            self.seconds[part] = self.seconds.get(part, np.zeros(2)) + now - self._since
        self._since = now

    def timed(self, part: str, function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        """Return a function whose calls count to a part."""

        def within(*arguments: Any, **options: Any) -> Any:
            assert function is not None
            with self(part):
                return function(*arguments, **options)

        return function and within

    @property
    def total(self) -> np.ndarray[Any, Any]:
        """The CPU and wall-clock seconds of all parts together."""
        return np.asarray(sum(self.seconds.values(), np.zeros(2)))


class Watched(Nets):
    """Nets that count the seconds of each part, and record the states that were tried."""

    def __init__(self, task: Task) -> None:
        self.watch = Stopwatch()
        given = {
            name: self.watch.timed(part, getattr(task, name))
            for name, part in (
                ("rank", "relevance"),
                ("damage", "relevance"),
                ("relevance", "relevance"),
                ("evaluate", "evaluation"),
                ("glance", "evaluation"),
                ("rest", "evaluation"),
                ("compensate", "compensation"),
                ("sketch", "compensation"),
                ("hold_out", "compensation"),
                ("judged", "compensation"),
                ("restore", "compensation"),
            )
        }
        super().__init__(replace(task, **given))
        self.tried = [State(np.zeros(len(task.groups), np.bool_))]

    def measure(self, state: State) -> State:
        """Record the state, and measure it."""
        self.tried.append(state)
        return super().measure(state)

    def build(self, state: State) -> ModelProto:
        """Count the call to pruning."""
        with self.watch("pruning"):
            return super().build(state)

    def view(self, state: State) -> Any:
        """Count the call to pruning."""
        with self.watch("pruning"):
            return super().view(state)

    def order(self, *arguments: Any) -> Any:
        """Count the call to picking."""
        with self.watch("picking"):
            return super().order(*arguments)

    def bring_down(self, *arguments: Any) -> State:
        """Count the call to picking."""
        with self.watch("picking"):
            return super().bring_down(*arguments)

    def step(self, *arguments: Any, **options: Any) -> State:
        """Count the call to picking."""
        with self.watch("picking"):
            return super().step(*arguments, **options)


def prepare(chosen: argparse.Namespace) -> tuple[Graph, Data]:
    """Return VGG16 with a linear head trained on drawn images, and these images."""
    weights, mean = read_weights(chosen.weights) if chosen.weights else download_weights()
    features = build(weights, mean, size=chosen.size)
    pictures = read_pictures(chosen.reference)
    names = sorted(chosen.classes.split(",") if chosen.classes else pictures)
    drawn = draw(pictures, names, chosen.per_class, np.random.default_rng(chosen.seed))
    x, y = to_arrays(drawn, chosen.size)
    head = fit_head(run(features, x, threads=chosen.threads), y, PENALTY)
    return Graph(attach_head(features, head)), Data(x, y, tuple(names))


def unit(graph: Graph, data: Data, settings: Settings, repeats: int) -> np.ndarray[Any, Any]:
    """Return the CPU and wall-clock seconds of one evaluation of the unpruned model."""
    evaluate = evaluator(data, settings)
    evaluate(graph.model)
    turns = []
    for _ in range(repeats):
        watch = Stopwatch()
        with watch("evaluation"):
            evaluate(graph.model)
        turns.append(watch.total)
    return np.array([median(column) for column in zip(*turns, strict=True)])


def evaluator(data: Data, settings: Settings) -> Evaluator:
    """Return an evaluator with the settings of a run."""
    return Evaluator(data, device="cpu", threads=settings.threads, batch_size=settings.batch_size)


def plain_loop(task: Task, tried: list[State], data: Data, settings: Settings) -> Stopwatch:
    """Prune, correct, evaluate and score nets one by one, each from scratch."""
    watch = Stopwatch()
    graph, groups = task.graph, task.groups
    correct = make_task(graph, data, settings).compensate
    composite = find_criterion(settings.criterion).composite
    assert composite is not None
    for state in tried:
        with watch("pruning"):
            model = remove_channels(graph, groups, state.dead)
        if correct is not None and state.corrected and state.dead.any():
            with watch("compensation"):
                model = correct(model, state.dead)
        with watch("evaluation"):
            evaluator(data, settings)(model)
        with watch("pruning"):
            net = Graph(model)
            names = [f.output for f in groups.without(state.dead).filters]
            mirror = folded(Mirror(net, device="cpu"))
        with watch("relevance"):
            for label in range(len(data.classes)):
                for x, y in batches_of(mirror, data, settings.batch_size):
                    all_alike = np.full_like(y, label)
                    relevance(
                        mirror, x, all_alike, composite, names, reduce=lambda _, r: r.sum((2, 3))
                    )
    return watch


def reset_peak() -> float:
    """Reset the peak of resident memory; return what is resident now, in MiB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def resident(figure: str) -> float:
    """Return `VmRSS`, the resident memory of this process, or `VmHWM`, its peak, in MiB (Linux)."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{figure}:\s+(\d+) kB", text)
    assert found is not None
    return int(found[1]) / 1024


def compare(graph: Graph, data: Data, settings: Settings, chosen: argparse.Namespace) -> None:
    """Search, run the plain loop on the same nets, and print what both cost."""
    before = reset_peak()
    nets = Watched(make_task(graph, data, settings))
    states: list[State] = []
    with nets.watch("rest"):
        states.extend(search(nets, find_controller(settings.control)))
    peak = resident("VmHWM") - before
    one = unit(graph, data, settings, chosen.repeats)
    cost = nets.watch.total / one
    rate = share_removed(nets.task.groups, states[-1].dead)
    print(f"\n## compensate {settings.compensate}\n")
    print(
        f"rate {rate:.3f} in {len(states) - 2} steps, {len(nets.tried)} nets tried; one evaluation "
        f"of the unpruned model: {one[0]:.2f} CPU s"
    )
    print(f"whole search: {cost[0]:.1f} evaluations in CPU time, {cost[1]:.1f} in wall-clock time")
    print(f"peak memory above what was resident before: {peak:.0f} MiB\n")
    tried = nets.tried[:: chosen.every or 1]
    plain = plain_loop(nets.task, tried, data, settings) if chosen.every else None
    print("| part | search, evaluations | CPU s | plain loop, evaluations |\n|---|---|---|---|")
    for part in PARTS:
        mine = nets.watch.seconds.get(part, np.zeros(2))[0]
        theirs = plain.seconds.get(part, np.zeros(2))[0] * chosen.every if plain else np.nan
        print(f"| {part} | {mine / one[0]:.2f} | {mine:.2f} | {theirs / one[0]:.1f} |")
    if plain is not None:
        whole = plain.total * chosen.every
        single = whole - plain.seconds["relevance"] * chosen.every * (1 - 1 / len(data.classes))
        print(
            f"\nplain loop / search: {whole[0] / nets.watch.total[0]:.2f} in CPU time "
            f"[{single[0] / nets.watch.total[0]:.2f}], {whole[1] / nets.watch.total[1]:.2f} in "
            f"wall-clock time [{single[1] / nets.watch.total[1]:.2f}]",
            flush=True,
        )


def main() -> None:
    """Print both comparisons."""
    parser = argparse.ArgumentParser(description="What a search costs.")
    parser.add_argument("--reference", type=Path, required=True, help="tar or folder of classes")
    parser.add_argument("--weights", type=Path, help="Oxford weights as .npz, else torchvision's")
    parser.add_argument("--classes", help="names, separated by commas; all without")
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--rate", type=float, default=0.95)
    parser.add_argument("--compensate", nargs="+", default=["none", "least-squares"])
    parser.add_argument("--batch-size", type=int, default=Settings.batch_size)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--every", type=int, default=1, help="0 leaves the plain loop out")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    graph, data = prepare(chosen)
    print(f"VGG16, {len(data)} images of {len(data.classes)} classes, {chosen.size} px,")
    print(f"{chosen.threads} thread(s), torch {torch.__version__}")
    for method in chosen.compensate:
        settings = Settings.of(
            compensate=method,
            rate=chosen.rate,
            round_to=1,
            batch_size=chosen.batch_size,
            device="cpu",
            threads=chosen.threads,
            seed=chosen.seed,
        )
        compare(graph, data, settings, chosen)


if __name__ == "__main__":
    main()
