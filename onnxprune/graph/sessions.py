"""What a runtime builds a session from: bytes, or files of a model whose weights it maps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import onnx
from onnx import ModelProto

from onnxprune.errors import InvalidModel, OutputError
from onnxprune.files import temporary, write_passing
from onnxprune.graph.in_kind import is_foreign
from onnxprune.graph.large_weights import NONE_APART, Weights
from onnxprune.graph.runtime_form import runnable
from onnxprune.graph.storage import (
    NOT_ONNX,
    ModelSource,
    byte_count,
    fits_message,
    is_large,
    load_apart,
    load_model,
    path_of,
    stub,
    values_of,
)

HEAVY = 2**28
"""Bytes. To put a kernel of so many into blocks of channels, as onnxruntime does, takes three times
its memory while a session starts, and once while it runs. It saves little: blocks serve the
positions of a map, and a layer with so many weights has few."""


MAPPED = 2**28
"""Bytes of weights from which on a runtime maps them from a second file. As part of a message they
are held three times while a session starts, and copying them costs more than writing a file."""


@contextmanager
def session_source(model: ModelSource) -> Iterator[tuple[bytes | str, ModelProto | None]]:
    """Yield what a runtime builds a session from, bytes or a file, and the model if it is mapped.

    A mapped model, of `MAPPED` bytes or more, comes without its large weights. The file may be
    temporary: the session must be built within the `with` block. A file whose name is no UTF-8 is
    read here, because onnxruntime cannot be told of it. What onnxruntime stumbles over is left out.
    Raises: OutputError where there is no room for the file of a model that exceeds one message.
    """
    if is_foreign(model) or not (isinstance(model, ModelProto) or str(model).isprintable()):
        model = load_model(model)
    found, weights = _read(model)
    if found is not None and runnable(found) is not found:
        model = found = runnable(load_model(model))
        weights = NONE_APART
    if found is None or fits_message(found, MAPPED):
        yield _whole(model), None
        return
    large = list(filter(is_large, found.graph.initializer))
    head = stub(found, large, DATA)
    if not isinstance(model, ModelProto) and not weights:
        del found, large
        yield str(model), head
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(temporary())
            write_passing(folder / DATA, (piece for t in large for piece in values_of(t, weights)))
            path = write_passing(folder / "model.onnx", [head.SerializeToString()])
        except OutputError:
            if not fits_message(found):
                raise
            yield _whole(model), head
            return
        del found, large, weights  # no longer mapped
        yield str(path), head


DATA = "model.data"
"""The file of the weights that nobody keeps: no hash names it, no disk is waited for."""


def _whole(model: ModelSource) -> bytes | str:
    return model.SerializeToString() if isinstance(model, ModelProto) else str(model)


def _read(source: ModelSource) -> tuple[ModelProto | None, Weights]:
    """Return a model, and those of its weights which a file has to give up to have them mapped.

    There is none where a file cannot be read: the runtime says why.
    """
    if isinstance(source, ModelProto):
        return source, NONE_APART
    path = path_of(source)
    try:
        if path.stat().st_size >= MAPPED:
            return load_apart(path, mapped=True)
        return onnx.load(str(path), format="protobuf", load_external_data=False), NONE_APART
    except (*NOT_ONNX, OSError, InvalidModel):
        return None, NONE_APART


def has_heavy_kernel(model: ModelProto) -> bool:
    """Return True if a convolution has a weight of `HEAVY` bytes or more."""
    read = {node.input[1] for node in model.graph.node if node.op_type == "Conv"}
    found = (tensor for tensor in model.graph.initializer if tensor.name in read)
    return any(byte_count(tensor) >= HEAVY for tensor in found)
