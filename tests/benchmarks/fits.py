"""Compare fits of least squares on the same pruned nets: far cheaper than curves, and paired.

    python -m tests.benchmarks.fits --reference reference.tar --test test.tar \\
        --weights vgg16_imagenet_features.npz --task vgg16/all:10 --rate 0.6 --rate 0.8 \\
        --method accuracy-aware/lrp/least-squares,ridge_share=1,mirrored=never \\
        --method accuracy-aware/lrp/least-squares

Every layer loses the same share, first what the others can restore as the first method sees it. It
prints the mean class accuracy on test images for each fit and rate. Tasks are those of
`tests.benchmarks.compare_methods`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from onnxprune.arrays import BoolArray
from onnxprune.relevance import one_thread
from onnxprune.search import Settings, make_evaluator, make_task, open_model
from onnxprune.search.task import Task as Search
from onnxprune.surgery import remove_channels
from tests.benchmarks.compare_methods import Method
from tests.benchmarks.comparison_tasks import Sources, Task, source_options


def evenly(task: Search, rate: float) -> BoolArray:
    """Remove the same share of each layer. Shapes: -> `[channels]`."""
    assert task.restore is not None
    gone = task.restore(np.zeros(len(task.groups), np.bool_), 1.0) < rate
    return gone & task.groups.removable


def compare(folder: Path, methods: list[str], rates: list[float], seed: int) -> None:
    """Print a line for each method. The folder is that of an experiment."""
    common = Settings(preprocess="unit", threads=1, seed=seed)
    searches = []
    for name in methods:
        settings = Method.parse(name).settings(common)
        graph, data = open_model(onnx.load(folder / "model.onnx"), folder / "reference", settings)
        searches.append(make_task(graph, data, settings))
    _, unseen = open_model(searches[0].graph.model, folder / "test", common)
    assert unseen is not None
    judge = make_evaluator(unseen, common)
    nets = [evenly(searches[0], rate) for rate in rates]
    click.echo(f"unpruned {judge(searches[0].graph.model).mean:.3f}")
    for name, task in zip(methods, searches, strict=True):
        assert task.compensate is not None
        found = []
        for dead in nets:
            pruned = remove_channels(task.graph, task.groups, dead)
            found.append(judge(task.compensate(pruned, dead)).mean)
        click.echo(f"{' '.join(f'{one:.3f}' for one in found)}  {name}")


@click.command(help=__doc__.split("\n")[0])
@source_options
@click.option("--task", default="vgg16/all:10", show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--rate", "rates", multiple=True, type=float, default=(0.6, 0.8), show_default=True)
@click.option("--method", "methods", multiple=True, required=True)
def main(
    task: str, seed: int, rates: tuple[float, ...], methods: tuple[str, ...], **given: Any
) -> None:
    sources = Sources(threads=1, **{k: v for k, v in given.items() if v is not None})
    with tempfile.TemporaryDirectory() as name, one_thread():
        folder = Path(name) / "task"
        Task.parse(task).build(sources, seed, folder)
        compare(folder, list(methods), list(rates), seed)


if __name__ == "__main__":
    main()
