"""One walk over the nodes that gives labels to the axes of every tensor.

`cuts[tensor][axis]` is the label of each position of an axis; an axis without a cut never shrinks
(its positions are KEPT). Constants start with fresh labels on all their axes. What is done at a
node depends only on how its operator says that channels cross it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune.errors import OnnxPruneError
from onnxprune.graph import Graph
from onnxprune.labels import FREE, KEPT, IntArray, Labels, count_classes
from onnxprune.node import Node
from onnxprune.ops import Aligns, Axes, Moves, Op, Pins, Shapes, Site, find_op
from onnxprune.pattern import Axis, parse
from onnxprune.shapes import Shape

Cut = Mapping[int, IntArray]


@dataclass
class Propagation:
    """The walk: call `step` for each node in order, then read `cuts` and solve `labels`."""

    graph: Graph
    labels: Labels = field(default_factory=Labels)
    cuts: dict[str, dict[int, IntArray]] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    def step(self, node: Node) -> None:
        """Give labels to the outputs of `node`, and tie or pin those of its inputs."""
        op = find_op(node)
        for name in (*node.inputs, *node.captures):
            self._introduce(name)
        if node.inputs and all(name in self.constant for name in node.inputs if name):
            self.constant.update(node.outputs)
        site = site_of(self.graph, node, self.constant)
        for name in node.captures:
            self._pin(name, f"is read inside the subgraph of {node}")
        self._pin_counts(node, op)
        known = [self.graph.shape(name) is not None for name in node.outputs if name]
        if op is None:
            self._pin_all(node, f"feeds {node}, an operator that onnxprune does not know")
        elif not all(known):
            self._pin_all(node, f"feeds {node}, whose output shape is not known")
        else:
            self._cross(node, op, site)

    def _cross(self, node: Node, op: Op, site: Site) -> None:
        how = op.channels(site)
        if isinstance(how, Moves):
            self._move(node, op, site)
        elif isinstance(how, Aligns):
            self._align(node, op)
        elif isinstance(how, Axes):
            self._relate(node, how)
        elif isinstance(how, Pins):
            self._pin_all(node, f"feeds {node}, {how.why}")
        else:
            assert isinstance(how, Shapes)

    def _introduce(self, name: str) -> None:
        """Give a constant that is seen for the first time labels on every axis."""
        if name in self.cuts or name not in self.graph.constant_tensors:
            return
        self.constant.add(name)
        shape = self.graph.constant_tensors[name].dims
        self.cuts[name] = {k: self.labels.fresh(n) for k, n in enumerate(shape) if n > 1}

    def _pin(self, name: str, reason: str) -> None:
        for labels in self.cuts.get(name, {}).values():
            self.labels.pin(labels, reason)

    def _pin_all(self, node: Node, reason: str) -> None:
        for name in node.inputs:
            self._pin(name, reason)

    def _pin_counts(self, node: Node, op: Op | None) -> None:
        """Pin channels whose number is used as a value: removing one would change results."""
        if op is not None and isinstance(op.how, Shapes):
            return
        values, counts = self.graph.facts.values, self.graph.facts.counts
        if all(name in values for name in node.outputs if name):
            return
        for index, name in enumerate(node.inputs):
            if counts.get(name) and not (op is not None and op.is_parameter(index)):
                for source in counts[name]:
                    self._pin(source, f"their number is a value that {node} computes with")

    def _align(self, node: Node, op: Op) -> None:
        out = self.graph.shape(node.outputs[0])
        assert out is not None
        operands = [
            (name, self.graph.shape(name))
            for index, name in enumerate(node.inputs)
            if name and not op.is_parameter(index)
        ]
        cut: dict[int, IntArray] = {}
        for axis, size in enumerate(out):
            held = list(self._held(operands, axis - len(out)))
            if size == 1:
                continue
            if not held:
                cut[axis] = self.labels.fresh(size)
            elif any(labels is not None for labels in held):
                cut[axis] = self._unite_all(held, size, f"meets fixed channels in {node}")
        for name in node.outputs:
            if name and self.graph.shape(name) == out:
                self.cuts[name] = cut

    def _held(
        self, operands: Iterable[tuple[str, Shape | None]], axis: int
    ) -> Iterable[IntArray | None]:
        """The labels (None: KEPT) of every operand that is not of size 1 on `axis` (< 0)."""
        for name, shape in operands:
            if shape is not None and len(shape) >= -axis and shape[axis] > 1:
                yield self.cuts.get(name, {}).get(len(shape) + axis)

    def _unite_all(self, held: Iterable[IntArray | None], size: int, reason: str) -> IntArray:
        arrays = [np.full(size, KEPT) if labels is None else labels for labels in held]
        for other in arrays[1:]:
            self.labels.unite(arrays[0], other, reason)
        return next((labels for labels in arrays if (labels != KEPT).any()), arrays[0])

    def _relate(self, node: Node, how: Axes) -> None:
        inputs, outputs = parse(how.pattern)
        shapes = [self.graph.shape(name) if name else None for name in node.inputs]
        letters = Letters(self.labels)
        operands = [
            (axis, size, self.cuts.get(name, {}).get(k), name)
            for name, shape, axes in zip(node.inputs, shapes, inputs, strict=False)
            if shape is not None
            for k, (axis, size) in enumerate(axes.match(shape, f"{node}: input '{name}'"))
        ]
        letters.measure((axis, size) for axis, size, _, _ in operands)
        for axis, size, held, name in operands:
            if axis.fixed:
                if held is not None:
                    self.labels.pin(held, f"feeds {node}, {how.why}")
            elif size > 1:
                given = np.full(size, KEPT) if held is None else held
                letters.tie(axis, given, f"meets fixed channels of '{name}' in {node}")
        for name, axes in zip(node.outputs, outputs, strict=False):
            shape = self.graph.shape(name) if name else None
            if shape is not None:
                placed = axes.match(shape, f"{node}: output '{name}'")
                self.cuts[name] = {
                    k: letters.spread(axis)
                    for k, (axis, size) in enumerate(placed)
                    if not axis.fixed and size > 1
                }

    def _move(self, node: Node, op: Op, site: Site) -> None:
        """Run the node on labels, one labelled axis of its inputs at a time."""
        data = [k for k, name in enumerate(node.inputs) if name and not op.is_parameter(k)]
        if any(site.shapes[k] is None for k in data):
            self._pin_all(node, f"feeds {node}, whose input shape is not known")
            return
        if any(
            name and op.is_parameter(k) and site.values[k] is None
            for k, name in enumerate(node.inputs)
        ):
            self._pin_all(node, f"feeds {node}, whose parameters are computed at run time")
            return
        for axis in sorted({a for k in data for a in self.cuts.get(node.inputs[k], {})}):
            arguments = [
                self._spread(name, axis, site.shapes[k])
                if k in data
                else (site.ints(k) if op.takes_ints(k) else site.values[k])
                for k, name in enumerate(node.inputs)
            ]
            try:
                moved = op(node, arguments)
            except OnnxPruneError as error:
                self._pin_all(node, f"feeds {node}, {error}")
                return
            for name, labels in zip(node.outputs, moved, strict=False):
                if name:
                    self._place(name, labels, f"is split apart by {node}")

    def _spread(self, name: str, axis: int, shape: Shape | None) -> IntArray:
        """The labels of one axis as an array of the tensor's shape, with stride 0 elsewhere."""
        assert shape is not None
        labels = self.cuts.get(name, {}).get(axis)
        if labels is None:
            return np.broadcast_to(np.int64(KEPT), shape)
        return np.broadcast_to(
            labels.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape
        )

    def _place(self, name: str, moved: IntArray, reason: str) -> None:
        """Cut the tensor along the axis that leaves the most classes; tie what shares a slice."""
        if not (moved[_thin(moved)] > KEPT).any():
            return
        choices = {k: _rows(moved, k) for k, n in enumerate(moved.shape) if n > 1}
        if not choices:
            self.labels.pin(moved.ravel(), f"alone fills '{name}'")
            return
        axis = max(choices, key=lambda k: _freedom(choices[k]))
        labels = self.labels.unite_rows(choices[axis], reason)
        cut = self.cuts.setdefault(name, {})
        if axis in cut:
            self.labels.pin(labels, reason)
            return
        if (labels == labels[0]).all():
            self.labels.pin(labels[:1], f"alone fills '{name}'")
        free = labels == FREE
        cut[axis] = np.where(free, KEPT, labels)
        cut[axis][free] = self.labels.fresh(int(free.sum()))


@dataclass
class Letters:
    """The labels of the lower-case letters of one pattern; composite axes repeat or tile them."""

    labels: Labels
    sizes: dict[str, int] = field(default_factory=dict)
    held: dict[str, IntArray] = field(default_factory=dict)

    def measure(self, axes: Iterable[tuple[Axis, int]]) -> None:
        """Work out the size of every letter; a composite axis has at most one unknown."""
        later = []
        for axis, size in axes:
            if len(axis.names) == 1:
                self.sizes.setdefault(axis.names[0], size)
            elif axis.names:
                later.append((axis, size))
        for axis, size in later:
            known = [n for n in axis.names if n in self.sizes]
            for name in axis.names:
                if name not in self.sizes:
                    self.sizes[name] = size // int(np.prod([self.sizes[n] for n in known]))

    def tie(self, axis: Axis, given: IntArray, reason: str) -> None:
        """Tie an operand's labels to the letter of the axis."""
        letter = axis.letter
        rows = given.reshape([self.sizes[name] for name in axis.names])
        rows = np.moveaxis(rows, axis.names.index(letter), 0).reshape(self.sizes[letter], -1)
        if letter not in self.held:
            self.held[letter] = self.labels.fresh(self.sizes[letter])
        own = np.repeat(self.held[letter], rows.shape[1])
        self.labels.unite(own, rows.ravel(), reason)

    def spread(self, axis: Axis) -> IntArray:
        """Return the labels of an output axis."""
        letter = axis.letter
        if letter not in self.held:
            self.held[letter] = self.labels.fresh(self.sizes[letter])
        shape = [self.sizes[name] for name in axis.names]
        place = [-1 if name == letter else 1 for name in axis.names]
        return np.broadcast_to(self.held[letter].reshape(place), shape).ravel()


def site_of(graph: Graph, node: Node, constant: set[str]) -> Site:
    """Return what the analysis knows at a node."""
    return Site(
        node,
        [graph.shape(name) if name else None for name in node.inputs],
        [graph.facts.values.get(name) for name in node.inputs],
        [graph.shape(name) if name else None for name in node.outputs],
        [name in constant for name in node.inputs],
    )


def _thin(array: Any) -> tuple[slice, ...]:
    return tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)


def _rows(array: IntArray, axis: int) -> IntArray:
    """One row for each position of `axis`, holding the labels found there."""
    keep = tuple(s if k != axis else slice(None) for k, s in enumerate(_thin(array)))
    return np.moveaxis(array[keep], axis, 0).reshape(array.shape[axis], -1)


def _freedom(rows: IntArray) -> int:
    """How many classes a cut with these rows leaves."""
    if (rows == rows[:, :1]).all():
        return int(np.unique(rows[:, 0]).size)
    low = np.where(rows == FREE, rows.max(axis=1, keepdims=True), rows)
    return count_classes(low)
