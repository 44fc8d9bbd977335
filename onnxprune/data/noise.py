"""Noise that is smooth as photographs are: the power of a frequency falls with its square.

Source: Field 1987, Relations between the statistics of natural images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

GREY, SPREAD = 115.0, 64.0
"""The mean and the standard deviation of pixels of photographs. Units: 0 to 255."""
OWN_COLOUR = 0.2
"""The share of the variance of a channel that it does not have in common with the others."""
LEVEL = 0.5
"""How much of the difference between the means of two samples is left; smooth noise alone would
make some nearly black."""


def smooth_noise(
    count: int, channels: int, sizes: Sequence[int], rng: np.random.Generator
) -> FloatArray:
    """Return noise of mean 0 and variance 1, smooth along the axes of these sizes.

    Shapes: -> `[count, channels, *sizes]`.
    """
    axes = tuple(range(2, 2 + len(sizes)))
    white = rng.standard_normal((count, channels, *sizes))
    common = white.mean(1, keepdims=True) * np.sqrt(channels)
    mixed = np.sqrt(1 - OWN_COLOUR) * common + np.sqrt(OWN_COLOUR) * white
    spectrum = np.fft.fftn(mixed, axes=axes) / _frequencies(sizes)
    noise = np.fft.ifftn(spectrum, axes=axes).real
    noise -= (1 - LEVEL) * noise.mean(axes, keepdims=True)
    noise -= noise.mean()
    return noise / max(float(noise.std()), 1e-12)


def noisy_pixels(
    count: int, channels: int, sizes: Sequence[int], rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return smooth noise as the pixels of images. Shapes: -> `[count, *sizes, channels]`."""
    noise = np.moveaxis(smooth_noise(count, channels, sizes, rng), 1, -1)
    return np.clip(GREY + SPREAD * noise, 0, 255).astype(np.uint8)


def _frequencies(sizes: Sequence[int]) -> FloatArray:
    """The frequency of each coefficient, in periods; that of the mean is 1. Shapes: -> `sizes`."""
    along = (np.fft.fftfreq(size) * max(sizes, default=1) for size in sizes)
    squares = sum(np.meshgrid(*(axis**2 for axis in along), indexing="ij"), np.zeros(tuple(sizes)))
    return np.maximum(np.sqrt(squares), 1.0)
