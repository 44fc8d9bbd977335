"""The weights of filters as real numbers, one row for each filter.

A weight may be quantised: its integers are then taken less their zero point and times their scale.
It may be computed from constants: then it is computed here. It may be computed from the image, as
that of a dynamic convolution: then a filter is what the constants hold of it that make it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.channels import STAYS, ChannelGroups, Filters
from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Node, Relevance, parse
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror

logger = logging.getLogger(__name__)


def weight_of(graph: Graph, groups: ChannelGroups, filters: Filters) -> npt.NDArray[Any] | None:
    """Return a convolution's weight as a matrix, or None where no constant is part of its filters.

    A weight that is not quantised keeps its type.
    Shapes: -> `[filters, numbers of a filter]`.
    """
    weight = value_of(graph, filters.weight)
    if weight is None:
        return _made_of(graph, groups, filters)
    axis = _axis_of(graph, groups, filters)
    rows = np.moveaxis(weight, axis, 0).reshape(len(filters.channels), -1)
    return _as_real(graph, filters, rows)


def _axis_of(graph: Graph, groups: ChannelGroups, filters: Filters) -> int:
    """The axis of a weight along which its filters lie.

    It has the letter that the filters have in the output. Where none has, as in a transposed
    convolution with groups, the filters are on it.
    """
    node = graph.producers[filters.output]
    how, shape = graph.how(node), graph.shape(filters.output)
    assert isinstance(how, Axes) and node.op is not None and shape is not None
    inputs, outputs = parse(how.pattern)
    index = node.op.weights[0]
    written = outputs[0].match(shape, str(node))[filters.axis][0].names
    weight = inputs[index].match(graph.shape(filters.weight) or (), str(node))
    named = [k for k, (axis, _) in enumerate(weight) if axis.names == written]
    cuts = groups.cuts.get(filters.weight, {}).items()
    held = [axis for axis, owners in cuts if np.array_equal(owners, filters.channels)]
    return next(iter(named + held), 0)


def value_of(graph: Graph, name: str) -> npt.NDArray[Any] | None:
    """Return a tensor that depends on constants alone, computed where it must be; else None.

    Shapes: `graph.shape(name)`.
    """
    if name in graph.constant_tensors:
        return graph.constant(name)
    if name not in graph.constant_names:
        return None
    try:
        found = Mirror(graph, device="cpu", outputs=(name,)).run({})[name]
    except UnsupportedOp as error:
        logger.debug("tensor '%s': no value: %s", name, error)
        return None
    return np.asarray((found.double() if found.is_floating_point() else found).numpy())


def _as_real(graph: Graph, filters: Filters, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The real numbers that integers stand for. Shapes: rows `[filters, n]`."""
    node = graph.producers[filters.output]
    assert node.op is not None
    place = node.op.weights[0]
    if place not in node.op.zero_points:
        return rows
    zero = _for_each(_input(graph, node, node.op.zero_points[place]), len(rows))
    if place in node.op.scales:
        scale = _for_each(_input(graph, node, node.op.scales[place]), len(rows))
    else:
        scale = _for_each(_factor_behind(graph, filters.output), len(rows))
    centred = rows.astype(np.float64) - (0.0 if zero is None else zero)
    return centred if scale is None else centred * scale


def _input(graph: Graph, node: Node, place: int | None) -> npt.NDArray[Any] | None:
    if place is None or place >= len(node.inputs):
        return None
    return value_of(graph, node.inputs[place])


def _for_each(values: npt.NDArray[Any] | None, count: int) -> FloatArray | None:
    """One number for all filters, or one for each; None where it is neither.

    Shapes: -> `[1, 1]` or `[count, 1]`.
    """
    if values is None or values.size not in (1, count):
        return None
    return values.astype(np.float64).reshape(-1, 1)


def _factor_behind(graph: Graph, tensor: str) -> npt.NDArray[Any] | None:
    """What the sums of a convolution of integers are multiplied by, as far as it is constant."""
    readers = graph.consumers.get(tensor, [])
    while len(readers) == 1 and tensor not in graph.outputs:
        (node,) = readers
        if node.op is None or not isinstance(node.op.how, Aligns):
            return None
        if node.op.relevance is Relevance.GATE:
            found = node.op(node, [_factor(graph, name, tensor) for name in node.inputs])[0]
            return np.asarray(found.numpy())
        if node.op.relevance is not Relevance.PASS or len(node.inputs) > 1:
            return None
        tensor = node.outputs[0]
        readers = graph.consumers.get(tensor, [])
    return None


def _factor(graph: Graph, name: str, signal: str) -> torch.Tensor:
    """The constant part of a factor; 1 for what depends on the image, as it is alike for all."""
    known = None if name == signal else value_of(graph, name)
    if known is not None:
        return torch.as_tensor(np.asarray(known, np.float64))
    node = None if name == signal else graph.producers.get(name)
    if node is None or node.op is None or node.op.relevance is not Relevance.GATE:
        return torch.ones((), dtype=torch.float64)
    return node.op(node, [_factor(graph, n, signal) for n in node.inputs])[0]  # type: ignore[no-any-return]


def _made_of(graph: Graph, groups: ChannelGroups, filters: Filters) -> npt.NDArray[Any] | None:
    """What the constants hold of each filter, of which a weight is computed from the image.

    Shapes: -> `[filters, n]`.
    """
    found = [
        rows
        for name in _constants_behind(graph, filters.weight)
        for axis, owners in groups.cuts.get(name, {}).items()
        if (rows := _rows_of(value_of(graph, name), axis, owners, filters.channels)) is not None
    ]
    return np.concatenate(found, 1) if found else None


def _rows_of(
    value: npt.NDArray[Any] | None, axis: int, owners: npt.NDArray[Any], channels: npt.NDArray[Any]
) -> FloatArray | None:
    """The numbers at the positions of each channel; None where the channels have not equally many.

    Shapes: value `[.., n, ..]`, owners `[n]`, channels `[filters]` -> `[filters, m]`.
    """
    places = [np.flatnonzero((owners == channel) & (owners != STAYS)) for channel in channels]
    if value is None or len({len(one) for one in places}) > 1 or not places[0].size:
        return None
    lines = np.moveaxis(value, axis, 0).astype(np.float64)
    return np.stack([lines[one].ravel() for one in places])


def _constants_behind(graph: Graph, tensor: str) -> Iterator[str]:
    """The constants that a tensor is computed from, up to the convolutions before it."""
    todo, seen = [tensor], {tensor}
    while todo:
        node = graph.producers.get(todo.pop())
        if node is None or graph.filter_axis(node) is not None:
            continue
        for name in node.inputs:
            if name and name not in seen:
                seen.add(name)
                if name in graph.constant_tensors:
                    yield name
                else:
                    todo.append(name)
