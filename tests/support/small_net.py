"""A small net that classifies its samples without a fault."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from tests.support.models import run


@dataclass(frozen=True)
class Small:
    """The net with 14 filters, its file, and samples labelled by itself, eight of each class."""

    proto: ModelProto
    path: Path
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    data: Path


def labelled_by(
    proto: ModelProto, count: int, side: int, classes: int, each: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Grey images of many contrasts, as many of each class that a net itself gives them.

    Of `count` images that are drawn the first `each` of a class are taken.
    Shapes: `[classes * each, 1, side, side]`, `[classes * each]`.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(count, 1, side, side)) * rng.uniform(0, 2, (count, 1, 1, 1))
    x = (x + rng.uniform(-2, 2, (count, 1, 1, 1))).astype(np.float32)
    labels = run(proto, x)[0].argmax(1)
    chosen = np.concatenate([np.flatnonzero(labels == k)[:each] for k in range(classes)])
    assert chosen.size == classes * each
    return x[chosen], labels[chosen]
