"""Read and change the constants of a copied model.

A constant is an initializer, the value of a Constant node, what a ConstantOfShape node fills, or a
weight that nodes compute from other constants.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    open_bodies,
    shell,
)
from onnxprune.ops import Fills, Holds, Node

Array = npt.NDArray[Any]


def copy_model(graph: Graph, changed: Mapping[str, Array] | None = None) -> ModelProto:
    """Return a copy of a graph's model in which some constants have new values, by tensor name.

    The old values of those constants are not copied on the way.
    Shapes: any; a new value may have another shape than the old one.
    Raises: SurgeryError when a new value has another element type.
    """
    changed = changed or {}
    apart = {name: weight for name, weight in graph.weights.items() if name not in changed}
    return fill(_copy_bare(graph, changed), apart)


def cut_model(graph: Graph, cuts: Mapping[str, Kept]) -> tuple[ModelProto, Weights]:
    """Return a copy of a graph's model in which constants are cut to the positions that are kept.

    Weights that stay large are returned apart from the model, and are cut when they are read.
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
    """Return True if what is kept of an initializer can be held apart from the message."""
    left = TensorProto()
    _declare(left, tensor, kept)
    return is_large(left) and tensor.data_type in AS_THEY_LIE


def _copy_bare(
    graph: Graph, changed: Mapping[str, Array], apart: Weights = NONE_APART
) -> ModelProto:
    """Copy a graph's model with changed constants, and without the values of weights held apart."""
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
    """Make an empty initializer declare a tensor's name and type, and the shape that is kept."""
    place.name, place.data_type, place.doc_string = tensor.name, tensor.data_type, tensor.doc_string
    lengths = {axis: int(alive.sum()) for axis, alive in kept.items()}
    place.dims.extend(lengths.get(axis, length) for axis, length in enumerate(tensor.dims))


class Constants:
    """Reads the constants of a copy of a graph's model, and changes them in place, by tensor name.

    A name may be an alias, under which one node reads a shared vector. To set it gives that node a
    vector of its own.
    """

    def __init__(self, graph: Graph, model: ModelProto) -> None:
        self._model = model
        self._aliases = graph.aliases
        self._bodies = list(open_bodies(model))
        self._protos: dict[tuple[str, ...], NodeProto] = {
            tuple(proto.output): proto for proto in self._nodes()
        }
        self._readers = {n: node for node in graph.nodes for n in node.inputs if n in graph.aliases}
        self._places: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self._fills: dict[str, NodeProto] = {}
        self._holders: list[Node] = []
        for node in graph.nodes:
            how = None if node.op is None or node.nested or not self.has(node) else node.op.how
            if isinstance(how, Fills):
                self._fills[node.outputs[0]] = self._protos[node.outputs]
            elif isinstance(how, Holds):
                self._holders.append(node)
                for attribute in self._protos[node.outputs].attribute:
                    if attribute.name == "value":
                        self._places[node.outputs[0]] = attribute.t
        self._read = {name for node in self._nodes() for name in node.input}
        self._makers = dict(graph.computed.makers)
        self._captured = {name for node in graph.nodes for name in node.captures}
        self._taken = {name for node in self._nodes() for name in (*node.input, *node.output)}

    def array(self, name: str) -> Array:
        """Return the present value of an initializer or a Constant node. Shapes: the tensor's."""
        return numpy_helper.to_array(self._places[self._aliases.get(name, name)])

    def is_shared(self, name: str) -> bool:
        """Return True if a constant is read more than once, or is an output of the model."""
        reads = sum(list(node.input).count(name) for node in self._nodes())
        return reads > 1 or name in self._returned()

    def has(self, node: Node) -> bool:
        """Return True if a node of the graph is still in the copy, or in a function's body."""
        return node.nested or node.border is not None or node.outputs in self._protos

    def proto(self, node: Node) -> NodeProto:
        """Return the copy's message for a node of the graph that is in no function's body."""
        return self._protos[node.outputs]

    def set(self, name: str, array: Array) -> None:
        """Set a constant to a new value of the same element type.

        Shapes: any.
        Raises: SurgeryError when the element type differs.
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
        """Add an initializer with a new name that begins with `hint`; return it. Shapes: any."""
        name = next(n for n in (f"{hint}_{k}" for k in range(1 << 30)) if n not in self._taken)
        self._taken.add(name)
        return self._insert(name, array)

    def scale_input(self, node: Node, index: int, factor: Array) -> None:
        """Multiply what a node reads as input `index` by a constant, for this node alone.

        Shapes: factor broadcasts to the input.
        """
        proto = self.proto(node)
        own = self.add(f"{proto.input[index]}_factor", factor).name
        scaled = helper.make_node("Mul", [proto.input[index], own], [f"{own}_scaled"])
        body = next(body for body in self._bodies if proto in body.node)
        proto.input[index] = scaled.output[0]
        body.node.insert(list(body.node).index(proto), scaled)

    def reads(self, node: Node) -> bool:
        """Return True if anything reads an output of a node."""
        read = self._captured.union(self._returned(), *(other.input for other in self._nodes()))
        return not read.isdisjoint(node.outputs)

    def remove(self, node: Node) -> None:
        """Remove a node, and the declared shapes of its outputs."""
        self._drop(self._protos.pop(node.outputs))
        for body in self._bodies:
            for value in [v for v in body.value_info if v.name in node.outputs]:
                body.value_info.remove(value)

    def drop_unread(self) -> None:
        """Remove the constants that were read by nodes and are not any more."""
        graph = self._model.graph
        read = {name for node in self._nodes() for name in node.input} | self._captured
        spent = self._taken - read - self._returned()
        for node in [one for one in self._holders if one.outputs[0] in spent & self._read]:
            if node.outputs in self._protos:
                self.remove(node)
        for values in (graph.initializer, graph.input):
            for value in [v for v in values if v.name in spent and v.name in self._places]:
                values.remove(value)

    def _nodes(self) -> Iterator[NodeProto]:
        return (node for body in self._bodies for node in body.node)

    def _returned(self) -> frozenset[str]:
        return frozenset(value.name for body in self._bodies for value in body.output)

    def _drop(self, node: NodeProto) -> None:
        body = next(body for body in self._bodies if node in body.node)
        body.node.remove(node)

    def _insert(self, name: str, array: Array) -> TensorProto:
        """Append an initializer to the copy."""
        tensor = numpy_helper.from_array(np.asarray(array, order="C"), name)
        graph = self._model.graph
        graph.initializer.append(tensor)
        if self._model.ir_version < 4:  # in these versions every initializer is an input as well
            info = helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            graph.input.append(info)
        self._places[name] = graph.initializer[-1]
        return tensor

    def _store(self, name: str, array: Array) -> None:
        """Store a computed weight as an initializer; remove the nodes that now compute nothing."""
        returned = self._returned()
        for node in reversed(self._makers.pop(name)):
            read = returned.union(*(other.input for other in self._nodes()))
            if self.has(node) and (name in node.outputs or not read.intersection(node.outputs)):
                self.remove(node)
        self._insert(name, array)

    def _refill(self, node: NodeProto, array: Array) -> None:
        """Make a ConstantOfShape node fill a new shape; replace it if values differ."""
        name = node.output[0]
        if not array.size or (array == array.ravel()[0]).all():
            node.input[0] = self.add(f"{name}_shape", np.array(array.shape, np.int64)).name
        else:
            self._drop(node)
            del self._fills[name]
            self._insert(name, array)


def _write(place: TensorProto, tensor: TensorProto, array: Array) -> None:
    """Write a tensor with new values, of the same name and type, into an initializer."""
    if helper.np_dtype_to_tensor_dtype(array.dtype) != tensor.data_type:
        raise SurgeryError(f"constant '{tensor.name}': its element type changed; report this")
    name, kind, doc = tensor.name, tensor.data_type, tensor.doc_string
    place.Clear()
    if array.dtype.kind == "f":  # the bytes in memory, copied once
        place.raw_data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        place.data_type = kind
        place.dims.extend(array.shape)
    else:
        place.CopyFrom(numpy_helper.from_array(np.asarray(array, order="C")))
    place.name, place.doc_string = name, doc
