"""Models as others hold them: graphs of onnx-graphsurgeon, models of onnx_ir, frameworks' files.

The first two are read into a ModelProto of their own and given back in kind; what the caller holds
is not changed. Neither library is imported before somebody has made an object of it, or asks for
one. Files of frameworks are what `onnxprune.converters` makes of them.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnx import ModelProto, TensorProto, helper

from onnxprune.errors import InvalidModel, MissingPackage
from onnxprune.graph.copies import copied
from onnxprune.graph.order import sort_nodes, with_subgraphs
from onnxprune.plugins import find_function

if TYPE_CHECKING:
    import onnx_graphsurgeon
    import onnx_ir

EXTRAS = {"onnx_graphsurgeon": "graphsurgeon", "onnx_ir": "ir"}
"""The extra of onnxprune that brings each library."""


def is_foreign(source: object) -> bool:
    """Say whether something is a model of these libraries, or a framework's file or folder."""
    held = _is("onnx_graphsurgeon", "Graph", source) or _is("onnx_ir", "Model", source)
    return held or (isinstance(source, str | os.PathLike) and _of_framework(Path(source)))


def read_foreign(source: Any) -> ModelProto:
    """Return the ONNX message of what `is_foreign` knows, its nodes sorted.

    Raises: InvalidModel when the library cannot write it as ONNX; ConversionError, MissingPackage
    as `onnxprune.converters.convert`.
    """
    if isinstance(source, str | os.PathLike):
        made: ModelProto = _converters("to_onnx")(source)
        return sort_nodes(made)
    of_ir = _is("onnx_ir", "Model", source)
    try:
        model = _read_ir(source) if of_ir else _read_graphsurgeon(source)
    except Exception as error:  # the library's own, and what a half-made graph runs into
        library = "onnx_ir" if of_ir else "onnx-graphsurgeon"
        why = next((str(e).splitlines()[0] for e in _causes(error) if str(e)), repr(error))
        raise InvalidModel(
            f"model: {library} cannot write it as ONNX ({why}); expected a graph that it can export"
        ) from error
    return sort_nodes(model)


def to_graphsurgeon(model: ModelProto) -> onnx_graphsurgeon.Graph:
    """Return a model as a graph of onnx-graphsurgeon that shares no memory with it.

    It keeps what such graphs hold: no metadata, and documentation of the graph alone.
    Raises: MissingPackage when onnx-graphsurgeon is not installed.
    """
    return _library("onnx_graphsurgeon").import_onnx(copied(model))


def to_ir(model: ModelProto) -> onnx_ir.Model:
    """Return a model as a model of onnx_ir that shares no memory with it.

    Raises: MissingPackage when onnx_ir is not installed.
    """
    found: onnx_ir.Model = _library("onnx_ir").from_proto(copied(model))
    return found


def _is(library: str, kind: str, source: object) -> bool:
    """Say whether `source` is of a class in a library that is imported, else it cannot be."""
    found = getattr(sys.modules.get(library), kind, None)
    return isinstance(found, type) and isinstance(source, found)


def _of_framework(path: Path) -> bool:
    own = path.suffix.lower() in (".onnx", "") and not path.is_dir()
    return not own and path.exists() and bool(_converters("is_foreign")(str(path)))


def _converters(name: str) -> Any:
    """A function of the converters, which stand above this room and are imported when needed."""
    return find_function(f"onnxprune.converters:{name}", "a whole installation of onnxprune")


def _library(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackage(
            f"{name.replace('_', '-')} is not installed: pip install 'onnxprune[{EXTRAS[name]}]'"
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, the first cause first."""
    if error.__cause__ is not None:
        yield from _causes(error.__cause__)
    yield error


def _read_graphsurgeon(graph: Any) -> ModelProto:
    """Write a graph of onnx-graphsurgeon as ONNX.

    The library notes what it finds on the way: domains in the graph and its functions, names in
    weights that it did not load yet. They are put back.
    """
    holders = [graph, *graph.functions]
    domains = [holder.import_domains for holder in holders]
    held = [
        getattr(getattr(tensor, "_values", None), "tensor", None)
        for one in (graph, *graph.subgraphs(recursive=True))
        for tensor in one.tensors().values()
    ]
    names = [(tensor, tensor.name) for tensor in held if isinstance(tensor, TensorProto)]
    try:
        for holder, known in zip(holders, domains, strict=True):
            holder.import_domains = None if known is None else list(known)
        model: ModelProto = _library("onnx_graphsurgeon").export_onnx(graph)
    finally:
        for holder, known in zip(holders, domains, strict=True):
            holder.import_domains = known
        for tensor, name in names:
            tensor.name = name
    if getattr(graph, "ir_version", None) is None:  # else the newest, which runtimes cannot read
        model.ir_version = helper.find_min_ir_version_for(model.opset_import, ignore_unknown=True)
    return model


def _read_ir(model: Any) -> ModelProto:
    """Write a model of onnx_ir as ONNX, with the weights that it left in other files."""
    proto: ModelProto = _library("onnx_ir").to_proto(model)
    weights = {
        name: value.const_value
        for graph in model.graphs()
        for name, value in graph.initializers.items()
    }
    for body in with_subgraphs(proto.graph):
        for tensor in body.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor.raw_data = weights[tensor.name].tobytes()
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
    return proto
