"""The command that shows the tool on a model of its own."""

from __future__ import annotations

from itertools import chain, count
from pathlib import Path
from typing import Any

import click

from onnxprune.cli import options
from onnxprune.cli.comparing import show_comparison
from onnxprune.cli.group import main
from onnxprune.cli.help import example
from onnxprune.cli.program import Screen
from onnxprune.cli.pruning import show_pruning
from onnxprune.files import make_folder
from onnxprune.search import Settings


@main.command(epilog=example("onnxprune demo"))
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="DIR",
    help="Folder to write; by default a new onnxprune-demo.",
)
@options.DEVICE
@options.VOLUME
@click.pass_obj
def demo(screen: Screen, /, output: str | None, device: str) -> None:
    """Prune a small model that comes with onnxprune, in under a minute."""
    from onnxprune.cli.tables import totals
    from onnxprune.report import inspect
    from onnxprune.samples import fashion_mnist as sample

    folder = make_folder(output or _free_name("onnxprune-demo"))
    # more threads would wait for each other on a model this small
    settings = Settings.of(device=device, threads=1, max_drop=0.03)
    screen.print(f"A small CNN for Fashion-MNIST: {totals(inspect(sample.MODEL))}.", "")
    screen.print("Pruned on 20 reference images of each class, with at most 3 points lost:")
    small = folder / "pruned.onnx"

    def keep(result: Any) -> Path:
        from onnxprune.graph import save_model

        return save_model(result.model, small)

    show_pruning(screen, sample.MODEL, sample.REFERENCE, settings, keep, run_dir=folder)
    screen.print("Compared on 30 test images of each class, which pruning has not seen:")
    show_comparison(screen, sample.MODEL, small, sample.TEST, settings)
    screen.print(
        f"The pruned model: {small}",
        f"The report:       {folder / 'report.html'}",
        f"The original:     {sample.MODEL}",
    )


def _free_name(name: str) -> str:
    """Return the name, or the first of name-2, name-3, ... where it is taken."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(one for one in names if not Path(one).exists())
