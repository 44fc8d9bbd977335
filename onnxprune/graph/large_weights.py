"""Large weights, held apart from the message that names them: cut and written piece by piece.

A protobuf message copies what it is given and what it gives. A weight that goes from one file to
another need not pass through one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto

from onnxprune.arrays import Kept

Array = npt.NDArray[Any]

PIECE = 2**18
"""Elements of a weight that are cut at once: 1 MiB in float32, which a cache holds."""

AS_THEY_LIE: Mapping[int, str] = {
    TensorProto.FLOAT: "<f4",
    TensorProto.DOUBLE: "<f8",
    TensorProto.FLOAT16: "<f2",
}
"""Element types whose raw values in a file are an array."""


@dataclass(frozen=True)
class Weight:
    """A weight read on demand; `kept` masks the positions that survive on each axis.

    Shapes: `read()` is that of the whole weight.
    """

    read: Callable[[], Array]
    kept: Kept = field(default_factory=dict)

    def array(self) -> Array:
        """Return the values that are kept, in memory of their own where some are not.

        Shapes: the lengths of its axes are the numbers of kept positions.
        """
        return compress(self.read(), self.kept)

    def raw(self) -> bytes:
        """Return the values as ONNX stores them, without a copy of those that are kept."""
        found = BytesIO()
        for piece in self.pieces():
            found.write(piece)
        return found.getvalue()

    def pieces(self) -> Iterator[bytes]:
        """Yield the values as ONNX stores them, a few rows at a time."""
        values = self.read()
        rows = np.flatnonzero(self.kept.get(0, np.ones(len(values), np.bool_)))
        places = {axis: np.flatnonzero(alive) for axis, alive in self.kept.items() if axis}
        step = max(1, PIECE // max(math.prod(values.shape[1:]), 1))
        for k in range(0, len(rows), step):
            piece = values[rows[k : k + step]] if 0 in self.kept else values[k : k + step]
            for axis, chosen in places.items():
                piece = piece.take(chosen, axis)
            yield _raw(piece)


Weights = Mapping[str, Weight]
"""Large weights by the names of the initializers that hold no values."""

NONE_APART: Weights = MappingProxyType({})


def _raw(array: Array) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def compress(array: Array, kept: Kept) -> Array:
    """Return the kept positions of an array.

    Shapes: array `[*n]` -> the lengths of its axes are the numbers of kept positions.
    """
    for axis, alive in kept.items():
        array = np.compress(alive, array, axis)
    return array
