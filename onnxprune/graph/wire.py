"""The wire format of protobuf: a model is read from its file field by field.

Parsed whole, a model needs the memory of its file beside its own. Read field by field it does not,
and the raw values of a large initializer can be left in the file.
Source: Protocol Buffers documentation, Encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

VARINT, EIGHT_BYTES, DELIMITED, FOUR_BYTES = 0, 1, 2, 5
"""The wire types that ONNX uses."""

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
