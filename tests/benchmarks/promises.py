"""How often `--max-drop` keeps its promise on images that the search has never seen.

    python -m tests.benchmarks.promises --task resnet-fashion/0_tshirt,3_dress,4_coat:10 \\
        --drop 0.02 --drop 0.05 --splits 50 -o promised

Each split draws other reference images, fits the head to them and prunes it with `--max-drop D`.
All images of the test pool judge: how much of the harmonic mean of the class accuracies do they
lose? A promise is *kept* where that is at most D, and *surely broken* where it is more than D by
1.645 standard errors of the paired difference. The promise of one split is of that size of test.

Tasks are those of `tests.benchmarks.compare_methods`, and `sample:PER_CLASS`: the network of
`samples/fashion_mnist`, whose references come out of the 10,000 images that it was not trained on;
the others of these judge. DIR keeps a line for each run, so a stopped
series goes on where it was; `--only-table` prints what is there. `--name` and `--set` are for
several versions or settings beside each other.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

import onnxprune
from onnxprune.relevance import one_thread
from tests.benchmarks import resnet_fashion_mnist
from tests.benchmarks.comparison_tasks import NETWORKS, Sources, Task, source_options
from tests.benchmarks.experiment import Pictures
from tests.benchmarks.linear_head import attach_head, fit_head, run
from tests.benchmarks.pictures import FloatArray, LabelArray, draw, to_arrays

Hits = npt.NDArray[np.bool_]

MODEL = Path(__file__).parents[2] / "samples/fashion_mnist/model.onnx"
BATCH = 100
ONE_THREAD = onnxruntime.SessionOptions()
ONE_THREAD.intra_op_num_threads = 1
SURE = 1.645
"""Standard errors of a one-sided interval of 95 %."""


Split = tuple[onnx.ModelProto, FloatArray, LabelArray]
"""The model of a split and its references. Shapes: [n, C, H, W], [n]."""


class Splits:
    """The splits of a task: features, the pool that references come from, and the test images."""

    def __init__(self, task: Task, sources: Sources, folder: Path) -> None:
        features, reference, test = NETWORKS[task.network](sources, task.classes, folder)
        self.task, self.features, self.reference = task, features, reference
        self.names = sorted(set(task.classes) or reference)
        _, channels, size, _ = features.graph.input[0].type.tensor_type.shape.dim
        self._form = size.dim_value, channels.dim_value
        most = min(sources.test_per_class, *(len(test[name]) for name in self.names))
        self.test = self._arrays({name: list(test[name])[:most] for name in self.names})

    def _arrays(self, pictures: Pictures) -> tuple[FloatArray, LabelArray]:
        return to_arrays(pictures, self._form[0], channels=self._form[1])

    def build(self, split: int) -> Split:
        """Fit the head to the references that a split draws."""
        rng = np.random.default_rng(split)
        images, labels = self._arrays(draw(self.reference, self.names, self.task.per_class, rng))
        values = run(self.features, images, threads=1)
        return attach_head(self.features, fit_head(values, labels, 0.1)), images, labels


class OfSample(Splits):
    """The splits of the sample's network, which is trained already."""

    def __init__(self, per_class: int, sources: Sources) -> None:
        images = resnet_fashion_mnist.read(sources.fashion)
        self.per_class = per_class
        self.pool = [pixels[: resnet_fashion_mnist.HELD_OUT] for pixels in images.values()]
        self.model = onnx.load(MODEL)

    def build(self, split: int) -> Split:
        """Draw references; the other images of the pool are the test."""
        rng = np.random.default_rng(split)
        orders = [rng.permutation(len(pixels)) for pixels in self.pool]
        parts = [slice(None, self.per_class), slice(self.per_class, None)]
        drawn, self.test = (self._taken([order[part] for order in orders]) for part in parts)
        return self.model, *drawn

    def _taken(self, rows: Sequence[npt.NDArray[np.int64]]) -> tuple[FloatArray, LabelArray]:
        pixels = np.concatenate([own[row] for own, row in zip(self.pool, rows, strict=True)])
        labels = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        return (pixels[:, None] / np.float32(255)).astype(np.float32), labels


def splits_of(text: str, sources: Sources, folder: Path) -> Splits:
    """Return the splits of a task."""
    network, _, count = text.partition(":")
    if network == "sample" and count.isdecimal():
        return OfSample(int(count), sources)
    return Splits(Task.parse(text), sources, folder)


def hits(model: onnx.ModelProto, test: tuple[FloatArray, LabelArray]) -> Hits:
    """Return which test images a model gets right. Shapes: -> [n]."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), ONE_THREAD)
    name = session.get_inputs()[0].name
    batches = np.array_split(test[0], -(-len(test[0]) // BATCH))
    scores = np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
    return np.asarray(scores.argmax(1) == test[1])


def unseen_drop(before: Hits, after: Hits, labels: LabelArray) -> tuple[float, float]:
    """Return the drop of the harmonic mean of class accuracies and its standard error.

    The error is that of a paired difference, by the delta method.

    >>> hits = np.repeat([True, False], 50); labels = np.arange(100) % 2
    >>> unseen_drop(hits, hits, labels)
    (0.0, 0.0)
    """
    classes = np.unique(labels)
    shares = np.array([[side[labels == k].mean() for k in classes] for side in (before, after)])
    if not shares.all():
        return float(_harmonic(shares[0]) - _harmonic(shares[1])), 0.0
    means = [_harmonic(side) for side in shares]
    slopes = [mean**2 / (len(classes) * side**2) for mean, side in zip(means, shares, strict=True)]
    variance = 0.0
    for place, k in enumerate(classes):
        own = labels == k
        moved = slopes[0][place] * before[own] - slopes[1][place] * after[own]
        variance += float(moved.var()) / int(own.sum())
    return float(means[0] - means[1]), variance**0.5


def _harmonic(shares: npt.NDArray[np.float64]) -> float:
    return float(1 / np.mean(1 / shares)) if shares.all() else 0.0


def one_run(splits: Splits, split: int, drop: float, options: Mapping[str, Any]) -> dict[str, Any]:
    """Prune the model of a split with a floor, and measure what that costs on the test images."""
    model, images, labels = splits.build(split)
    began = time.process_time()
    result = onnxprune.prune(
        model,
        (images, labels),
        **{
            "max_drop": drop,
            "aim": "rate",
            "preprocess": "raw",
            "threads": 1,
            "trust_baseline": True,
            **options,
        },
    )
    spent = time.process_time() - began
    before, after = hits(model, splits.test), hits(result.model, splits.test)
    lost, error = unseen_drop(before, after, splits.test[1])
    return {
        "rate": result.report["rate"],
        "drop": lost,
        "error": error,
        "before": float(before.mean()),
        "after": float(after.mean()),
        "changed": float((before != after).mean()),
        "bound": (result.report.get("promise") or {}).get("bound"),
        "evaluations": result.report["evaluations"],
        "cpu": spent,
    }


Key = tuple[str, str, float]
"""Task, name and allowed drop of a row of the table."""


def table(lines: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the rows of a Markdown table."""
    rows: dict[Key, list[Mapping[str, Any]]] = defaultdict(list)
    for line in lines:
        rows[line["task"], line["name"], line["allowed"]].append(line)
    yield (
        "| task | floor | name | splits | kept | surely broken | unseen drop, mean and 90 % of "
        "splits | rate | CPU seconds |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for (task, name, allowed), found in sorted(
        rows.items(), key=lambda row: (*row[0][::2], row[0])
    ):
        lost = np.array([line["drop"] for line in found])
        sure = sum(line["drop"] - SURE * line["error"] > allowed for line in found)
        yield (
            f"| {task} | {allowed:g} | {name} | {len(found)} | "
            f"{100 * (lost <= allowed).mean():.0f} % | {100 * sure / len(found):.0f} % | "
            f"{lost.mean():.3f}, {np.quantile(lost, 0.9):.3f} | "
            f"{statistics.mean(line['rate'] for line in found):.3f} | "
            f"{statistics.mean(line['cpu'] for line in found):.1f} |"
        )


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """Read what a folder keeps; a line that was cut off is left out."""
    kept = folder / "promises.jsonl"
    if not kept.exists():
        return []
    whole = kept.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


@click.command(help=__doc__.split("\n")[0])
@click.option("--task", "tasks", multiple=True, help="As NETWORK/CLASSES:PER_CLASS.")
@click.option("--drop", "drops", type=float, multiple=True, default=(0.02, 0.05))
@click.option("--splits", type=click.IntRange(min=1), default=50, show_default=True)
@click.option("--first", type=click.IntRange(min=0), default=0, help="The first split.")
@click.option("--name", default="onnxprune", help="What the rows are called.")
@click.option("--set", "changes", multiple=True, metavar="OPTION=VALUE", help="Of `prune`.")
@click.option("--only-table", is_flag=True)
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@source_options
def main(
    tasks: tuple[str, ...],
    drops: tuple[float, ...],
    splits: int,
    first: int,
    name: str,
    changes: tuple[str, ...],
    only_table: bool,
    output: Path,
    **places: Any,
) -> None:
    output.mkdir(parents=True, exist_ok=True)
    options = {key: _value(text) for key, _, text in (one.partition("=") for one in changes)}
    done = {(one["task"], one["name"], one["allowed"], one["split"]) for one in read_lines(output)}
    given = {key: value for key, value in places.items() if value is not None}
    given.setdefault("test_per_class", 1000)
    for text in () if only_table else tasks:
        wanted = [
            (split, drop)
            for split in range(first, first + splits)
            for drop in drops
            if (text, name, drop, split) not in done
        ]
        with one_thread():
            sources = Sources(**given, threads=1)
            made = splits_of(text, sources, output / "task") if wanted else None
            for split, drop in wanted:
                assert made is not None
                line = {"task": text, "name": name, "allowed": drop, "split": split}
                line |= one_run(made, split, drop, options)
                with (output / "promises.jsonl").open("a") as kept:
                    kept.write(json.dumps(line) + "\n")
                click.echo(
                    f"{text} {drop:g} split {split}: rate {line['rate']:.3f}, unseen drop "
                    f"{line['drop']:.4f} \u00b1 {line['error']:.4f}, {line['cpu']:.1f} s"
                )
    for row in table(read_lines(output)):
        click.echo(row)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
