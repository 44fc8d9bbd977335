"""Accuracy on unseen images at the same multiply-adds and at the same latency, by several ways.

    pip install ".[compare]"
    python -m tests.benchmarks.at_equal_cost --reference reference.tar --test test.tar -o DIR

Tasks are those of `tests.benchmarks.compare_methods`; a task that is a folder holds `model.onnx`,
`reference/` and `test/`, as the sample does, and a seed chooses ten reference images of each class.
DIR keeps what each way reached as JSON, so a stopped run goes on where it was; `--only-table`
prints what is there. One thread; latency is CPU time of it, beside the unpruned model's, in turn.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np

from onnxprune.data import Data, load_data
from onnxprune.evaluation import Evaluator
from onnxprune.files import write_whole
from onnxprune.graph.graph import Graph
from onnxprune.relevance import one_thread
from onnxprune.search.assemble import make_task
from onnxprune.search.latency import Latency
from onnxprune.search.nets import Nets
from onnxprune.search.settings import Settings
from onnxprune.surgery import count
from tests.benchmarks.comparison import slug
from tests.benchmarks.comparison_tasks import Sources, Task, source_options
from tests.benchmarks.walks import GOALS, Goal, Reached, Stopwatch, Way, walk

PER_CLASS = 10
TASKS = (
    "resnet-fashion/0_tshirt,3_dress,4_coat:10",
    "efficientnet-lite0/cat,dog,ship:10",
    "vgg16/cat,dog,ship:10",
)
FITTED = "least-squares"
ANY_WIDTH: Mapping[str, Any] = {"round_to": 1}
ONCE: Mapping[str, Any] = {"control": "one-shot", "criterion": "magnitude"}
ZPLUS: Mapping[str, Any] = {"control": "one-shot", "criterion": "lrp:zplus"}
WAYS = (
    Way("--for latency", {"aim": "latency"}, compensate=FITTED),
    Way("--for macs", {"aim": "macs"}, compensate=FITTED),
    Way("--for rate, any width", {"aim": "rate", **ANY_WIDTH}, compensate=FITTED),
    Way("--for latency", {"aim": "latency"}),
    Way("--for macs", {"aim": "macs"}),
    Way("--for rate, any width", {"aim": "rate", **ANY_WIDTH}),
    Way("LRP z+, one ranking", {**ZPLUS, **ANY_WIDTH}),
    Way(
        "Torch-Pruning magnitude, each layer",
        {**ONCE, **ANY_WIDTH},
        importance="magnitude:uniform",
    ),
    Way("Torch-Pruning Taylor, global", {**ONCE, **ANY_WIDTH}, importance="taylor"),
    Way("onnxsim", onnxsim="l2"),
    Way("LRP z+, one ranking, blocks", ZPLUS, compensate=FITTED),
    Way(
        "Torch-Pruning magnitude, each layer, blocks",
        ONCE,
        importance="magnitude:uniform",
        compensate=FITTED,
    ),
    Way("Torch-Pruning Taylor, global, blocks", ONCE, importance="taylor", compensate=FITTED),
)
"""What is compared. *--for rate, any width* is how onnxprune went before it looked at costs;
*blocks* are the widths of `--round-to auto`, which the other ways of onnxprune have, too."""


@dataclass(frozen=True)
class Case:
    """One task with one seed."""

    task: str
    seed: int
    output: Path

    @cached_property
    def folder(self) -> Path:
        """Where what was reached is kept, and what is built."""
        return self.output / f"{self.name}-{self.seed}"

    @property
    def name(self) -> str:
        return slug(Path(self.task).name if self.is_folder else self.task)

    @property
    def is_folder(self) -> bool:
        return (Path(self.task) / "model.onnx").exists()

    @property
    def source(self) -> Path:
        """The folder of the model and the images."""
        return Path(self.task) if self.is_folder else self.folder

    def build(self, sources: Sources) -> None:
        """Build the model and the images unless they are there."""
        if not (self.source / "model.onnx").exists():
            with redirect_stdout(sys.stderr):
                Task.parse(self.task).build(sources, self.seed, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def place(self, way: Way) -> Path:
        return self.folder / f"{slug(way.title).strip('-')}.json"

    def images(self, graph: Graph, name: str) -> Data:
        shape, dtype = graph.image_form
        return load_data(self.source / name, shape=shape, dtype=dtype, preprocess="unit")

    def references(self, graph: Graph) -> Data:
        data = self.images(graph, "reference")
        return choose(data, np.random.default_rng(self.seed)) if self.is_folder else data

    def table(self, graph: Graph, data: Data) -> Latency:
        """Return what widths cost in time, measured once for each task."""
        kept = self.output / f"{self.name}.latency.json"
        if kept.exists():
            return Latency.from_json(json.loads(kept.read_text("utf-8")))
        settings = Settings(threads=1, aim="latency", compensate="none")
        found = Nets(make_task(graph, data, settings)).latency
        write_whole(kept, json.dumps(found.to_json(), indent=2) + "\n")
        return found

    def stored(self, way: Way) -> bool:
        """Return True if what a way reached is kept. A way that could not run is tried again."""
        place = self.place(way)
        return place.exists() and not json.loads(place.read_text("utf-8"))["problem"]

    def run(self, ways: Sequence[Way]) -> Iterator[str]:
        """Prune in the ways that are not kept yet; yield a line for each."""
        missing = [way for way in ways if not self.stored(way)]
        if not missing:
            return
        graph = Graph.load(self.source / "model.onnx")
        data = self.references(graph)
        judge = Evaluator(self.images(graph, "test"), threads=1)
        unpruned = judge(graph.model)
        watch = Stopwatch(graph.model, graph.image_form[0])
        table = self.table(graph, data)
        settings = Settings(threads=1, preprocess="unit", seed=self.seed)
        for way in missing:
            started, problem = time.process_time(), ""
            points: list[dict[str, Any]] = []
            try:
                ends = walk(way, graph, data, settings, watch, table)
                points = [describe(reached, graph, judge, watch) for reached in ends]
            except Exception as error:  # another tool may raise anything
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
            record = {
                "task": self.task,
                "seed": self.seed,
                "way": way.name,
                "compensate": way.compensate,
                "unpruned": {"mean": unpruned.mean, "harmonic": unpruned.harmonic},
                "points": points,
                "problem": problem,
                "cpu": time.process_time() - started,
            }
            write_whole(self.place(way), json.dumps(record, indent=1) + "\n")
            yield f"{self.folder.name}: {way.title}: {problem or 'done'}, {record['cpu']:.0f} s"


def describe(reached: Reached, graph: Graph, judge: Evaluator, watch: Stopwatch) -> dict[str, Any]:
    """Return what a net at a goal gets right, and what is left of the costs."""
    accuracy, net = judge(reached.model), Graph(reached.model, input_shapes=graph.input_shapes)
    return {
        "goal": reached.goal.name,
        "mean": accuracy.mean,
        "harmonic": accuracy.harmonic,
        "macs": count(net).macs / count(graph).macs,
        "latency": watch.share(reached.model, 0.4),
        "rate": reached.rate,
        "corrected": reached.corrected,
        "widths": widths(net),
    }


def choose(data: Data, rng: np.random.Generator) -> Data:
    """Return some samples of each class, in their order."""
    chosen = [
        rng.permutation(np.flatnonzero(data.y == label))[:PER_CLASS] for label in np.unique(data.y)
    ]
    rows = np.sort(np.concatenate(chosen))
    return data.rows(rows)


def widths(net: Graph) -> list[int]:
    """Return how many filters each convolution has."""
    tensors = net.constant_tensors
    return [
        int(tensors[node.inputs[1]].dims[0])
        for node in net.nodes
        if node.op_type == "Conv" and node.inputs[1] in tensors
    ]


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of one task: means over its seeds."""
    unpruned = [r["unpruned"] for r in {r["seed"]: r for r in records}.values()]
    lines = [
        f"**{records[0]['task']}, {len(unpruned)} seeds, unpruned "
        f"{_mean(unpruned, 'mean'):.3f} / {_mean(unpruned, 'harmonic'):.3f}**",
        "",
        f"| way | weights | {' | '.join(goal.name for goal in GOALS)} |",
        "|---|---|" + "---|" * len(GOALS),
    ]
    for way in WAYS:
        own = [r for r in records if (r["way"], r["compensate"]) == (way.name, way.compensate)]
        if own:
            weights = "untouched" if way.compensate == "none" else way.compensate
            cells = " | ".join(cell(own, goal, len(unpruned)) for goal in GOALS)
            lines.append(f"| {way.name} | {weights} | {cells} |")
    return "\n".join(lines)


def cell(records: Sequence[Mapping[str, Any]], goal: Goal, seeds: int) -> str:
    """Return mean and harmonic accuracy at a goal, and in brackets what is left of the other."""
    points = [p for r in records for p in r["points"] if p["goal"] == goal.name]
    if not points:
        return "out of reach" if len(records) == seeds else ""
    other = "latency" if goal.over == "macs" else "macs"
    some = "" if len(points) == seeds else f", {len(points)} seeds"
    return (
        f"{_mean(points, 'mean'):.3f} / {_mean(points, 'harmonic'):.3f} "
        f"({_mean(points, other):.2f}{some})"
    )


def _mean(points: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(point[name] for point in points)


def read(output: Path, tasks: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """Read what is kept of each task, in their order."""
    found: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
    for path in sorted(output.glob("*-*/*.json")):
        record = json.loads(path.read_text("utf-8"))
        if record.get("task") in found and record.get("points"):
            found[record["task"]].append(record)
    return {task: records for task, records in found.items() if records}


@click.command(help="Prune by every way to the same costs; print a table for each task.")
@source_options
@click.option("--task", "tasks", multiple=True, help=f"[default: {' '.join(TASKS)}]")
@click.option("--seed", "seeds", multiple=True, type=int, help="[default: 0 1 2]")
@click.option("--way", "patterns", multiple=True, help="Patterns of WAY/WEIGHTS, such as '*/none'.")
@click.option("--only-table", is_flag=True, help="Print what is kept, prune nothing.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    patterns: tuple[str, ...],
    only_table: bool,
    output: Path,
    **sources: Any,
) -> None:
    tasks = tasks or TASKS
    asked = patterns or ("*",)
    ways = [way for way in WAYS if any(fnmatchcase(way.title, one) for one in asked)]
    if not only_table:
        given = Sources(**{k: v for k, v in sources.items() if v is not None}, threads=1)
        for seed in seeds or (0, 1, 2):
            for task in tasks:
                case = Case(task, seed, output)
                case.build(given)
                with one_thread():
                    for line in case.run(ways):
                        click.echo(line, err=True)
    for records in read(output, tasks).values():
        click.echo(f"{table(records)}\n")


if __name__ == "__main__":
    main()
