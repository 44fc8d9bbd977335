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
from onnxprune.errors import DataError

logger = logging.getLogger(__name__)

MOST_BYTES = 8 << 30
"""Images that take more memory than this are refused."""


def load_objects(
    found: Annotated,
    detector: Detector,
    shape: Sequence[int | None],
    dtype: npt.DTypeLike,
    preset: str,
) -> Data:
    """Decode the images as the model takes them, with their objects on what it sees.

    Shapes: shape, the model's input without its batch axis.
    Raises: DataError for images that cannot be read, or are too many to hold.
    """
    form = Form(tuple(shape), np.dtype(dtype), preset)
    needed = len(found.files) * int(np.prod(detector.size)) * 3 * form.dtype.itemsize
    if needed > MOST_BYTES:
        raise DataError(
            f"samples: {len(found.files):,} images take {needed / 2**30:.0f} GB; limit them with "
            "--per-class"
        )
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
