"""Generated samples: inputs for a model that comes without any, and in what words that is said."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.data import ALL, Data, Inputs, find_preset, noisy_pixels, smooth_noise
from onnxprune.errors import DataError, InvalidValue
from onnxprune.graph import Graph
from onnxprune.search.scaling import find_scaling
from onnxprune.search.settings import Settings

logger = logging.getLogger(__name__)

ASKED = re.compile(r"generated(?::(\d+))?")
COUNT = 64
"""Inputs that are made where no number is given."""

MOST = 10_000
"""More inputs of noise say nothing more."""
STATISTICS, NOISE = "statistics", "noise"
"""What generated inputs are made of."""


def generated_count(source: Any) -> int | None:
    """Return how many inputs `generated` or `generated:N` asks for, None for any other source.

    A file or folder of that name is one. Raises: InvalidValue for none.
    """
    found = ASKED.fullmatch(source) if isinstance(source, str) else None
    if found is None or Path(source).exists():
        return None
    count = int((found[1] or str(COUNT))[:9])
    if not 1 <= count <= MOST:
        raise InvalidValue(
            f"data '{source}': expected generated or generated:N, N from 1 to {MOST:,}"
        )
    return count


def parted(data: Data | None) -> tuple[Data | None, Data | None]:
    """Return the samples that a search works with, and those that judge it.

    They are the same, but for generated inputs: what is fitted to made-up inputs agrees on these
    much better than on images, so others of them judge.
    """
    if data is None or not data.generated or len(data) < 2:
        return data, data
    return data.every(2), data.every(2, 1)


def generate(graph: Graph, count: int, settings: Settings) -> Data:
    """Return samples without labels that are made for a model.

    Where it keeps batch normalisations they have the statistics that these store, else they are
    smooth noise.
    Raises: DataError for an input that neither pixels nor other real numbers fit.
    """
    from onnxprune.relevance import match_statistics, stored_statistics

    rng = np.random.default_rng(settings.seed)
    arrays = {name: _noise(graph, name, count, rng, settings) for name in graph.inputs}
    inputs, layers = Inputs(arrays), len(stored_statistics(graph))
    if layers and any(array.dtype.kind == "f" for array in arrays.values()):
        inputs = match_statistics(graph, inputs, device=settings.device)
        logger.info(
            "samples: %d inputs made to have the statistics that %d batch normalisations store",
            count,
            layers,
        )
    else:
        layers = 0
        logger.warning(
            "samples: the model stores no statistics of its inputs (batch normalisation is folded "
            "away or never was), so %d inputs are smooth noise, on which a network agrees far "
            "longer than on images: remove little, or give any images of the kind that it will see",
            count,
        )
    x = inputs.arrays[graph.inputs[0]] if len(arrays) == 1 else inputs
    made_of = STATISTICS if layers else NOISE
    return Data(x, np.zeros(count, np.int64), ALL, labelled=False, generated=made_of)


def _noise(
    graph: Graph, name: str, count: int, rng: np.random.Generator, settings: Settings
) -> npt.NDArray[Any]:
    """Smooth noise for one input: pixels where it takes an image. Shapes: `[count, ...]`."""
    dtype = np.dtype(graph.input_forms[name][1])
    sizes = tuple(graph.shape(name) or ())[1:]
    if len(sizes) == 3 and {sizes[0], sizes[2]} & {1, 3}:
        return _image(graph, count, sizes, dtype, rng, settings)
    if dtype.kind != "f" or not sizes:
        raise DataError(
            f"input '{name}': takes {dtype} {list(sizes)}, for which no values can be made up; "
            "give --data"
        )
    return smooth_noise(count, sizes[0], sizes[1:], rng).astype(dtype)


def _image(
    graph: Graph,
    count: int,
    sizes: tuple[int, ...],
    dtype: np.dtype[Any],
    rng: np.random.Generator,
    settings: Settings,
) -> npt.NDArray[Any]:
    """Noise as the pixels of an image, scaled as the model takes them."""
    last = sizes[0] not in (1, 3)
    channels, plane = (sizes[2], sizes[:2]) if last else (sizes[0], sizes[1:])
    preset = settings.preprocess
    if preset == "auto" and len(graph.inputs) == 1:
        preset = find_scaling(graph).preset
    elif preset == "auto":
        preset = "raw" if dtype.kind in "iu" else "imagenet" if channels == 3 else "unit"
    pixels = find_preset(preset)(noisy_pixels(count, channels, plane, rng))
    scaled = pixels if last else pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(scaled).astype(dtype)
