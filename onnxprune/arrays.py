"""The kinds of arrays that pass between rooms, what messages call a shape, and what is tied."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

Kept = Mapping[int, BoolArray]
"""Which positions of a tensor survive, for each axis that loses some. Shapes: each `[size]`."""


PIECE = 2**22
"""Bytes of an array that are looked at together."""


def in_pieces(array: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Yield views of an array, a few rows each, so that what is made of them takes little memory.

    Two arrays of one shape come in equal pieces. Shapes: `[n, ...]` -> `[m, ...]`.
    """
    if array.ndim == 0:
        yield array
        return
    rows = max(1, PIECE // max(8 * int(np.prod(array.shape[1:])), 1))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def is_finite(array: npt.NDArray[Any]) -> bool:
    """Say whether no value is NaN or infinite. Shapes: any."""
    return all(bool(np.isfinite(piece).all()) for piece in in_pieces(array))


def is_float(array: npt.NDArray[Any]) -> bool:
    """Say whether an array holds floating-point numbers, bfloat16 and float16 included.

    Shapes: any.
    """
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16" or array.dtype.kind == "V"


def dims(shape: Sequence[int] | IntArray | None) -> str:
    """Return a shape as messages write it. Shapes: shape `[rank]`."""
    return "unknown" if shape is None else str([int(d) for d in shape])


def united(left: IntArray, right: IntArray, count: int) -> IntArray:
    """Return the class of each of `count` numbers when pairs of them are tied.

    Classes are numbered from 0, in the order of their first members.
    Shapes: left and right `[pairs]`, their numbers below `count`, -> `[count]`.
    """
    from scipy.sparse import coo_array  # scipy takes longer to import than numpy and onnx together
    from scipy.sparse.csgraph import connected_components

    ties = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(count, count))
    _, of = connected_components(ties, directed=False)
    return of.astype(np.int64)  # type: ignore[no-any-return]


class _Shared:
    """The memory of an array, whoever may write to it."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array
        place, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (place, False)}


def shared(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in the same memory that says it may be written to, for who never does.

    Shapes: any.
    """
    return np.asarray(_Shared(np.ascontiguousarray(array)))
