"""Other readings of the same images: what a wrong preset, channel order or layout would have to be.

They are tried where a model does not recognise its samples, to say what is wrong with these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data.presets import PRESETS, find_preset

Array = npt.NDArray[Any]


def readings(x: Array, preset: str = "") -> Iterator[tuple[str, Array]]:
    """Yield other readings of samples, each with the words that say how to get them.

    `preset` is that by which the pixels of image files were scaled. Without it samples are taken
    back to pixels by the range of their values, and tried in other layouts.
    Shapes: `[n, C, H, W]` or `[n, H, W, C]` with 1 or 3 channels; others have no other readings.
    """
    axis = channel_axis(x.shape[1:])
    if axis is None:
        return
    last = np.moveaxis(x, axis, -1)
    pixels = _pixels(last) if preset in ("", "auto") else find_preset(preset).undone(last)
    if pixels is not None:
        for words, read in _scaled(pixels, preset):
            yield words, np.moveaxis(read, -1, axis)
    if not preset:
        yield from _laid_out(x, axis)


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of the samples holds the channels of an image, if one does."""
    if len(shape) != 3 or not {shape[0], shape[2]} & {1, 3}:
        return None
    return 1 if shape[0] in (1, 3) else 3


def of_preset(name: str) -> str:
    """Return the words for the pixels of files as a preset scales them."""
    return f"--preprocess {name}"


def _scaled(pixels: Array, given: str) -> Iterator[tuple[str, Array]]:
    """Scale pixels by each preset, with the channels in either order. Shapes: `[..., C]`."""
    channels = pixels.shape[-1]
    for name, preset in PRESETS.items():
        if len(preset.mean) not in (1, channels):
            continue
        words = of_preset(name) if given else f"pixels scaled as '{name}' scales them"
        yield words, preset(pixels)
        if channels == 3:
            swapped = replace(preset, bgr=not preset.bgr)
            order = "BGR" if swapped.bgr else "RGB"
            yield f"{words} with the channels as {order}", swapped(pixels)


def _pixels(x: Array) -> Array | None:
    """Take samples back to pixels from 0 to 255, judged by their values. Shapes: `[..., C]`."""
    low, high = float(x.min()), float(x.max())
    name = "raw" if high > 2 else "unit"
    if low < 0:
        name = "tf" if low >= -1 and high <= 1 else "imagenet"
    preset = PRESETS[name]
    if len(preset.mean) not in (1, x.shape[-1]):
        return None
    found = preset.undone(x)
    return found if found.min() > -1 and found.max() < 256 else None


def _laid_out(x: Array, axis: int) -> Iterator[tuple[str, Array]]:
    """Yield the same values with their axes in another order. Shapes: as `readings`."""
    n, (channels, height, width) = len(x), np.moveaxis(x, axis, 1).shape[1:]
    if axis == 1:
        yield "the axes as [H, W, C]", np.moveaxis(x, 1, -1)
        if channels > 1:
            reshaped = x.reshape(n, height, width, channels)
            yield "the pixels transposed, not reshaped, to [C, H, W]", np.moveaxis(reshaped, -1, 1)
    else:
        yield "the axes as [C, H, W]", np.moveaxis(x, -1, 1)
        if channels > 1:
            reshaped = x.reshape(n, channels, height, width)
            yield "the pixels transposed, not reshaped, to [H, W, C]", np.moveaxis(reshaped, 1, -1)
    rows, columns = (2, 3) if axis == 1 else (1, 2)
    yield "rows and columns swapped", x.swapaxes(rows, columns)
