"""The constants of a model under surgery: initializers, and what nodes hold or fill."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnxprune.arrays import Kept
from onnxprune.errors import SurgeryError
from onnxprune.graph import (
    AS_THEY_LIE,
    NONE_APART,
    Graph,
    Weight,
    Weights,
    compress,
    fill,
    is_large,
    shell,
)
from onnxprune.ops import Fills, Holds, Node

Array = npt.NDArray[Any]


def copy_model(graph: Graph, changed: Mapping[str, Array] | None = None) -> ModelProto:
    """Return a copy of a graph's model with other values for some of its constants.

    What changes is not copied first: a large weight exists twice only where both are kept.
    Shapes: any.
    Raises: SurgeryError when a constant would change its element type.
    """
    changed = changed or {}
    apart = {name: weight for name, weight in graph.weights.items() if name not in changed}
    return fill(_copy_bare(graph, changed), apart)


def cut_model(graph: Graph, cuts: Mapping[str, Kept]) -> tuple[ModelProto, Weights]:
    """Return a copy of a graph's model with what is kept of its constants.

    Large weights are held apart: what is left of them is worked out when they are asked for.
    """
    apart, changed = dict(graph.weights), {}
    for name, kept in cuts.items():
        if name in graph.initializers and name not in graph.aliases:
            if _stays_large(graph.initializers[name], kept):
                apart[name] = Weight(partial(graph.constant, name), kept)
                continue
            apart.pop(name, None)
        changed[name] = compress(graph.constant(name), kept)
    return _copy_bare(graph, changed, apart), apart


def _stays_large(tensor: TensorProto, kept: Kept) -> bool:
    left = TensorProto()
    _declare(left, tensor, kept)
    return is_large(left) and tensor.data_type in AS_THEY_LIE


def _copy_bare(
    graph: Graph, changed: Mapping[str, Array], apart: Weights = NONE_APART
) -> ModelProto:
    """Copy a model but for the values of those large weights that are held apart."""
    model = graph.bare
    copy = shell(model, keep=lambda _: False)
    for tensor in model.graph.initializer:
        place = copy.graph.initializer.add()
        if tensor.name in changed:
            _write(place, tensor, changed[tensor.name])
        elif tensor.name in apart and apart[tensor.name].kept:
            _declare(place, tensor, apart[tensor.name].kept)
        else:
            place.CopyFrom(tensor)
    others = [name for name in changed if name in graph.aliases or name not in graph.initializers]
    if others:
        constants = Constants(graph, copy)
        for name in others:
            constants.set(name, changed[name])
        constants.drop_unread()
    return copy


def _declare(place: TensorProto, tensor: TensorProto, kept: Kept) -> None:
    """Give a place the name, the type and what is left of the shape of a tensor."""
    place.name, place.data_type, place.doc_string = tensor.name, tensor.data_type, tensor.doc_string
    lengths = {axis: int(alive.sum()) for axis, alive in kept.items()}
    place.dims.extend(lengths.get(axis, length) for axis, length in enumerate(tensor.dims))


class Constants:
    """Reads and changes the constants of a copy of a graph's model in place, by tensor name.

    The name may be an alias, under which one node reads a shared vector: that node alone gets it.
    """

    def __init__(self, graph: Graph, model: ModelProto) -> None:
        self._model = model
        self._aliases = graph.aliases
        self._protos: dict[tuple[str, ...], NodeProto] = {
            tuple(proto.output): proto for proto in model.graph.node
        }
        self._readers = {n: node for node in graph.nodes for n in node.inputs if n in graph.aliases}
        self._places: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self._fills: dict[str, NodeProto] = {}
        for node in graph.nodes:
            how = None if node.op is None or node.nested or not self.has(node) else node.op.how
            if isinstance(how, Fills):
                self._fills[node.outputs[0]] = self._protos[node.outputs]
            elif isinstance(how, Holds):
                for attribute in self._protos[node.outputs].attribute:
                    if attribute.name == "value":
                        self._places[node.outputs[0]] = attribute.t
        self._makers = dict(graph.computed.makers)
        self._captured = {name for node in graph.nodes for name in node.captures}
        self._taken = {name for node in model.graph.node for name in (*node.input, *node.output)}

    def array(self, name: str) -> Array:
        """Return a constant, which no node fills, as it is now. Shapes: the tensor's."""
        return numpy_helper.to_array(self._places[self._aliases.get(name, name)])

    def is_shared(self, name: str) -> bool:
        """Say whether a constant has several readers, or is an output of the model."""
        graph = self._model.graph
        reads = sum(list(node.input).count(name) for node in graph.node)
        return reads > 1 or any(value.name == name for value in graph.output)

    def has(self, node: Node) -> bool:
        """Say whether the copy still has a node of the graph."""
        return node.nested or node.outputs in self._protos

    def proto(self, node: Node) -> NodeProto:
        """Return the node of the copy that stands for one of the graph's main nodes."""
        return self._protos[node.outputs]

    def set(self, name: str, array: Array) -> None:
        """Give a constant another array of the same type.

        Shapes: any.
        Raises: SurgeryError when the array has another type.
        """
        if name in self._fills:
            self._refill(self._fills[name], array)
        elif name in self._makers:
            self._store(name, array)
        elif name in self._readers:
            node = self._readers[name]
            own = self.add(self._aliases[name], array).name
            self.proto(node).input[node.inputs.index(name)] = own
        else:
            _write(self._places[name], self._places[name], array)

    def add(self, hint: str, array: Array) -> TensorProto:
        """Add an initializer with a name nobody has, and return it. Shapes: any."""
        name = next(n for n in (f"{hint}_{k}" for k in range(1 << 30)) if n not in self._taken)
        self._taken.add(name)
        return self._insert(name, array)

    def remove(self, node: Node) -> None:
        """Remove a node, and what is declared of its outputs."""
        graph = self._model.graph
        graph.node.remove(self._protos.pop(node.outputs))
        for value in [v for v in graph.value_info if v.name in node.outputs]:
            graph.value_info.remove(value)

    def drop_unread(self) -> None:
        """Remove the constants that nodes read at first and no node reads any more."""
        graph = self._model.graph
        read = {name for node in graph.node for name in node.input} | self._captured
        spent = self._taken - read - {value.name for value in graph.output}
        for values in (graph.initializer, graph.input):
            for value in [v for v in values if v.name in spent and v.name in self._places]:
                values.remove(value)

    def _insert(self, name: str, array: Array) -> TensorProto:
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        graph = self._model.graph
        graph.initializer.append(tensor)
        if self._model.ir_version < 4:  # there, every initializer is an input as well
            info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            graph.input.append(info)
        self._places[name] = graph.initializer[-1]
        return tensor

    def _store(self, name: str, array: Array) -> None:
        """Store what nodes computed, and remove those that nobody reads any more."""
        returned = {value.name for value in self._model.graph.output}
        for node in reversed(self._makers.pop(name)):
            read = returned.union(*(other.input for other in self._model.graph.node))
            if self.has(node) and (name in node.outputs or not read.intersection(node.outputs)):
                self.remove(node)
        self._insert(name, array)

    def _refill(self, node: NodeProto, array: Array) -> None:
        """Fill another shape; an array of different values takes the node's place."""
        name = node.output[0]
        if not array.size or (array == array.ravel()[0]).all():
            node.input[0] = self.add(f"{name}_shape", np.array(array.shape, np.int64)).name
        else:
            self._model.graph.node.remove(node)
            del self._fills[name]
            self._insert(name, array)


def _write(place: TensorProto, tensor: TensorProto, array: Array) -> None:
    """Fill a place with a tensor of the same name and type, with other values."""
    if helper.np_dtype_to_tensor_dtype(array.dtype) != tensor.data_type:
        raise SurgeryError(f"constant '{tensor.name}': its element type changed; report this")
    name, kind, doc = tensor.name, tensor.data_type, tensor.doc_string
    place.Clear()
    if array.dtype.kind == "f":  # values as they lie in memory, copied once
        place.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        place.data_type = kind
        place.dims.extend(array.shape)
    else:
        place.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C")))
    place.name, place.doc_string = name, doc
