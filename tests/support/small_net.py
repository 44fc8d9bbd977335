"""A small net that classifies its samples without a fault."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from onnx import ModelProto


@dataclass(frozen=True)
class Small:
    """The net with 14 filters, its file, and samples labelled by itself, eight of each class."""

    proto: ModelProto
    path: Path
    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    data: Path
