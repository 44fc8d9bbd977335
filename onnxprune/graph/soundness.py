"""Whether a model is what it says: looked at before anything is done with it.

ONNX's checker takes a model whose names are no text, whose weights hold fewer values than their
shapes declare, whose functions call each other in a circle, and its own readers then fail or take
all memory. So what this package reads of a message is checked here, once, and nothing is allocated
for a size that only a file states.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    NodeProto,
    SparseTensorProto,
    TensorProto,
    ValueInfoProto,
    helper,
)

from onnxprune.errors import InvalidModel, InvalidValue
from onnxprune.graph.order import Body, with_subgraphs

MOST_NODES = 15_000
"""Nodes of a model, its functions written out; to look at more may take more than 10 seconds."""
LINKS = 10
"""Inputs and outputs of all nodes, for each of so many nodes."""
NODES = "ONNXPRUNE_NODES"
"""The environment variable that names another number of nodes."""

PACKED = {"INT4": 4, "FLOAT4": 4, "INT2": 2, "FLOAT6": 6}
"""Bits of an element, by a part of its type's name, of those that are less than a byte."""

STATE_SIZES = frozenset(
    "blocksize dilations group hidden_size kernel_shape output_padding output_shape pads "
    "pooled_shape split strides".split()
)
MOST_STATED = 2**24
"""The largest window, step or width that an attribute may state."""

NOT_NEGATIVE = "batch_dims"
"""An attribute that ONNX takes as it is, and so reads what lies before a shape (GatherND)."""

WITH_VALUE = frozenset(AttributeProto.AttributeType.values()) - {AttributeProto.UNDEFINED}
TYPES = frozenset(helper.get_all_tensor_dtypes())


def check_sound(model: ModelProto, *, apart: Collection[str] = (), read: bool = True) -> None:
    """Refuse a model that contradicts itself before anything is read of it.

    `apart` are the initializers whose values are held elsewhere. `read` says that the values of
    weights have been read; before that only texts and types are looked at.
    Raises: InvalidModel naming the place.
    """
    functions = {(one.domain, one.name): one for one in model.functions}
    _check_texts((*(one.domain for one in model.opset_import), model.producer_name), "the model")
    for one in (*model.opset_import, *(o for f in model.functions for o in f.opset_import)):
        if not 0 < one.version < 2**31:
            raise InvalidModel(
                f"the model: imports version {one.version} of '{one.domain or 'ai.onnx'}'; "
                f"expected a positive one; export it again"
            )
    for function in model.functions:
        texts = (function.name, function.domain, *function.input, *function.output)
        _check_texts((*texts, *function.attribute), "a function")
        _check_texts((one.domain for one in function.opset_import), "a function")
    for top in (model.graph, *model.functions):
        for body in with_subgraphs(top):
            _check_body(body, apart, read=read, inside=isinstance(top, FunctionProto))
    _check_size(model, functions)
    if read and not model.graph.output:
        raise InvalidModel(f"graph '{model.graph.name}': has no outputs; export the model again")


def _check_body(body: Body, apart: Collection[str], *, read: bool, inside: bool) -> None:
    """Check the values, the weights and the nodes of a graph, or of a function it is `inside`."""
    _check_texts((body.name, body.doc_string), "a graph")
    if not isinstance(body, FunctionProto):
        for value in (*body.input, *body.output, *body.value_info):
            _check_value(value)
        for tensor in body.initializer:
            _check_tensor(tensor, "weight", held=tensor.name not in apart, read=read)
        for sparse in body.sparse_initializer:
            _check_sparse(sparse, read=read)
    for node in body.node:
        try:
            "".join((node.name, node.op_type, node.domain, *node.input, *node.output))
        except TypeError:
            raise _no_text(f"a name of {_called(node)}") from None
        for attribute in node.attribute:
            _check_attribute(attribute, node, read=read, inside=inside)


def _check_value(value: ValueInfoProto) -> None:
    kind = value.type.tensor_type
    _check_texts((value.name, *(dim.dim_param for dim in kind.shape.dim)), "an input or output")
    if value.type.HasField("tensor_type") and kind.elem_type not in TYPES:
        raise InvalidModel(
            f"tensor '{value.name}': has element type {kind.elem_type}, which ONNX does not know; "
            f"export the model again"
        )


def _check_attribute(
    attribute: AttributeProto, node: NodeProto, *, read: bool, inside: bool
) -> None:
    where = f"{_called(node)}: attribute"
    _check_texts((attribute.name, attribute.ref_attr_name), where)
    where = f"{where} '{attribute.name}'"
    if attribute.ref_attr_name:
        if not inside:
            raise InvalidModel(
                f"{where}: stands for '{attribute.ref_attr_name}' of a function, and is in none; "
                f"export the model again"
            )
        return
    if attribute.type not in WITH_VALUE:
        raise InvalidModel(f"{where}: has no type that ONNX knows; export the model again")
    sizes = (attribute.i, *attribute.ints) if attribute.name in STATE_SIZES else ()
    if any(abs(n) > MOST_STATED for n in sizes):
        raise InvalidModel(f"{where}: states a size beyond {MOST_STATED:,}; export the model again")
    if attribute.name == NOT_NEGATIVE and attribute.i < 0:
        raise InvalidModel(f"{where}: is {attribute.i}; expected 0 or more; export the model again")
    if attribute.name == "num_outputs" and attribute.i > len(node.output):
        raise InvalidModel(
            f"{where}: is {attribute.i}, and the node has {len(node.output)} outputs; "
            f"export the model again"
        )
    if attribute.type == AttributeProto.TENSOR:
        _check_tensor(attribute.t, where, read=read)
    for tensor in attribute.tensors:
        _check_tensor(tensor, where, read=read)
    if attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            _check_sparse(sparse, read=read)


def _check_sparse(sparse: SparseTensorProto, *, read: bool) -> None:
    _check_dims(sparse.dims, "a sparse weight")
    for tensor in (sparse.values, sparse.indices):
        if tensor.data_type:
            _check_tensor(tensor, "a sparse weight", read=read)


def _check_tensor(tensor: TensorProto, what: str, *, held: bool = True, read: bool = True) -> None:
    """Check that a tensor has a type, and as many values as its shape says, where it is `held`."""
    _check_texts((tensor.name, tensor.doc_string), what)
    where = f"{what} '{tensor.name}'" if tensor.name else what
    if tensor.data_type not in TYPES:
        raise InvalidModel(
            f"{where}: has element type {tensor.data_type}, which ONNX does not know; "
            f"export the model again"
        )
    _check_dims(tensor.dims, where)
    if not read or not held:
        return
    if tensor.data_location == TensorProto.EXTERNAL:
        raise InvalidModel(
            f"{where}: its values are in another file that was not read; give the path of the "
            f"model in place of the model"
        )
    if not _is_filled(tensor):
        raise InvalidModel(
            f"{where}: its values do not fill its shape {list(tensor.dims)}; export the model again"
        )


def _check_dims(sizes: Iterable[int], where: str) -> None:
    if any(n < 0 for n in sizes):
        raise InvalidModel(f"{where}: has a negative size in its shape; export the model again")


def _is_filled(tensor: TensorProto) -> bool:
    """Say whether a tensor holds as many values as its shape says."""
    if tensor.HasField("segment"):
        return False
    elements, name = math.prod(tensor.dims), TensorProto.DataType.Name(tensor.data_type)
    if tensor.data_type == TensorProto.STRING:
        return len(tensor.string_data) == elements and all(map(_is_text, tensor.string_data))
    bits = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * 8
    bits = next((n for part, n in PACKED.items() if part in name), bits)
    if tensor.HasField("raw_data"):
        return _holds_raw(tensor, -(-elements * bits // 8))
    values = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    if bits in (2, 4):
        elements = -(-elements * bits // 8)
    elif name.startswith("COMPLEX"):
        elements *= 2
    return bool(len(values) == elements)


def _holds_raw(tensor: TensorProto, length: int) -> bool:
    """Say whether a tensor has this many bytes of raw values.

    They are copied once. Protobuf would write the message to count its bytes, in twice the memory.
    """
    return bool(len(tensor.raw_data) == length)


def _is_text(value: bytes) -> bool:
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _check_size(model: ModelProto, functions: Mapping[tuple[str, str], FunctionProto]) -> None:
    """Refuse a model that takes longer to look at than people wait."""
    most = _most_nodes()
    nodes = _count_nodes(model.graph, _sizes_of(functions))
    links = sum(
        len(node.input) + len(node.output)
        for body in with_subgraphs(model.graph)
        for node in body.node
    )
    written = " once its functions are written out" if functions else ""
    for count, what, limit in (
        (nodes, f"nodes{written}", most),
        (links, "inputs and outputs of nodes", LINKS * most),
    ):
        if count > limit:
            raise InvalidModel(
                f"graph '{model.graph.name}': has {_amount(count)} {what}; at most {limit:,} are "
                f"handled, as more may take over 10 seconds; set {NODES} (now {most:,}) in the "
                f"environment to wait for more"
            )


def _most_nodes() -> int:
    """The number of nodes that the environment asks for, or `MOST_NODES`."""
    asked = os.environ.get(NODES, str(MOST_NODES))
    if not asked.isdecimal():
        raise InvalidValue(f"{NODES} '{asked}': expected a whole number")
    return int(asked)


def _sizes_of(
    functions: Mapping[tuple[str, str], FunctionProto],
) -> dict[tuple[str, str], int]:
    """Count the nodes of each function, those that it calls written out.

    Raises: InvalidModel for one that calls itself.
    """
    counts: dict[tuple[str, str], int] = {}
    begun: set[tuple[str, str]] = set()
    todo = list(functions)
    while todo:
        name = todo[-1]
        if name in counts:
            todo.pop()
            continue
        inner = {one for one in _called_by(functions[name]) if one in functions} - counts.keys()
        if name in begun and inner:
            raise InvalidModel(
                f"function '{name[1]}': calls itself, by way of '{min(inner)[1]}'; "
                f"export the model again"
            )
        if inner:
            begun.add(name)
            todo.extend(inner)
        else:
            counts[name] = _count_nodes(functions[name], counts)
    return counts


def _called_by(body: Body) -> Iterator[tuple[str, str]]:
    for inner in with_subgraphs(body):
        yield from ((node.domain, node.op_type) for node in inner.node)


def _count_nodes(body: Body, counts: Mapping[tuple[str, str], int]) -> int:
    return sum(counts.get(one, 1) for one in _called_by(body))


def _amount(number: int) -> str:
    return f"{number:,}" if number < 10**12 else "more than 10^12"


def check_external(model: ModelProto, folder: Path) -> None:
    """Refuse external data that does not lie as a file in a folder, or is not what is declared.

    Raises: InvalidModel naming the weight.
    """
    for tensor in _external(model):
        said = {entry.key: entry.value for entry in tensor.external_data}
        where = f"weight '{tensor.name}'"
        place, offset, length = (said.get(key, "") for key in ("location", "offset", "length"))
        if not isinstance(place, str) or not place or _leaves(place):
            raise InvalidModel(
                f"{where}: its values are said to be in '{place!s}', which is no file in the "
                f"folder of the model; export the model again"
            )
        if not all(
            isinstance(n, str) and re.fullmatch(r"\d{0,18}", n, re.A) for n in (offset, length)
        ):
            raise InvalidModel(
                f"{where}: has no valid place in the file '{place}'; export the model again"
            )
        path, end = folder / place, int(offset or 0) + int(length or 0)
        try:
            size = path.stat().st_size if path.is_file() else None
        except OSError:  # a name that is too long
            size = None
        if size is None:
            raise InvalidModel(
                f"{where}: its values are in '{place}', which is not in {folder}; put the file "
                f"there"
            )
        if end > size:
            raise InvalidModel(
                f"{where}: its values are said to end at byte {end} of '{place}', which has "
                f"{size}; copy the file again"
            )


def _leaves(place: str) -> bool:
    """Say whether a path is not one below a folder, on any system."""
    kinds = (PurePosixPath(place), PureWindowsPath(place))
    return "\0" in place or any(one.is_absolute() or ".." in one.parts for one in kinds)


def _external(model: ModelProto) -> Iterator[TensorProto]:
    for top in (model.graph, *model.functions):
        for body in with_subgraphs(top):
            held = [] if isinstance(body, FunctionProto) else body.initializer
            own = (one for node in body.node for one in node.attribute)
            for tensor in (*held, *(t for one in own for t in (one.t, *one.tensors))):
                if tensor.data_location == TensorProto.EXTERNAL:
                    yield tensor


def _called(node: NodeProto) -> str:
    return f"{node.op_type} '{node.name}'"


def _check_texts(texts: Iterable[Any], where: str) -> None:
    """Refuse names that are no text: protobuf hands out bytes where they are not UTF-8."""
    try:
        "".join(texts)
    except TypeError:
        raise _no_text(f"a name of {where}") from None


def _no_text(what: str) -> InvalidModel:
    return InvalidModel(f"{what}: is not UTF-8; export the model again")
