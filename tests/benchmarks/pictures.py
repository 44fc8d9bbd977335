"""Read images with one folder per class, draw some at random, write them, make arrays."""

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Picture:
    """One image: the name of its file without the suffix, and its pixels."""

    name: str
    image: Image.Image


def read_pictures(source: Path) -> dict[str, list[Picture]]:
    """Read a folder or tar with one folder per class; return images by class, both sorted."""
    classes: dict[str, list[Picture]] = {}
    try:
        for path, data in sorted(_read_files(source)):
            if path.suffix.lower() in SUFFIXES:
                image = Image.open(BytesIO(data)).convert("RGB")
                classes.setdefault(path.parent.name, []).append(Picture(path.stem, image))
    except (OSError, tarfile.TarError, UnidentifiedImageError) as error:
        raise click.ClickException(f"cannot read the images in {source}: {error}") from error
    if not classes:
        raise click.ClickException(
            f"{source} holds no images ({', '.join(SUFFIXES)}); expected one folder per class"
        )
    return classes


def _read_files(source: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if source.is_dir():
        for file in source.glob("*/*"):
            if file.is_file():
                yield PurePosixPath(file.relative_to(source)), file.read_bytes()
        return
    with tarfile.open(source) as archive:
        for member in archive:
            path = PurePosixPath(member.name)
            if (content := archive.extractfile(member)) is not None and path.parent.name:
                yield path, content.read()


def draw(
    pictures: Mapping[str, Sequence[Picture]],
    classes: Sequence[str],
    per_class: int,
    rng: np.random.Generator,
) -> dict[str, list[Picture]]:
    """Draw `per_class` images of each class at random, without replacement."""
    chosen = {}
    for name in classes:
        found = pictures.get(name, ())
        if len(found) < per_class:
            raise click.ClickException(
                f"class {name!r} has {len(found)} images, but {per_class} were asked for; "
                f"the source holds {', '.join(f'{key} ({len(pictures[key])})' for key in pictures)}"
            )
        picks = np.sort(rng.choice(len(found), per_class, replace=False))
        chosen[name] = [found[pick] for pick in picks]
    return chosen


def write_pictures(pictures: Mapping[str, Sequence[Picture]], folder: Path) -> None:
    """Write each image as folder/<class>/<name>.png, in its own size."""
    for name, members in pictures.items():
        target = folder / name
        target.mkdir(parents=True, exist_ok=True)
        for picture in members:
            picture.image.save(target / f"{picture.name}.png")


def to_arrays(
    pictures: Mapping[str, Sequence[Picture]], size: int, *, channels: int = 3
) -> tuple[FloatArray, LabelArray]:
    """Resize images as onnxprune does; return them and the index of each one's class.

    Shapes: [N, channels, size, size] in 0..1 (RGB, or grey of one channel), [N].
    """
    mode = "RGB" if channels == 3 else "L"
    images, labels = [], []
    for label, members in enumerate(pictures.values()):
        for picture in members:
            image = picture.image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
            pixels = np.asarray(image, np.float32).reshape(size, size, channels)
            images.append(pixels.transpose(2, 0, 1) / np.float32(255))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int64)
