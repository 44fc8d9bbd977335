"""Inputs made up for a model: any number of them, by type, by shape and by what reads them.

Floats are noise. Whole numbers and truth values may choose a branch, a row or a length, so several
values are tried in turn: small ones, those that the model compares them with, and where they choose
a row or a length, numbers of rows and lengths that there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from onnxprune.graph import Graph, Shape, look
from onnxprune.ops import Moves, Node

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

TURNS = 8
"""How many values are tried of inputs that noise cannot stand for."""

MOST_READ, MOST_MADE = 2**25, 2**28
"""Elements of an input, and of a tensor within the model, that are worth a trial."""

UNMADE = (TensorProto.UNDEFINED, TensorProto.STRING, TensorProto.BFLOAT16)
"""Element types of which no values are made up."""

CHOOSES_ROWS = {"Gather": 1, "GatherElements": 1}
"""Operators that take the rows of their first input which another one names, and which one."""

TAKES_LENGTHS = {"RNN": 4, "GRU": 4, "LSTM": 4}
"""Operators over time that are told how long each sequence is, and by which input."""


def made_up(
    graph: Graph,
    *,
    batch: int = 1,
    more: int = 0,
    turn: int = 0,
    samples: Mapping[str, Array] | None = None,
) -> Feeds | None:
    """Return a value for every input of a model, or None where none is new, or one too large.

    The batch is so large, and other open axes are so much longer. `turn` counts the choices of
    whole numbers that are tried. `samples` are taken where their sizes are those asked for.
    Shapes: samples `[n, ...]` -> `[batch, ...]`, and what the model says.
    """
    shapes, _ = look(graph.proto, graph.input_shapes, batch=batch, more=more)
    usual, _ = look(graph.proto, graph.input_shapes)
    read = max(math.prod(shape) for shape in shapes.values()) if shapes else 0
    if read > MOST_READ or batch * graph.largest > MOST_MADE:
        return None
    rng, left, feeds = np.random.default_rng(turn), turn, Feeds()
    for value in graph.proto.input:
        name, element = value.name, value.type.tensor_type.elem_type
        if name not in graph.inputs:
            continue
        if name not in shapes or element in UNMADE:
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(element)
        given = (samples or {}).get(name)
        if given is not None and given.shape[1:] == shapes[name][1:]:
            feeds[name] = np.resize(given, shapes[name]).astype(dtype)
            continue
        values = list(_values(graph, name, shapes[name], dtype, rng))
        left, place = divmod(left, len(values))
        feeds[name] = values[place]
    is_new = (batch, more) == (1, 0) or shapes != usual
    return feeds if is_new and not left and turn < TURNS else None


def _values(
    graph: Graph, name: str, shape: Shape, dtype: np.dtype[Any], rng: np.random.Generator
) -> Iterator[Array]:
    """The values to try of one input."""
    if dtype.kind == "f":
        yield rng.standard_normal(shape).astype(dtype)
        return
    if dtype.kind != "b" and dtype.itemsize == 1 and math.prod(shape) > 1:  # pixels
        yield rng.integers(0, 128, shape).astype(dtype)
        return
    if dtype.kind == "b" and math.prod(shape) > 1:
        yield rng.integers(0, 2, shape).astype(dtype)
    rows, met = _readers(graph, name)
    if rows:
        yield rng.integers(0, min(rows), shape).astype(dtype)
    for number in dict.fromkeys((1, *met, 0)):
        yield np.full(shape, number).astype(dtype)


def _readers(graph: Graph, name: str) -> tuple[list[int], list[int]]:
    """Out of how many rows an input chooses, and numbers that it is compared with or may be."""
    names, rows, met = {name}, list[int](), list[int]()
    for node in graph.nodes:
        if names.isdisjoint(node.inputs):
            continue
        count = _counted(graph, node, CHOOSES_ROWS, names, node.attributes.get("axis", 0))
        length = _counted(graph, node, TAKES_LENGTHS, names, 0)
        rows += [] if count is None else [count]
        met += [] if length is None else [length]
        if _is_truth(graph, node.outputs[0]):
            found = (graph.facts.values.get(other) for other in node.inputs)
            met += [int(value.item()) for value in found if value is not None and value.size == 1]
        elif node.op_type == "Cast" or isinstance(graph.how(node), Moves):
            names.update(node.outputs)
    return rows, met


def _counted(
    graph: Graph, node: Node, told: Mapping[str, int], names: set[str], axis: int
) -> int | None:
    """The positions of an axis that a node reads as told by one of the tensors, None for others."""
    place = told.get(node.op_type)
    if place is None or place >= len(node.inputs) or node.inputs[place] not in names:
        return None
    shape = graph.shape(node.inputs[0])
    return shape[axis] if shape else None


def _is_truth(graph: Graph, name: str) -> bool:
    kind = graph.facts.types.get(name)
    return kind is not None and kind.tensor_type.elem_type == TensorProto.BOOL
