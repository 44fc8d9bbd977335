"""Large weights held apart from the message that names them: read, cut and written piece by piece.

A protobuf message copies what it is given and what it gives. A weight that goes from one file to
another need not pass through one.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

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
        """Return the values as ONNX stores them."""
        return _raw(self.array())

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


VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
"""The kinds of values that ONNX uses."""


WHOLE = 2**16
"""Bytes; longer initializers are read one by one."""


BEFORE_VALUES = 64
"""Fields of an initializer that may stand before its raw values; exporters write half a dozen."""


Take = Callable[[TensorProto, int, int], bool]
"""Given an initializer without its raw values, and where in the file these start and end: say
whether they are taken, and so no part of the model."""


Field = tuple[int, int, int, int]
"""Number, where the field starts, where its value starts (behind the length), where it ends."""


def prefix(message: Message, field: str, length: int) -> bytes:
    """Return what stands before a field of so many bytes."""
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return bytes(_varint(number << 3 | DELIMITED)) + bytes(_varint(length))


def read_pieces(path: Path, take: Take = lambda *_: False) -> ModelProto:
    """Read a model without holding the file in memory beside it, less the values that `take` takes.

    Raises: DecodeError when the file is not a model; ValueError when it is empty.
    """
    model = ModelProto()
    graph_number: int = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        for number, start, value, end in _fields(view, 0, len(view)):
            if number == graph_number:
                _merge_graph(model, view, value, end, take)
            else:
                model.MergeFromString(view[start:end])
    return model


def _merge_graph(model: ModelProto, view: mmap.mmap, start: int, end: int, take: Take) -> None:
    """Merge the fields of a graph in their order: large initializers one by one, others in runs."""
    graph = model.graph
    large: int = graph.DESCRIPTOR.fields_by_name["initializer"].number
    done = start
    for number, begin, value, stop in _fields(view, start, end):
        if number == large and stop - value > WHOLE:
            graph.MergeFromString(view[done:begin])
            _merge_tensor(graph.initializer.add(), view, value, stop, take)
            done = stop
    graph.MergeFromString(view[done:end])


def _merge_tensor(tensor: TensorProto, view: mmap.mmap, start: int, end: int, take: Take) -> None:
    """Merge an initializer, less its raw values if these are taken."""
    raw: int = tensor.DESCRIPTOR.fields_by_name["raw_data"].number
    for number, begin, value, stop in islice(_fields(view, start, end), BEFORE_VALUES):
        if number == raw:
            tensor.MergeFromString(view[start:begin])
            tensor.MergeFromString(view[stop:end])
            if take(tensor, value, stop):
                return
            tensor.Clear()
            break
    tensor.MergeFromString(view[start:end])


def _fields(view: mmap.mmap, at: int, end: int) -> Iterator[Field]:
    """The fields that lie between two places of a file."""
    while at < end:
        start = at
        key, at = _read_varint(view, at, end)
        kind, length = key & 7, 0
        if kind == VARINT:
            _, value = _read_varint(view, at, end)
        elif kind == DELIMITED:
            length, value = _read_varint(view, at, end)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            value, length = at, 8 if kind == EIGHT_BYTES else 4
        else:
            raise DecodeError(f"byte {start}: value of unknown kind {kind}")
        at = value + length
        if at > end:
            raise DecodeError(f"byte {start}: {length} bytes expected, {end - value} found")
        yield key >> 3, start, value, at


def _read_varint(view: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number, seven bits a byte, the lowest first, and the place behind it."""
    number = 0
    for place in range(at, min(at + 10, end)):
        byte = view[place]
        number |= (byte & 127) << 7 * (place - at)
        if byte < 128:
            return number, place + 1
    raise DecodeError(f"byte {at}: a number without an end")


def _varint(number: int) -> Iterator[int]:
    while number > 127:
        yield number & 127 | 128
        number >>= 7
    yield number
