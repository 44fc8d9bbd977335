"""Compare pruning methods over tasks and seeds: the table of docs/benchmarks.md.

    python samples/compare_methods.py --reference reference.tar --test test.tar -o DIR

For every task (`all:20` takes all classes and 20 references of each, `cat,dog,ship:10` three
classes) and every seed, `vgg16_cifar10.py` builds a model whose head has learned from the
references, and `onnxprune curve` draws each method on other images. DIR keeps every curve, so a
run that was stopped goes on where it was. The table has the area under the curve of the mean and of
the harmonic mean of the class accuracies: mean and standard deviation over seeds, gain over
one-shot LRP by z+ and by the same rule, share of the area of a model that never lost accuracy
(the ceiling), and what is lost at most up to rate 0.3.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx

from onnxprune.curve import draw_curve
from onnxprune.samples import vgg16_cifar10
from onnxprune.settings import Settings

METHODS = (
    "one-shot/lrp:zplus",
    "one-shot/lrp",
    "one-shot/magnitude",
    "accuracy-aware/lrp",
    "one-shot/random/least-squares",
    "one-shot/lrp/least-squares",
    "accuracy-aware/lrp/least-squares",
)
EARLY = 0.3
"""Up to this rate nothing should be lost."""


@dataclass(frozen=True)
class Trial:
    """One task with one seed, and the curves drawn so far."""

    task: str
    seed: int
    folder: Path

    def build(self, arguments: Sequence[str]) -> None:
        """Build the model and its images, unless they are there."""
        if (self.folder / "model.onnx").exists():
            return
        names, _, per_class = self.task.rpartition(":")
        chosen = () if names == "all" else ("--classes", names)
        own = (*chosen, "--per-class", per_class, "--seed", str(self.seed), "-o", str(self.folder))
        vgg16_cifar10.main.main([*arguments, *own], standalone_mode=False)

    def curve(self, method: str, settings: Settings) -> dict[str, Any]:
        """Draw one method, unless it is drawn, and return what `onnxprune curve` says of it."""
        place = self.folder / f"{method.replace('/', '-').replace(':', '-')}.json"
        if not place.exists():
            drawn = draw_curve(
                onnx.load(self.folder / "model.onnx"),
                self.folder / "reference",
                self.folder / "test",
                method,
                replace(settings, seed=self.seed),
            )
            place.write_text(json.dumps(drawn.to_json(), indent=2) + "\n", "utf-8")
        found: dict[str, Any] = json.loads(place.read_text("utf-8"))
        return found


def early_loss(curve: dict[str, Any]) -> float:
    """What the mean class accuracy loses at most up to the rate `EARLY`."""
    mean = np.array(curve["mean"])[np.array(curve["rate"]) <= EARLY + 1e-9]
    return float(curve["mean"][0] - mean.min())


def rows(curves: dict[str, list[dict[str, Any]]]) -> list[str]:
    """One line of the table for each method, from its curves over the seeds."""

    def areas(method: str, key: str = "auc_mean") -> Any:
        return np.array([curve[key] for curve in curves[method]])

    lines = []
    for method, drawn in curves.items():
        area, harmonic = areas(method), areas(method, "auc_harmonic")
        ceiling = np.array([curve["mean"][0] for curve in drawn])
        spread = area.std(ddof=1) if len(area) > 1 else 0.0
        gains = [
            f"{100 * (area / areas(base)).mean() - 100:+.1f} %" if base in curves else ""
            for base in ("one-shot/lrp:zplus", "one-shot/lrp")
        ]
        lines.append(
            f"| `{method}` | {area.mean():.3f} ± {spread:.3f} | {harmonic.mean():.3f} | {gains[0]} "
            f"| {gains[1]} | {(area / ceiling).mean():.3f} "
            f"| {np.mean([early_loss(curve) for curve in drawn]):.3f} |"
        )
    return lines


def table(title: str, curves: dict[str, list[dict[str, Any]]]) -> str:
    """One task as a table in Markdown."""
    return "\n".join(
        (
            f"{title}, {len(next(iter(curves.values())))} seeds",
            "",
            "| method | AUC mean | AUC harmonic | over one-shot z+ | over one-shot epsilon "
            f"| of the ceiling | loss up to rate {EARLY} |",
            "|---|---|---|---|---|---|---|",
            *rows(curves),
        )
    )


@click.command()
@click.option("--reference", type=click.Path(exists=True), required=True)
@click.option("--test", type=click.Path(exists=True), required=True)
@click.option("--weights", type=click.Path(exists=True, dir_okay=False))
@click.option("--task", "tasks", multiple=True, default=("cat,dog,ship:10", "all:20"))
@click.option("--seed", "seeds", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--method", "methods", multiple=True, default=METHODS, show_default=True)
@click.option("--test-per-class", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--size", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--unlabelled", help="More images for least squares; labels are ignored.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True)
def main(
    reference: str,
    test: str,
    weights: str | None,
    tasks: tuple[str, ...],
    seeds: tuple[int, ...],
    methods: tuple[str, ...],
    test_per_class: int,
    size: int,
    threads: int,
    unlabelled: str | None,
    output: Path,
) -> None:
    """Draw every method on every task with every seed, and print one table for each task."""
    built = ["--reference", reference, "--test", test, "--threads", str(threads)]
    built += ["--size", str(size), "--test-per-class", str(test_per_class)]
    built += ["--weights", weights] if weights else []
    settings = Settings(preprocess="unit", threads=threads, unlabelled=unlabelled)
    for task in tasks:
        curves: dict[str, list[dict[str, Any]]] = {method: [] for method in methods}
        for seed in seeds:
            trial = Trial(task, seed, output / f"{task.replace(',', '-').replace(':', '-')}-{seed}")
            trial.build(built)
            for method in methods:
                curves[method].append(trial.curve(method, settings))
        click.echo(table(task, curves) + "\n")


if __name__ == "__main__":
    main()
