"""Samples of the waves of a brain, made here, for `real_tasks`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.signal

from tests.benchmarks.real_samples import Made

Array = npt.NDArray[Any]

RATE, SECONDS, PIECES = 250, 120, 32
"""Samples a second, and how long each of the pieces is."""


def pink(rng: np.random.Generator, samples: int) -> Array:
    """Noise whose power falls with the frequency, as that of a brain. Shapes: -> `[samples]`."""
    spectrum = np.fft.rfft(rng.normal(size=samples))
    frequencies = np.maximum(np.fft.rfftfreq(samples, 1 / RATE), 0.5)
    return np.asarray(np.fft.irfft(spectrum / frequencies**0.9, samples))


def scaled(rows: Array) -> Array:
    """Rows of mean 0 and deviation 1 along the last axis. Shapes: `[..., n]` -> `[..., n]`."""
    mean, spread = rows.mean(-1, keepdims=True), rows.std(-1, keepdims=True)
    return np.asarray((rows - mean) / np.maximum(spread, 1e-12), np.float32)


def seizures(_: Path, given: argparse.Namespace) -> Made:
    """Spectrograms of two minutes; in half of them waves of three a second grow for a while.

    Shapes: x `[n, 100, 239]`.
    """
    rng, found = np.random.default_rng(0), []
    for number in range(PIECES):
        length = RATE * SECONDS
        wave, t = scaled(pink(rng, length)), np.arange(length) / RATE
        if number % 2:
            start, long = rng.uniform(10, 60), rng.uniform(20, 50)
            grown = np.clip((t - start) / 10, 0, 1) * ((t > start) & (t < start + long))
            turned = 2 * np.pi * rng.uniform(2.5, 6) * t
            wave += grown * rng.uniform(2, 5) * (np.sin(turned) + 0.5 * np.sin(2 * turned))
        _, _, power = scipy.signal.spectrogram(wave, RATE, nperseg=RATE, noverlap=RATE // 2)
        found.append(scaled(power[:100]))
    return Made({"x": np.stack(found)})
