"""What LRP sees and what reconstruction sees: what each would remove, and who was right.

    python -m tests.benchmarks.two_views -o maps.png
    python -m tests.benchmarks.two_views --model M.onnx --data DIR --test DIR --no-layers

Both views remove the same share of each layer, so that they differ in nothing but the filters: LRP
those of least relevance, reconstruction those that the others can restore. Prints which net is
better on images that neither has seen, and, layer by layer, what is lost where only the filters go
on which they disagree. The maps show where in an image these filters are relevant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click
import numpy as np
import onnx

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import Filters
from onnxprune.evaluation import Evaluator
from onnxprune.relevance import Mirror, find_composite, score
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.samples import fashion_mnist as sample
from onnxprune.search import Settings, make_evaluator, make_task, open_model
from onnxprune.search.ranking import quantiles
from onnxprune.surgery import remove_channels

LRP, RECONSTRUCTION = "LRP", "reconstruction"


@dataclass
class Views:
    """A model, its references and unseen images, and what each view removes from it."""

    model: onnx.ModelProto
    references: Path
    tests: Path
    settings: Settings
    share: float

    def __post_init__(self) -> None:
        """Read the samples."""
        self.graph, data = open_model(self.model, self.references, self.settings)
        _, self.unseen = open_model(self.model, self.tests, self.settings)
        assert data is not None and self.unseen is not None
        self.data, self.task = data, make_task(self.graph, data, self.settings)
        self.groups = self.task.groups

    @cached_property
    def removed(self) -> Mapping[str, BoolArray]:
        """What each view removes. Shapes: each `[channels]`."""
        scores = score(self.graph, self.groups, self.data, device="cpu", threads=1).total()
        assert self.task.restore is not None
        places = self.task.restore(np.zeros(len(self.groups), np.bool_), self.share)
        orders = {LRP: quantiles(self.groups, scores), RECONSTRUCTION: places}
        return {name: self._first(order) for name, order in orders.items()}

    def _first(self, order: FloatArray) -> BoolArray:
        """The first share of each group in an order. Shapes: `[channels]` -> the same."""
        dead = np.zeros(len(self.groups), np.bool_)
        for group in range(len(self.groups.names)):
            own = self.groups.channels_of(group)
            own = own[self.groups.removable[own]]
            dead[own[np.argsort(order[own], kind="stable")][: int(self.share * own.size)]] = True
        return dead

    def only(self, name: str) -> BoolArray:
        """What this view removes and the other one keeps. Shapes: `[channels]`."""
        (other,) = (dead for view, dead in self.removed.items() if view != name)
        return self.removed[name] & ~other

    @cached_property
    def judge(self) -> Evaluator:
        """What judges a net on unseen images."""
        assert self.unseen is not None
        return make_evaluator(self.unseen, self.settings)

    def judged(self, dead: BoolArray, *, corrected: bool) -> tuple[float, float]:
        """Return the mean class accuracy and the mean probability of the true class."""
        net = remove_channels(self.graph, self.groups, dead)
        if corrected and dead.any():
            assert self.task.compensate is not None
            net = self.task.compensate(net, dead)
        found = self.judge(net)
        return found.mean, float(np.mean(found.soft_per_class))


@dataclass
class Maps:
    """Where in unseen images the filters are relevant that only one view keeps, in some layers."""

    views: Views
    layers: Sequence[int]
    rows: Sequence[int] = (0, 30, 60, 90, 120, 150)
    side: int = 56
    gap: int = 4

    def tiles(self) -> list[list[FloatArray]]:
        """Return for each image: itself, and for each layer what LRP and reconstruction keep alone.

        Shapes: each `[H, W, 3]`.
        """
        views, rows = self.views, list(self.rows)
        assert views.unseen is not None
        x, y = np.asarray(views.unseen.x[rows]), views.unseen.y[rows]
        filters = [self._filters(layer) for layer in self.layers]
        mirror = folded(Mirror(views.graph, device="cpu"))
        found = relevance(mirror, x, y, find_composite("epsilon"), [f.output for f in filters])
        columns = [[_grey(image) for image in x]]
        for one in filters:
            kept = [views.only(name)[one.channels] for name in (RECONSTRUCTION, LRP)]
            pairs = [found[one.output][:, channels].sum(1).numpy() for channels in kept]
            most = np.abs(pairs).max((0, 2, 3))
            columns += [
                [_heat(m / max(top, 1e-12)) for m, top in zip(p, most, strict=True)] for p in pairs
            ]
        return [list(tiles) for tiles in zip(*columns, strict=True)]

    def _filters(self, layer: int) -> Filters:
        """Those that a layer is named by."""
        groups = self.views.groups
        return next(f for f in groups.filters if (groups.group[f.channels] == layer).all())

    def draw(self, path: Path) -> None:
        """Write the tiles as one picture: red speaks for the class, blue against it."""
        from PIL import Image

        tiles, step = self.tiles(), self.side + self.gap
        canvas = Image.new("RGB", (len(tiles[0]) * step, len(tiles) * step), "white")
        for row, line in enumerate(tiles):
            for column, one in enumerate(line):
                tile = Image.fromarray((255 * one).round().astype(np.uint8))
                tile = tile.resize((self.side, self.side), Image.Resampling.NEAREST)
                canvas.paste(tile, (column * step, row * step))
        canvas.save(path, optimize=True)


def _grey(image: FloatArray) -> FloatArray:
    """An image from black to white. Shapes: `[C, H, W]` -> `[H, W, 3]`."""
    flat = image.mean(0)
    return np.repeat(((flat - flat.min()) / max(float(np.ptp(flat)), 1e-12))[..., None], 3, -1)


def _heat(share: FloatArray) -> FloatArray:
    """White where nothing is, red above, blue below. Shapes: `[H, W]` -> `[H, W, 3]`."""
    red, blue = 1 + share.clip(max=0), 1 - share.clip(min=0)
    return np.stack([red, np.minimum(red, blue), blue], -1)


def print_nets(views: Views) -> None:
    """Print what becomes of the whole net in each view."""
    click.echo("| removes | weights untouched | weights corrected |\n|---|---|---|")
    dead = {"nothing": np.zeros(len(views.groups), np.bool_), **views.removed}
    for name, gone in dead.items():
        cells = [views.judged(gone, corrected=corrected) for corrected in (False, True)]
        click.echo(f"| {name} | " + " | ".join(f"{a:.3f} ({p:.3f})" for a, p in cells) + " |")


def print_layers(views: Views) -> None:
    """Print layer by layer where the views disagree, and what is lost where only that goes."""
    click.echo("\n| layer | filters | each removes | both | by chance | untouched | corrected |")
    click.echo("|---|---|---|---|---|---|---|")
    for group, name in enumerate(views.groups.names):
        own = views.groups.group == group
        gone = {view: dead & own for view, dead in views.removed.items()}
        count, both = int(gone[LRP].sum()), int((gone[LRP] & gone[RECONSTRUCTION]).sum())
        cells = []
        for corrected in (False, True):
            left = [views.judged(views.only(v) & own, corrected=corrected)[1] for v in gone]
            cells.append(f"{left[0]:.3f} {left[1]:.3f}")
        size = int(own.sum())
        row = [name, size, count, both, f"{count**2 / size:.0f}", *cells]
        click.echo("| " + " | ".join(map(str, row)) + " |")


@click.command(help=__doc__.split("\n")[0])
@click.option("--model", type=click.Path(exists=True, path_type=Path), default=sample.MODEL)
@click.option("--data", type=click.Path(exists=True, path_type=Path), default=sample.REFERENCE)
@click.option("--test", type=click.Path(exists=True, path_type=Path), default=sample.TEST)
@click.option("--preprocess", default="auto", show_default=True)
@click.option("--share", type=click.FloatRange(0, 1), default=0.5, show_default=True)
@click.option("--layers/--no-layers", default=True, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Draw maps into this PNG.")
def main(
    model: Path,
    data: Path,
    test: Path,
    preprocess: str,
    share: float,
    layers: bool,
    output: Path | None,
) -> None:
    settings = Settings.of(
        compensate="least-squares", preprocess=preprocess, threads=1, device="cpu", rate=share
    )
    views = Views(onnx.load(model), data, test, settings, share)
    print_nets(views)
    if layers:
        print_layers(views)
    if output is not None:
        count = len(views.groups.names)
        drawn = (0, count // 2, count - 1)
        Maps(views, drawn).draw(output)
        click.echo(f"\nmaps: {output}, layers {', '.join(views.groups.names[k] for k in drawn)}")


if __name__ == "__main__":
    main()
