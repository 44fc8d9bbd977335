"""Copies of models of any size: a weight is handed on as bytes, not through a message."""

from __future__ import annotations

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

HANDED_ON = 2**24
"""Bytes; what is larger is not serialised on its way, as protobuf's own copy does it."""


def copied(model: ModelProto) -> ModelProto:
    """Return a copy of a model, which may exceed the 2 GB of a message."""
    found = ModelProto()
    copy_fields(model, found, leave="graph")
    copy_fields(model.graph, found.graph, leave="initializer")
    for tensor in model.graph.initializer:
        _copy(tensor, found.graph.initializer.add())
    return found


def _copy(tensor: TensorProto, place: TensorProto) -> None:
    if len(tensor.raw_data) < HANDED_ON:
        place.CopyFrom(tensor)
    else:
        copy_fields(tensor, place, leave="")


def copy_fields(source: Message, target: Message, *, leave: str) -> None:
    """Copy every field that is set in a message, except the field `leave`."""
    for field, value in source.ListFields():
        if field.name == leave:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)
