"""Samples of a detector: images as it sees them, and the objects in them as it numbers them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.data import Data, Form, Placement, decode, fitted, image_size
from onnxprune.detection.annotations import Annotated
from onnxprune.detection.boxes import CLASS, CROWD
from onnxprune.detection.recognise import Detector

logger = logging.getLogger(__name__)


def load_objects(
    found: Annotated,
    detector: Detector,
    shape: Sequence[int | None],
    dtype: npt.DTypeLike,
    preset: str,
    *,
    memory: int | None = None,
) -> Data:
    """Decode the images as the model takes them, with their objects on what it sees.

    Images of more than `memory` are decoded whenever they are needed.
    Units: memory, MB; None, a quarter of what is free.
    Shapes: shape, the model's input without its batch axis.
    Raises: DataError for images that cannot be read.
    """
    form = Form(tuple(shape), np.dtype(dtype), preset, memory=memory)
    x = decode(found.files, form, partial(fitted, fit=detector.fit))
    canvas = (detector.size[1], detector.size[0])
    targets = np.empty(len(found.files), object)
    for row, (file, held) in enumerate(zip(found.files, found.objects, strict=True)):
        targets[row] = _placed(held, Placement.of(image_size(file), canvas, detector.fit))
    logger.info("samples: %s: %s", found.said, _counts(found))
    return Data(
        x,
        np.zeros(len(x), np.int64),
        found.classes,
        preset,
        targets=targets,
        detector=detector,
        names=tuple(file.name for file in found.files),
        units=detector.units,
    )


def _placed(held: FloatArray, place: Placement) -> FloatArray:
    """Shapes: `[m, 6]` -> `[m, 6]`."""
    return np.concatenate([place.boxes(held[:, :CLASS]), held[:, CLASS:]], axis=1)


def _counts(found: Annotated) -> str:
    held: npt.NDArray[Any] = np.concatenate(found.objects)
    kinds = len(np.unique(held[:, CLASS]))
    crowds = int(held[:, CROWD].sum())
    said = f"{len(found.files):,} images, {len(held) - crowds:,} objects of {kinds} classes"
    return f"{said}, {crowds:,} more that are not counted" if crowds else said
