"""Train a small detector of shapes, prune it, and show the average precision of every class.

    python samples/detection/train.py -o DIR

A scene is a canvas of one colour that runs into another, with noise and two to five shapes on it.
The network has the form of YOLOv8 without its distribution of distances: two grids of cells, and
for each cell a box and the scores of the classes. Writes `model.onnx`, `reference/` and `test/` (in
Ultralytics' layout), then prunes by average precision and compares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.nn import functional

import onnxprune

SIDE = 96
BATCH = 32
OPSET = 17
IR_VERSION = 8
STRIDES = (8, 16)
LARGE = 30
"""An object of a longer side than this, in pixels, is for the coarse grid."""
MOST = 5
"""Shapes in a scene, at most."""

CLASSES = ("disc", "square", "triangle", "cross")

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scenes:
    """Images and their objects: x1, y1, x2, y2, class; -1 for none.

    Shapes: images [N, 96, 96, 3], objects [N, MOST, 5].
    """

    images: Pixels
    objects: npt.NDArray[np.float32]


# ------------------------------------------------------------------------------------------ data


def compose(count: int, rng: np.random.Generator) -> Scenes:
    """Draw scenes; shapes hardly cover each other."""
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    objects = np.full((count, MOST, 5), -1, np.float32)
    ramp = np.linspace(0, 1, SIDE)[:, None, None]
    for image, held in zip(images, objects, strict=True):
        low, high = rng.integers(0, 256, (2, 3))
        canvas = low * (1 - ramp) + high * ramp + rng.normal(0, 12, (SIDE, SIDE, 3))
        canvas = canvas.transpose(1, 0, 2) if rng.random() < 0.5 else canvas
        picture = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        drawn: list[tuple[float, ...]] = []
        for _ in range(rng.integers(2, MOST + 1)):
            box = free_place(drawn, rng)
            if box is None:
                continue
            kind = int(rng.integers(len(CLASSES)))
            colour = tuple(int(c) for c in rng.integers(0, 256, 3))
            draw(pen, CLASSES[kind], box, colour)
            held[len(drawn)] = (*box, kind)
            drawn.append(box)
        image[:] = np.asarray(picture)
    return Scenes(images, objects)


def free_place(
    drawn: list[tuple[float, ...]], rng: np.random.Generator
) -> tuple[float, float, float, float] | None:
    """A box that touches no other, or None after some tries."""
    for _ in range(20):
        side = int(rng.integers(12, 45))
        x, y = (int(v) for v in rng.integers(0, SIDE - side, 2))
        apart = (
            x >= right or x + side <= left or y >= low or y + side <= high
            for left, high, right, low in drawn
        )
        if all(apart):
            return float(x), float(y), float(x + side), float(y + side)
    return None


def draw(
    pen: ImageDraw.ImageDraw,
    kind: str,
    box: tuple[float, float, float, float],
    colour: tuple[int, ...],
) -> None:
    """Draw one shape that fills its box."""
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    third = (x2 - x1) / 3
    if kind == "disc":
        pen.ellipse((x1, y1, x2, y2), fill=colour)
    elif kind == "square":
        pen.rectangle((x1, y1, x2, y2), fill=colour)
    elif kind == "triangle":
        pen.polygon([(x1, y2), (x2, y2), ((x1 + x2) / 2, y1)], fill=colour)
    else:
        pen.rectangle((x1 + third, y1, x2 - third, y2), fill=colour)
        pen.rectangle((x1, y1 + third, x2, y2 - third), fill=colour)


def write_scenes(scenes: Scenes, folder: Path) -> None:
    """Write images, labels and data.yaml as Ultralytics lays them out."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, (image, held) in enumerate(zip(scenes.images, scenes.objects, strict=True)):
        Image.fromarray(image).save(folder / "images" / f"{number:03d}.jpg", quality=90)
        lines = [
            f"{int(k)} {(x1 + x2) / 2 / SIDE:.6f} {(y1 + y2) / 2 / SIDE:.6f} "
            f"{(x2 - x1) / SIDE:.6f} {(y2 - y1) / SIDE:.6f}\n"
            for x1, y1, x2, y2, k in held[held[:, 4] >= 0].tolist()
        ]
        (folder / "labels" / f"{number:03d}.txt").write_text("".join(lines), encoding="utf-8")
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    text = f"path: .\nval: images\nnames:\n{names}"
    (folder / "data.yaml").write_text(text, encoding="utf-8")


# ----------------------------------------------------------------------------------------- model


def layer(inputs: int, outputs: int, side: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, normalisation, SiLU. Shapes: [N, inputs, H, W] -> [N, outputs, H', W']."""
    conv = nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class Residual(nn.Module):
    """Two layers beside a shortcut. Shapes: as they come."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(layer(width, width), layer(width, width))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


class Detector(nn.Module):
    """A backbone, one step up, and for each grid a branch for boxes and one for classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(layer(3, 16, stride=2), layer(16, 32, stride=2), Residual(32))
        self.fine = nn.Sequential(layer(32, 48, stride=2), Residual(48))
        self.coarse = nn.Sequential(layer(48, 64, stride=2), Residual(64))
        self.join = layer(64 + 48, 48)
        self.boxes = nn.ModuleList(self.branch(width, 4) for width in (48, 64))
        self.scores = nn.ModuleList(self.branch(width, len(CLASSES)) for width in (48, 64))
        for branch in self.scores:
            nn.init.constant_(branch[-1].bias, -4.0)  # most cells show nothing

    @staticmethod
    def branch(width: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(layer(width, 32), nn.Conv2d(32, outputs, 1))

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Centres and sizes in pixels, and logits. Shapes: [N, 4, A], [N, K, A]."""
        fine = self.fine(self.stem(image))
        coarse = self.coarse(fine)
        up = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        levels = (self.join(torch.cat([up, fine], 1)), coarse)
        boxes, logits = [], []
        for number, (x, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            sides = functional.softplus(self.boxes[number](x).flatten(2)) * stride
            middle = self.middles(stride)
            low, high = middle - sides[:, :2], middle + sides[:, 2:]
            boxes.append(torch.cat([(low + high) / 2, high - low], 1))
            logits.append(self.scores[number](x).flatten(2))
        return torch.cat(boxes, 2), torch.cat(logits, 2)

    @staticmethod
    def middles(stride: int) -> Tensor:
        """The middle of each cell, in pixels. Shapes: [2, cells]."""
        steps = torch.arange(SIDE // stride) + 0.5
        y, x = torch.meshgrid(steps, steps, indexing="ij")
        return torch.stack([x.flatten(), y.flatten()]) * stride

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: [N, 3, 96, 96] -> [N, 4 + K, A]."""
        boxes, logits = self.maps(image)
        return torch.cat([boxes, logits.sigmoid()], 1)


def corners(centred: Tensor) -> Tensor:
    """Shapes: [..., 4, A] -> [..., 4, A]."""
    middle, half = centred[..., :2, :], centred[..., 2:, :] / 2
    return torch.cat([middle - half, middle + half], -2)


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU, and the generalised IoU of Rezatofighi et al. 2019. Shapes: [..., 4, A] -> [..., A]."""
    low, high = torch.maximum(a, b), torch.minimum(a, b)
    common = (high[..., 2:, :] - low[..., :2, :]).clamp(min=0).prod(-2)
    around = (low[..., 2:, :] - high[..., :2, :]).prod(-2)
    areas = sum((box[..., 2:, :] - box[..., :2, :]).clamp(min=0).prod(-2) for box in (a, b))
    union = areas - common
    iou = common / (union + 1e-6)
    return iou, iou - (around - union) / (around + 1e-6)


def assign(objects: Tensor) -> tuple[Tensor, Tensor]:
    """Which object each cell is to find: one whose centre is near, on the grid of its size.

    Shapes: [N, MOST, 5] -> boxes [N, 4, A], classes [N, A], -1 for nothing.
    """
    boxes, kinds = [], []
    for stride in STRIDES:
        middle = Detector.middles(stride)  # [2, cells]
        centre = (objects[..., :2] + objects[..., 2:4]) / 2
        away = (middle - centre[..., None]).abs().amax(2)  # [N, MOST, cells]
        side = (objects[..., 2:4] - objects[..., :2]).amax(-1)
        here = (side > LARGE) == (stride == STRIDES[-1])
        near = (away < stride) & here[..., None] & (objects[..., 4] >= 0)[..., None]
        nearest = torch.where(near, away, torch.inf).min(1)
        chosen = objects.gather(1, nearest.indices[..., None].expand(-1, -1, 5))
        boxes.append(chosen[..., :4].transpose(1, 2))
        kinds.append(torch.where(nearest.values.isinf(), -1.0, chosen[..., 4]))
    return torch.cat(boxes, 2), torch.cat(kinds, 1).long()


def loss_of(model: Detector, images: Tensor, objects: Tensor) -> Tensor:
    """Scores are to be the overlap with the object, boxes to overlap it."""
    boxes, logits = model.maps(images)
    true, kinds = assign(objects)
    iou, generalised = overlap(corners(boxes), true)
    found = kinds >= 0
    wanted = functional.one_hot(kinds.clamp(min=0), len(CLASSES)).transpose(1, 2)
    wanted = wanted * (found * iou.detach())[:, None]
    scores = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
    count = found.sum().clamp(min=1)
    return scores / count + 2 * (1 - generalised[found]).sum() / count


def to_input(images: Pixels) -> Tensor:
    """Shapes: [N, H, W, 3] in 0..255 -> [N, 3, H, W] in 0..1."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255


def fit(model: Detector, *, epochs: int, scenes: int, rng: np.random.Generator) -> Iterator[float]:
    """Train the network in place, on new scenes in each epoch; yield each epoch's mean loss."""
    steps = -(-scenes // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-3, total_steps=epochs * steps
    )
    model.train()
    for _ in range(epochs):
        made, total = compose(scenes, rng), 0.0
        for start in range(0, scenes, BATCH):
            part = slice(start, start + BATCH)
            images = to_input(made.images[part])
            loss = loss_of(model, images, torch.from_numpy(made.objects[part]))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(images)
        yield total / scenes


def export(model: nn.Module, path: Path) -> None:
    """Write the network as ONNX, BatchNorm folded, the batch size free, its classes named."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIDE, SIDE),),
        path,
        input_names=["images"],
        output_names=["output0"],
        opset_version=OPSET,
        dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        dynamo=False,  # the classic exporter names each node after its module
    )
    proto = onnx.load(path)
    proto.ir_version = IR_VERSION
    names = {number: name for number, name in enumerate(CLASSES)}
    said = {"names": str(names), "onnxprune.preprocess": "unit"}
    onnx.helper.set_model_props(proto, said)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


# --------------------------------------------------------------------------------------- program


def prune_and_compare(folder: Path, macs: float, threads: int) -> None:
    """Prune to a share of the MACs, write pruned.onnx, and print the precision of every class."""
    model, pruned = folder / "model.onnx", folder / "pruned.onnx"
    settings = onnxprune.Settings.of(macs=macs, threads=threads)
    onnx.save(onnxprune.prune(model, folder / "reference", settings=settings).model, pruned)
    found = onnxprune.compare(model, pruned, folder / "test", settings)
    before, after = found["before"], found["after"]
    click.echo(f"mAP on {found['samples']} test scenes     before   after")
    sides = (before["accuracy"]["per_class"], after["accuracy"]["per_class"])
    for name in found["classes"]:
        scores = [side[name] for side in sides]
        if None in scores:  # too few objects of it to judge
            continue
        click.echo(f"{name:28} {scores[0]:8.3f} {scores[1]:7.3f}")
    for key in ("mean", "harmonic"):
        click.echo(f"{key:28} {before['accuracy'][key]:8.3f} {after['accuracy'][key]:7.3f}")
    for key in ("filters", "params", "macs"):
        click.echo(f"{key:24} {before[key]:12,} {after[key]:12,}")


@click.command()
@click.option("--epochs", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--scenes",
    type=click.IntRange(min=2),
    default=1500,
    show_default=True,
    help="Scenes in an epoch.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--reference-scenes", type=click.IntRange(min=1), default=40, show_default=True)
@click.option("--test-scenes", type=click.IntRange(min=1), default=100, show_default=True)
@click.option(
    "--macs",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.75,
    show_default=True,
    help="Share of the multiply-adds that pruning leaves.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the models and the scenes.",
)
def main(
    epochs: int,
    scenes: int,
    seed: int,
    threads: int,
    reference_scenes: int,
    test_scenes: int,
    macs: float,
    output: Path,
) -> None:
    """Train a small detector on scenes of shapes, prune it and compare."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    streams = [np.random.default_rng([seed, part]) for part in range(3)]
    model = Detector()
    for epoch, loss in enumerate(fit(model, epochs=epochs, scenes=scenes, rng=streams[0]), 1):
        click.echo(f"epoch {epoch}/{epochs}: loss {loss:.4f}")
    output.mkdir(parents=True, exist_ok=True)
    export(model, output / "model.onnx")
    write_scenes(compose(reference_scenes, streams[1]), output / "reference")
    write_scenes(compose(test_scenes, streams[2]), output / "test")
    prune_and_compare(output, macs, threads)


if __name__ == "__main__":
    main()
