"""Images in files: found in folders, decoded, resized and preprocessed as a model takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.data.inputs import Rows
from onnxprune.data.pictures import Kept, opened, suffixes
from onnxprune.data.presets import Preprocess, find_preset
from onnxprune.data.streamed import Streamed
from onnxprune.errors import DataError
from onnxprune.memory import fits

IMAGES, MASKS = "images", "masks"
"""The folders of a set of images with a label map each."""


@dataclass(frozen=True)
class Form:
    """What samples must become: the model's input without its batch axis, from pixels or arrays.

    Samples of more than `memory` stay in their files. Units: memory, MB; None as `memory.fits`.
    """

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    preprocess: str
    memory: int | None = field(default=None, kw_only=True)

    @property
    def is_last(self) -> bool:
        """Whether the channels of an image are the last axis."""
        shape = self.shape
        return len(shape) == 3 and shape[2] in (1, 3) and shape[0] not in (1, 3)


def find_images(folder: Path) -> list[Path]:
    """Return all images below a folder, in order, none that a system keeps for itself.

    What is of no format that is read (`pictures.FORMATS`) is not one.
    """
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in suffixes()
        and not any(map(is_hidden, (file, *file.relative_to(folder).parents)))
        and file.is_file()
    ]


def is_hidden(path: Path) -> bool:
    """Say whether a file or folder is one that a system or a program made for itself.

    >>> [is_hidden(Path(name)) for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir", "cat")]
    [True, True, True, False]
    """
    return path.name.startswith((".", "@eaDir", "$RECYCLE", "__MACOSX", "__pycache__"))


def has_masks(folder: Path) -> bool:
    """Whether a folder holds images with a label map each: `images/` and `masks/`, no more."""
    found = {one.name for one in folder.iterdir() if one.is_dir() and not is_hidden(one)}
    return found == {IMAGES, MASKS}


def find_pairs(folder: Path) -> list[tuple[Path, Path]]:
    """Return each image below `images/` with the label map of the same name below `masks/`.

    Raises: DataError naming an image without a map, or a map without an image.
    """
    images, masks = (
        {
            file.relative_to(folder / kind).with_suffix(""): file
            for file in find_images(folder / kind)
        }
        for kind in (IMAGES, MASKS)
    )
    for one, other, kind in ((images, masks, MASKS), (masks, images, IMAGES)):
        for name in one:
            if name not in other:
                raise DataError(
                    f"{one[name]}: has no partner {folder / kind / name}.*; expected one label map "
                    "for each image, under the same name"
                )
    return [(images[name], masks[name]) for name in images]


def decode(
    files: Sequence[Path | Kept],
    form: Form,
    fit: Callable[[Any, tuple[int, int]], Any] | None = None,
) -> Rows:
    """Read, resize and preprocess images into one array, on several threads.

    Where that takes more memory than it may, an image is read whenever it is asked for.
    `fit` makes an image of Pillow one of a width and height; by default it is stretched.
    Shapes: `[n, C, H, W]`, or `[n, H, W, C]` where only the last axis of `form.shape` is 1 or 3.
    Raises: DataError where an image cannot be read or does not fit the form.
    """
    shape, last = form.shape, form.is_last
    channels = shape[2 if last else 0] if len(shape) == 3 else None
    if channels not in (1, 3):
        raise DataError(
            f"{files[0]}: the model takes {shape_text(shape)}, an image needs [C, H, W] or "
            "[H, W, C] with 1 or 3 channels; give an .npz or a function instead"
        )
    preset = _preset(form, channels)
    first = _read(files[0], "L" if channels == 1 else "RGB")
    height, width = shape[:2] if last else shape[1:]
    size = (height or first.height, width or first.width)
    sized = (files[0].name, first.size) if None in shape else None
    decoder = Decoder(tuple(files), preset, channels, size, last, form.dtype, fit, sized)
    images = Streamed(decoder, np.arange(len(files)), decoder.sample, form.dtype)
    return np.asarray(images) if fits(images.nbytes, form.memory) else images


@dataclass(frozen=True, eq=False)
class Decoder:
    """Reads images of a list of files, whichever are asked for.

    `sized` is the name and size of the image whose size all others must have.
    Units: size, height and width in pixels.
    """

    files: tuple[Path | Kept, ...]
    preset: Preprocess
    channels: int
    size: tuple[int, int]
    last: bool
    dtype: np.dtype[Any]
    fit: Callable[[Any, tuple[int, int]], Any] | None
    sized: tuple[str, tuple[int, int]] | None

    @property
    def sample(self) -> tuple[int, int, int]:
        """The shape of an image as the model takes it."""
        return (*self.size, self.channels) if self.last else (self.channels, *self.size)

    def __call__(self, numbers: IntArray) -> npt.NDArray[Any]:
        """Shapes: numbers `[m]` -> `[m, *sample]`."""
        x = np.empty((len(numbers), *self.sample), self.dtype)

        def fill(row: int) -> None:
            x[row] = self._image(self.files[numbers[row]])

        with ThreadPoolExecutor() as pool:
            for _ in pool.map(fill, range(len(numbers))):  # raises the first file's error
                pass
        return x

    def _image(self, file: Path | Kept) -> npt.NDArray[Any]:
        from PIL import Image

        image = _read(file, "L" if self.channels == 1 else "RGB")
        if self.sized and image.size != self.sized[1]:
            (name, (width, height)) = self.sized
            raise DataError(
                f"{file}: {image.width} x {image.height} pixels, {name} has {width} x {height}, "
                "and the model leaves its size open; resize the images to one size"
            )
        height, width = self.size
        if self.fit is not None:
            image = self.fit(image, (width, height))
        elif image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        values = self.preset(np.asarray(image).reshape(height, width, self.channels))
        return values if self.last else values.transpose(2, 0, 1)


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height of an image file, whose pixels are not read.

    Raises: DataError for a file that is no readable image.
    """
    with opened(path) as image:
        return image.size


def read_map(path: Path) -> npt.NDArray[Any]:
    """Read a label map: the numbers of a grey or palette image, which are classes.

    Shapes: `[H, W]`.
    """
    with opened(path) as image:
        numbers = np.asarray(image)
    if numbers.ndim != 2:
        raise DataError(
            f"{path}: {numbers.shape[2]} channels, expected one, with the number of each pixel's "
            "class; save the label map as a grey or palette PNG"
        )
    return numbers


def _preset(form: Form, channels: int) -> Preprocess:
    """Choose the preset, refusing one that the model's channels or type cannot hold."""
    name = form.preprocess
    if name == "auto":
        name = "raw" if form.dtype.kind in "iu" else "imagenet" if channels == 3 else "unit"
    preset = find_preset(name)
    wanted = max(len(preset.mean), len(preset.std))
    if wanted not in (1, channels):
        raise DataError(
            f"preprocess: {name!r} is for {wanted} channels, the model takes {channels}"
        )
    if form.dtype.kind in "iu" and (name != "raw" or np.iinfo(form.dtype).max < 255):
        raise DataError(f"preprocess: {name!r} does not fit {form.dtype}, which the model takes")
    return preset


def _read(path: Path | Kept, mode: str) -> Any:
    """Decode one image as 8-bit `L` or `RGB`."""
    from PIL import Image

    with opened(path) as image:
        if image.mode.startswith("I;16"):  # Pillow would clip at 255
            high = np.asarray(image) >> 8
            return Image.fromarray(high.astype(np.uint8)).convert(mode)
        if image.mode not in ("I", "F"):
            return image.convert(mode)
    raise DataError(f"{path}: pixels of 32 bits, expected 8 or 16; convert the image")


def shape_text(shape: Sequence[int | None]) -> str:
    """Write a shape as ONNX does, with ? for an open axis."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
