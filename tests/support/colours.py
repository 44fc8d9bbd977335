"""A tiny VGG and images that are quickly learned: few-shot experiments that take no time."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

TINY = {"block1_conv1": (4, 3), "block1_conv2": (6, 4), "block2_conv1": (8, 6)}
COLOURS = {"blue": (30, 40, 200), "green": (40, 190, 40), "red": (210, 50, 30)}

Array = npt.NDArray[np.float32]


def write_weights(folder: Path) -> Path:
    """A tiny VGG with random weights, in the format of the Oxford ones."""
    rng = np.random.default_rng(3)
    arrays = {}
    for name, (outputs, inputs) in TINY.items():
        scale = np.sqrt(2 / (9 * inputs))
        arrays[f"{name}.weight"] = rng.normal(0, scale, (outputs, inputs, 3, 3)).astype(np.float16)
        arrays[f"{name}.bias"] = rng.normal(0, 0.1, outputs).astype(np.float16)
    np.savez(path := folder / "weights.npz", **arrays)
    return path


def write_colours(folder: Path, count: int, seed: int) -> Path:
    """Noisy images of one colour per class, 8 x 8."""
    rng = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (8, 8, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{index:02d}.png")
    return folder


def write_sources(folder: Path) -> list[str]:
    """Weights, references and tests in a folder; the options that name them."""
    reference = write_colours(folder / "many", 9, seed=1)
    test = write_colours(folder / "others", 7, seed=2)
    weights = write_weights(folder)
    return ["--reference", str(reference), "--test", str(test), "--weights", str(weights)]


def images_of(folder: Path) -> dict[str, list[Array]]:
    return {
        kind.name: [np.asarray(Image.open(path), np.float32) for path in sorted(kind.glob("*.png"))]
        for kind in sorted(folder.iterdir())
    }


def hashes(folder: Path) -> list[str]:
    return [
        hashlib.sha256(image.tobytes()).hexdigest()
        for members in images_of(folder).values()
        for image in members
    ]


def write_package(folder: Path) -> Path:
    """An archive like that of the npm package: few images, a twin and a separator in each class."""
    rng = np.random.default_rng(7)
    clothes = folder / "package" / "src" / "clothes"
    clothes.mkdir(parents=True)
    for label in range(10):
        rows = rng.integers(0, 256, (12, 784)).tolist()
        text = json.dumps({"data": [*rows[:5], [], *rows[5:], rows[0]]})
        (clothes / f"{label}.json").write_text(text)
    archive = folder / "fashion.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder / "package", "package")
    return archive
