"""Models in files and in memory: read, checked, copied without their weights, written whole.

A protobuf message holds at most 2 GB. A larger model keeps its weights in a second file beside the
first (ONNX's external data); here, whatever looks at a whole model looks at its **shell**, the
model without large weights, which is small whatever the model's size.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnxprune.checks import kind_of
from onnxprune.errors import InvalidModel, InvalidType
from onnxprune.files import write_whole
from onnxprune.graph.large_weights import AS_THEY_LIE, NONE_APART, Weight, Weights
from onnxprune.graph.wire import Take, prefix, read_pieces

ModelSource = str | Path | ModelProto

LARGE = 1024
"""Elements; larger constants are weights, and no part of a shell."""

MESSAGE_LIMIT = 2**31 - 2**20
"""Bytes of one protobuf message, less what the shell may need beside the weights."""

DIGITS = 16
"""Of the SHA-256 of weights in a file of their own, which name it."""

IN_PIECES = 2**24
"""Bytes; larger files are read weight by weight."""


def load_model(source: ModelSource) -> ModelProto:
    """Read a model from a file, with its external data, or return the one given.

    Raises: InvalidModel when there is no such file or it is not ONNX; InvalidType for a model of
    another kind.
    """
    return source if isinstance(source, ModelProto) else _load(_path(source), _leave)


def load_apart(source: ModelSource) -> tuple[ModelProto, Weights]:
    """Read a model and, apart from it, the values of large weights; one given is returned as it is.

    Raises: InvalidModel as `load_model` does.
    """
    if isinstance(source, ModelProto):
        return source, {}
    path, weights = _path(source), dict[str, Weight]()

    def take(tensor: TensorProto, start: int, end: int) -> bool:
        if not _lies_plain(tensor, end - start):
            return False
        with path.open("rb") as file:
            file.seek(start)
            raw = np.frombuffer(file.read(end - start), AS_THEY_LIE[tensor.data_type])
        values = raw.reshape(tensor.dims)
        weights[tensor.name] = Weight(lambda: values)  # read-only, as those of a message are
        return True

    model = _load(path, take)
    if weights and len({t.name for t in model.graph.initializer}) < len(model.graph.initializer):
        return load_model(path), {}
    return model, weights


def check_proto(model: Any, expected: str = "an onnx.ModelProto; Graph.load reads a file") -> None:
    """Refuse what is not a model in memory.

    Raises: InvalidType saying how to make a model of it.
    """
    if isinstance(model, ModelProto):
        return
    hint = ""
    if isinstance(getattr(model, "model", None), ModelProto):
        hint = ": give its .model"
    elif isinstance(model, bytes | bytearray):
        hint = "; onnx.load_model_from_string reads bytes"
    elif hasattr(model, "state_dict"):
        hint = "; torch.onnx.export or 'onnxprune convert' writes one of it"
    raise InvalidType(f"model: is {kind_of(model)}; expected {expected}{hint}")


def _path(source: Any) -> Path:
    if not isinstance(source, str | os.PathLike):
        check_proto(source, "the path of an ONNX model or an onnx.ModelProto")
    return Path(source)


def fill(model: ModelProto, weights: Weights) -> ModelProto:
    """Put the weights that are held apart from a model into it, and return it."""
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights[tensor.name].raw()
    return model


def _lies_plain(tensor: TensorProto, length: int) -> bool:
    """Say whether so many bytes of a file, and nothing else, are a weight's values as an array."""
    kind = AS_THEY_LIE.get(tensor.data_type)
    return (
        kind is not None
        and sys.byteorder == "little"
        and is_large(tensor)
        and math.prod(tensor.dims) * np.dtype(kind).itemsize == length
        and not tensor.HasField("raw_data")
        and tensor.data_location != TensorProto.EXTERNAL
    )


def _leave(tensor: TensorProto, start: int, end: int) -> bool:
    return False


def _load(path: Path, take: Take) -> ModelProto:
    if not path.is_file():
        raise InvalidModel(f"{path}: no such file; give the path of an ONNX model")
    try:
        model = _read(path, take)
    except (DecodeError, ValueError) as error:
        raise InvalidModel(
            f"{path}: not an ONNX model, or cut short ({path.stat().st_size} bytes); "
            f"export it again"
        ) from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise InvalidModel(f"{path}: cannot be read ({_first_line(error)})") from error
    if not model.graph.node:
        raise InvalidModel(f"{path}: not an ONNX model, or one without nodes; export it again")
    return model


def _read(path: Path, take: Take) -> ModelProto:
    if path.suffix != ".onnx" or path.stat().st_size < IN_PIECES:
        return onnx.load(str(path))
    model = read_pieces(path, take)
    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def save_model(
    model: ModelProto,
    path: str | Path,
    *,
    weights: Weights = NONE_APART,
    limit: int | None = None,
) -> Path:
    """Write a model whole, or not at all; weights of one beyond `limit` bytes into a second file.

    That file is named by what is in it, `PATH.<digits>.data`, so that a model never refers to the
    weights of another one, whenever its writer is killed. The one of the model that is replaced
    goes when its successor stands.
    `weights` are the values of those initializers that `model` holds without.
    Raises: OutputError when the place is not writable.
    """
    path = Path(path)
    if fits_message(model, limit):
        written = write_whole(path, _message(model, weights))
        _sweep(path, keep=None)
        return written
    large = list(filter(is_large, model.graph.initializer))
    found = hashlib.sha256()
    for tensor in large:
        for piece in _values(tensor, weights):
            found.update(piece)
    data = path.with_name(f"{path.name}.{found.hexdigest()[:DIGITS]}.data")
    write_whole(data, (piece for t in large for piece in _values(t, weights)))
    write_whole(path, _stub(model, large, data.name).SerializeToString())
    _sweep(path, keep=data)
    return path


def file_size(model: ModelProto, limit: int | None = None) -> int:
    """Return how many bytes `save_model` writes of a model, in one file or two.

    Of two, the first names the second; what that takes is not known here.
    """
    if fits_message(model, limit):
        return sum(map(len, _message(model, NONE_APART)))
    large = list(filter(is_large, model.graph.initializer))
    stub = _stub(model, large, "x" * DIGITS)
    return int(stub.ByteSize()) + sum(map(_byte_count, large))


def _sweep(path: Path, *, keep: Path | None) -> None:
    """Remove the weights of models that stood at this path before."""
    own = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{DIGITS}}}\.data")
    for other in path.parent.iterdir():
        if other != keep and own.fullmatch(other.name):
            other.unlink(missing_ok=True)


def _stub(model: ModelProto, large: Sequence[TensorProto], location: str) -> ModelProto:
    """A model whose large weights lie one after another in the file of that name."""
    stub, offset = shell(model), 0
    for tensor in large:
        length = _byte_count(tensor)
        place = stub.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            doc_string=tensor.doc_string,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            place.external_data.add(key=key, value=str(value))
        offset += length
    return stub


def _message(model: ModelProto, weights: Weights) -> Iterator[bytes]:
    """The bytes of a model, in pieces of one tensor each: serialised whole it takes thrice that."""
    head = shell(model, keep=lambda _: False)
    graph = head.graph.SerializeToString()
    head.ClearField("graph")
    tensors = model.graph.initializer
    starts, lengths = [], []
    for tensor in tensors:
        start, values = _split(tensor, weights)
        starts.append(prefix(model.graph, "initializer", len(start) + values) + start)
        lengths.append(values)
    yield head.SerializeToString()
    yield prefix(model, "graph", len(graph) + sum(map(len, starts)) + sum(lengths))
    yield graph
    for tensor, start, values in zip(tensors, starts, lengths, strict=True):
        yield start
        if values:
            yield from _values(tensor, weights)


def _split(tensor: TensorProto, weights: Weights) -> tuple[bytes, int]:
    """The bytes of a tensor up to its raw values, and the number of those that follow."""
    raw = tensor.HasField("raw_data") or tensor.name in weights
    if not is_large(tensor) or not raw:
        return tensor.SerializeToString(), 0
    values = _byte_count(tensor)
    head = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    if tensor.HasField("doc_string"):
        head.doc_string = tensor.doc_string
    head.metadata_props.extend(tensor.metadata_props)
    return head.SerializeToString() + prefix(tensor, "raw_data", values), values


@contextmanager
def session_source(model: ModelSource) -> Iterator[bytes | str]:
    """Give what a runtime's session is built from: bytes, or a file where those would not fit.

    A file made here is gone when the session stands.
    """
    if not isinstance(model, ModelProto):
        yield str(model)
    elif fits_message(model):
        yield model.SerializeToString()
    else:
        with TemporaryDirectory(prefix="onnxprune-") as folder:
            yield str(save_model(model, Path(folder) / "model.onnx"))


def fits_message(model: ModelProto, limit: int | None = None) -> bool:
    """Say whether a model can be one protobuf message of at most `limit` bytes."""
    return sum(map(_byte_count, model.graph.initializer)) <= (limit or MESSAGE_LIMIT)


def is_large(tensor: TensorProto) -> bool:
    """Say whether a tensor is a weight that a shell leaves out."""
    return bool(math.prod(tensor.dims) > LARGE)


def shell(model: ModelProto, *, keep: Callable[[TensorProto], bool] | None = None) -> ModelProto:
    """Return a copy of a model with those initializers that `keep` approves: the small ones."""
    keep = keep or (lambda tensor: not is_large(tensor))
    copy = ModelProto()
    _copy_fields(model, copy, leave="graph")
    _copy_fields(model.graph, copy.graph, leave="initializer")
    copy.graph.initializer.extend(tensor for tensor in model.graph.initializer if keep(tensor))
    return copy


def typed_shell(model: ModelProto) -> ModelProto:
    """Return a valid model in which weights are inputs: they have types and no values."""
    copy = shell(model)
    declared = {value.name for value in model.graph.input}
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if is_large(tensor) and tensor.name not in declared
    )
    return copy


def check_model(model: ModelProto) -> None:
    """Check a model, but for the values of its weights, by ONNX's own checker.

    Raises: InvalidModel naming what is wrong.
    """
    where = f"graph '{model.graph.name}'"
    for tensor in filter(is_large, model.graph.initializer):
        if tensor.data_location == TensorProto.EXTERNAL:
            raise InvalidModel(
                f"{where}: the values of weight '{tensor.name}' are in another file that was not "
                f"read; give the path of the model in place of the model"
            )
    try:
        onnx.checker.check_model(typed_shell(model))
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidModel(
            f"{where}: not valid ONNX: {_first_line(error)}; export it again"
        ) from error


def read_tensor(tensor: TensorProto) -> npt.NDArray[Any]:
    """Return the values of a tensor.

    Raises: InvalidModel when it holds fewer or more than its shape says.
    """
    try:
        return numpy_helper.to_array(tensor)
    except ValueError as error:
        raise InvalidModel(
            f"weight '{tensor.name}': its values do not fill its shape {list(tensor.dims)}; "
            f"export the model again"
        ) from error


def digest(model: ModelProto) -> str:
    """Return the SHA-256 of a model, weights included, as hexadecimal digits."""
    found = hashlib.sha256(shell(model).SerializeToString(deterministic=True))
    for tensor in filter(is_large, model.graph.initializer):
        found.update(_raw(tensor))
    return found.hexdigest()


def _copy_fields(source: Message, target: Message, *, leave: str) -> None:
    """Copy all set fields of a message but one."""
    for field, value in source.ListFields():
        if field.name == leave:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif isinstance(value, str | bytes | int | float):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).extend(value)


def _byte_count(tensor: TensorProto) -> int:
    """The bytes of a tensor's values; two or four of the smallest types share a byte."""
    elements = int(math.prod(tensor.dims))
    name = TensorProto.DataType.Name(tensor.data_type)
    packed = 2 if "INT4" in name or "FLOAT4" in name else 4 if "INT2" in name else 0
    if packed:
        return -(-elements // packed)
    return elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def _values(tensor: TensorProto, weights: Weights) -> Iterator[bytes]:
    if tensor.name in weights:
        yield from weights[tensor.name].pieces()
    else:
        yield _raw(tensor)


def _raw(tensor: TensorProto) -> bytes:
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
