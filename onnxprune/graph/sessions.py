"""What a runtime builds a session from: bytes, or files of a model that is too large for those."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import ModelProto

from onnxprune.files import temporary, write_passing
from onnxprune.graph.in_kind import is_foreign
from onnxprune.graph.storage import (
    IN_PIECES,
    NOT_ONNX,
    ModelSource,
    byte_count,
    fits_message,
    is_large,
    load_model,
    path_of,
    raw_values,
    stub,
)

HEAVY = 2**28
"""Bytes. To put a kernel of so many into blocks of channels, as onnxruntime does, takes three times
its memory while a session starts, and once while it runs. It saves little: blocks serve the
positions of a map, and a layer with so many weights has few."""


@contextmanager
def session_source(model: ModelSource) -> Iterator[bytes | str]:
    """Yield what a runtime builds a session from: bytes, or a file if they exceed one message.

    The file is temporary: the session must be built within the `with` block. A file whose name is
    no UTF-8 is read here, because onnxruntime cannot be told of it.
    """
    if not isinstance(model, ModelProto) and not str(model).isprintable():
        model = load_model(model)
    if not isinstance(model, ModelProto):
        yield str(model)
    elif fits_message(model):
        yield model.SerializeToString()
    else:
        with temporary() as folder:
            yield str(_write_passing(model, folder / "model.onnx"))


def _write_passing(model: ModelProto, path: Path) -> Path:
    """Write a model in two files that nobody keeps: no hash names them, no disk is waited for."""
    large = list(filter(is_large, model.graph.initializer))
    data = path.with_suffix(".data")
    write_passing(data, map(raw_values, large))
    return write_passing(path, [stub(model, large, data.name).SerializeToString()])


def split_model(source: ModelSource) -> ModelProto | None:
    """Return a model whose weights need a second file, None for any other.

    One that is read from a file comes without these weights.
    """
    if is_foreign(source):
        return None
    if not isinstance(source, ModelProto):
        path = path_of(source)
        if not path.is_file() or path.stat().st_size >= IN_PIECES:  # it holds its weights itself
            return None
        try:
            source = onnx.load(str(path), format="protobuf", load_external_data=False)
        except NOT_ONNX:
            return None
    return None if fits_message(source) else source


def has_heavy_kernel(model: ModelProto) -> bool:
    """Return True if a convolution has a weight of `HEAVY` bytes or more."""
    read = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    found = (tensor for tensor in model.graph.initializer if tensor.name in read)
    return any(byte_count(tensor) >= HEAVY for tensor in found)
