"""Read, check and write models of any size, without serialising one whole.

A protobuf message holds at most 2 GB. A larger model keeps its weights in a second file (ONNX's
external data). Functions that need the whole model, but no large weight, work on its **shell**: a
copy without the large weights, which is small however large the model is.
"""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from onnxprune.checks import kind_of
from onnxprune.errors import InvalidModel, InvalidType, InvalidValue
from onnxprune.files import find_place, write_whole
from onnxprune.graph.copies import copy_fields
from onnxprune.graph.in_kind import is_foreign, read_foreign
from onnxprune.graph.large_weights import AS_THEY_LIE, NONE_APART, Weight, Weights
from onnxprune.graph.order import sort_nodes
from onnxprune.graph.second_file import (
    DIGITS,
    check_own_place,
    held,
    second_file,
    sweep_weights,
)
from onnxprune.graph.soundness import check_external, check_sound
from onnxprune.graph.wire import Take, prefix, read_pieces

if TYPE_CHECKING:
    import onnx_graphsurgeon
    import onnx_ir

Hold = Callable[[TensorProto, npt.NDArray[Any]], None]
"""Takes the values of an initializer, which is then no longer told where they lie."""

ModelSource = Union[str, Path, ModelProto, "onnx_graphsurgeon.Graph", "onnx_ir.Model"]

LARGE = 1024
"""Elements. A shell leaves out the initializers that have more."""

MESSAGE_LIMIT = 2**31 - 2**20
"""Bytes of weights in one protobuf message: its limit, less room for the shell."""

NOT_ONNX = (DecodeError, ValueError)
"""What protobuf raises for the content of a file."""

IN_PIECES = 2**24
"""Bytes. Larger files are read one weight at a time."""


def load_model(source: ModelSource) -> ModelProto:
    """Read a model from a file, with its external data. A ModelProto is returned as it is.

    A graph of onnx-graphsurgeon and a model of onnx_ir are written into a new one. The nodes of a
    file are sorted where they do not stand in an order in which they run.
    Raises: InvalidModel for no file, or no ONNX in it; InvalidType for no path and no model.
    """
    if is_foreign(source):
        return read_foreign(source)
    return source if isinstance(source, ModelProto) else _load(path_of(source), _leave)


def load_apart(source: ModelSource, *, mapped: bool = False) -> tuple[ModelProto, Weights]:
    """Read a model from a file, and the values of its large weights apart from it.

    Those in a second file are mapped. Those in the file itself, which seldom lie where numbers
    should, are read, unless they are asked for `mapped`. A model in memory is returned as
    `load_model` does, with no weights apart.
    Raises: as `load_model`.
    """
    if isinstance(source, ModelProto) or is_foreign(source):
        return load_model(source), {}
    path, weights = path_of(source), dict[str, Weight]()

    def take(tensor: TensorProto, start: int, end: int) -> bool:
        if tensor.data_location == TensorProto.EXTERNAL or not _lies_plain(tensor, end - start):
            return False
        kind, dims = AS_THEY_LIE[tensor.data_type], tuple(tensor.dims)
        values: npt.NDArray[Any] = np.memmap(path, kind, "r", start, dims)
        values = values if mapped else np.array(values)
        values.flags.writeable = False  # like values in a message
        weights[tensor.name] = Weight(lambda: values)
        return True

    def hold(tensor: TensorProto, values: npt.NDArray[Any]) -> None:
        weights[tensor.name] = Weight(lambda: values)

    model = _load(path, take, hold)
    # `weights` goes by name: two initializers of one name cannot both be held apart.
    if weights and len({t.name for t in model.graph.initializer}) < len(model.graph.initializer):
        return load_model(path), {}
    return model, weights


def check_proto(model: Any, expected: str = "an onnx.ModelProto; Graph.load reads a file") -> None:
    """Check that `model` is a model in memory.

    Raises: InvalidType when it is not; the message says how to make one of what was given.
    """
    if isinstance(model, ModelProto):
        return
    hint = ""
    held = getattr(model, "model", None)
    if isinstance(held, ModelProto) or is_foreign(held):
        hint = ": give its .model"
    elif is_foreign(model):
        hint = "; Graph.load takes it"
    elif isinstance(model, bytes | bytearray):
        hint = "; onnx.load_model_from_string reads bytes"
    elif hasattr(model, "state_dict"):
        hint = "; torch.onnx.export or 'onnxprune convert' writes one of it"
    raise InvalidType(f"model: is {kind_of(model)}; expected {expected}{hint}")


def path_of(source: Any) -> Path:
    """Return the path that a source is.

    Raises: InvalidType when it is none.
    """
    if not isinstance(source, str | os.PathLike):
        check_proto(source, "the path of an ONNX model or an onnx.ModelProto")
    return Path(source)


def fill(model: ModelProto, weights: Weights) -> ModelProto:
    """Copy weights that are held apart into their model, in place, and return the model."""
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            tensor.raw_data = weights[tensor.name].raw()
    return model


def _lies_plain(tensor: TensorProto, length: int) -> bool:
    """Return True if `length` bytes of a file are the values of a large weight, as numpy reads."""
    kind = AS_THEY_LIE.get(tensor.data_type)
    return (
        kind is not None
        and sys.byteorder == "little"
        and is_large(tensor)
        and math.prod(tensor.dims) * np.dtype(kind).itemsize == length
        and not tensor.HasField("raw_data")
    )


def _leave(tensor: TensorProto, start: int, end: int) -> bool:
    """Hold no weight apart. A `Take`, as `read_pieces` asks for."""
    return False


def _load(path: Path, take: Take, hold: Hold | None = None) -> ModelProto:
    if not path.is_file():
        raise InvalidModel(f"{path}: no such file; give the path of an ONNX model")
    try:
        model = _read(path, take, hold)
    except InvalidValue:  # of the environment; no fault of the file
        raise
    except NOT_ONNX as error:
        raise InvalidModel(
            f"{path}: not an ONNX model, or cut short ({path.stat().st_size} bytes); "
            f"export it again"
        ) from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise InvalidModel(f"{path}: cannot be read ({first_line(error)})") from error
    if not model.graph.node:
        raise InvalidModel(f"{path}: not an ONNX model, or one without nodes; export it again")
    return sort_nodes(model)


def _read(path: Path, take: Take, hold: Hold | None) -> ModelProto:
    if path.stat().st_size < IN_PIECES:
        # As bytes, whatever the file is called: ONNX's parsers of text crash on some texts.
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    else:
        model = read_pieces(path, take)
    check_sound(model, read=False)
    check_external(model, path.parent)
    if hold is not None:
        for tensor in model.graph.initializer:
            values = _mapped(tensor, path.parent)
            if values is not None:
                hold(tensor, values)
                tensor.data_location = TensorProto.DEFAULT
                del tensor.external_data[:]
    onnx.load_external_data_for_model(model, str(path.parent))
    return model


def _mapped(tensor: TensorProto, folder: Path) -> npt.NDArray[Any] | None:
    """Map the values of a large weight that lie in a second file, as numpy reads them."""
    if not uses_external_data(tensor):
        return None
    place = ExternalDataInfo(tensor)
    path, start = folder / place.location, place.offset or 0
    length = place.length or path.stat().st_size - start
    if not _lies_plain(tensor, length):
        return None
    kind = AS_THEY_LIE[tensor.data_type]
    return np.asarray(np.memmap(path, kind, "r", start, tuple(tensor.dims)))


def save_model(
    model: ModelProto,
    path: str | Path,
    *,
    weights: Weights = NONE_APART,
    limit: int | None = None,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """Write a model whole or not at all. Beyond `limit` bytes, its weights get a second file.

    The second file, `PATH.<digits>.data`, is named by a hash of its content. So a model never
    refers to another model's weights, even if its writer is killed. It is written first; those that
    no model of the folder names are removed last.
    `weights` are the values of those initializers that `model` declares without values. `check`
    reads the file before it takes its name; what it raises leaves nothing behind.
    Raises: OutputError when the place is not writable.
    """
    find_place(path)
    path = Path(path)
    large = list(filter(is_large, model.graph.initializer))
    try:
        if fits_message(model, limit) or not large:
            return write_whole(path, _message(model, weights), check)
        check_own_place(path)
        found = hashlib.sha256()
        for tensor in large:
            for piece in values_of(tensor, weights):
                found.update(piece)
        data = second_file(path, found.hexdigest())
        with held(data, lambda: (piece for t in large for piece in values_of(t, weights))):
            return write_whole(path, stub(model, large, data.name).SerializeToString(), check)
    finally:
        sweep_weights(path)


def file_size(model: ModelProto, limit: int | None = None) -> int:
    """Return how many bytes `save_model` writes for a model, in one file or two.

    For two files, the result is a few bytes too low for each large weight: the name of the second
    file stands beside each, and is not known here.
    """
    if fits_message(model, limit):
        return sum(map(len, _message(model, NONE_APART)))
    large = list(filter(is_large, model.graph.initializer))
    head = stub(model, large, "x" * DIGITS)
    return int(head.ByteSize()) + sum(map(byte_count, large))


def stub(model: ModelProto, large: Sequence[TensorProto], location: str) -> ModelProto:
    """Return a copy of a model whose large weights lie one after another in file `location`."""
    head, offset = shell(model), 0
    for tensor in large:
        length = byte_count(tensor)
        place = head.graph.initializer.add(
            name=tensor.name,
            data_type=tensor.data_type,
            dims=tensor.dims,
            doc_string=tensor.doc_string,
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", location), ("offset", offset), ("length", length)):
            place.external_data.add(key=key, value=str(value))
        offset += length
    return head


def _message(model: ModelProto, weights: Weights) -> Iterator[bytes]:
    """Yield a model's bytes, tensor by tensor. Serialising it whole takes three times its size."""
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
            yield from values_of(tensor, weights)


def _split(tensor: TensorProto, weights: Weights) -> tuple[bytes, int]:
    """Return the bytes of a tensor before its raw values, and how many bytes of values follow."""
    raw = tensor.HasField("raw_data") or tensor.name in weights
    if not is_large(tensor) or not raw:
        return tensor.SerializeToString(), 0
    values = byte_count(tensor)
    head = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    if tensor.HasField("doc_string"):
        head.doc_string = tensor.doc_string
    head.metadata_props.extend(tensor.metadata_props)
    return head.SerializeToString() + prefix(tensor, "raw_data", values), values


def fits_message(model: ModelProto, limit: int | None = None) -> bool:
    """Return True if the weights of a model fit into one protobuf message of `limit` bytes."""
    return sum(map(byte_count, model.graph.initializer)) <= (limit or MESSAGE_LIMIT)


def is_large(tensor: TensorProto) -> bool:
    """Return True if a tensor is large, so that a shell leaves it out."""
    return bool(math.prod(tensor.dims) > LARGE)


def shell(model: ModelProto, *, keep: Callable[[TensorProto], bool] | None = None) -> ModelProto:
    """Return a copy of a model with only the initializers that `keep` wants: the small ones."""
    keep = keep or (lambda tensor: not is_large(tensor))
    copy = ModelProto()
    copy_fields(model, copy, leave="graph")
    copy_fields(model.graph, copy.graph, leave="initializer")
    copy.graph.initializer.extend(tensor for tensor in model.graph.initializer if keep(tensor))
    return copy


def typed_shell(model: ModelProto) -> ModelProto:
    """Return a shell that is valid ONNX: large weights are inputs, with types and no values."""
    copy = shell(model)
    declared = {value.name for value in model.graph.input}
    copy.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if is_large(tensor) and tensor.name not in declared
    )
    return copy


def read_tensor(tensor: TensorProto) -> npt.NDArray[Any]:
    """Return the values of a tensor as an array.

    Raises: InvalidModel when it holds fewer or more values than its shape says.
    """
    try:
        return numpy_helper.to_array(tensor)
    except ValueError as error:
        raise InvalidModel(
            f"weight '{tensor.name}': its values do not fill its shape {list(tensor.dims)}; "
            f"export the model again"
        ) from error


def digest(model: ModelProto) -> str:
    """Return the SHA-256 of a model and its weights, as hexadecimal digits."""
    found = hashlib.sha256(shell(model).SerializeToString(deterministic=True))
    for tensor in filter(is_large, model.graph.initializer):
        found.update(raw_values(tensor))
    return found.hexdigest()


def byte_count(tensor: TensorProto) -> int:
    """Return how many bytes a tensor's values take. The smallest types pack 2 or 4 into a byte."""
    elements = int(math.prod(tensor.dims))
    name = TensorProto.DataType.Name(tensor.data_type)
    packed = 2 if "INT4" in name or "FLOAT4" in name else 4 if "INT2" in name else 0
    if packed:
        return -(-elements // packed)
    return elements * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def values_of(tensor: TensorProto, weights: Weights) -> Iterator[bytes]:
    """Yield the bytes of a tensor's values, from `weights` if they are held apart."""
    if tensor.name in weights:
        yield from weights[tensor.name].pieces()
    else:
        yield raw_values(tensor)


def raw_values(tensor: TensorProto) -> bytes:
    """Return the bytes of a tensor's values as a file holds them."""
    if tensor.HasField("raw_data"):
        return bytes(tensor.raw_data)
    return bytes(numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data)


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
