"""One walk over the nodes that gives labels to the axes of every tensor.

`cuts[tensor][axis]` is the label of each position of an axis; an axis without a cut never shrinks
(its positions are KEPT). Constants start with fresh labels on all their axes. What is done at a
node depends only on how its operator says that channels cross it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from onnx import TensorProto

from onnxprune.arrays import IntArray
from onnxprune.channels.axis_labels import Letters, loose_letters
from onnxprune.channels.labels import KEPT, Balance, Labels, freedom, melts, rows_of, thin
from onnxprune.channels.shuffles import Shuffle, Shuffles, find_shuffles
from onnxprune.errors import InvalidModel, OnnxPruneError
from onnxprune.graph import Graph, Shape, Variation, site_of
from onnxprune.ops import (
    FREE,
    Aligns,
    Axes,
    Axis,
    Fills,
    Holds,
    Moves,
    Node,
    Op,
    Pins,
    Shapes,
    Site,
    find_op,
    parse,
    why_unknown,
)

Cut = Mapping[int, IntArray]


@dataclass
class Propagation:
    """The walk: call `step` for each node in order, then read `cuts` and solve `labels`.

    `allowed` are operators, named or by the beginning of their names, that may be pruned through
    inexactly; `inexact` collects the nodes where that happened, with the labels that crossed.
    """

    graph: Graph
    allowed: tuple[str, ...] = ()
    labels: Labels = field(default_factory=Labels)
    cuts: dict[str, dict[int, IntArray]] = field(default_factory=dict)
    inexact: dict[str, IntArray] = field(default_factory=dict)
    balances: list[Balance] = field(default_factory=list)

    @cached_property
    def counts(self) -> Variation:
        """Known values with three times as many channels, so that halves stay whole."""
        return Variation(self.graph.facts, lambda name: self._lengths(name, 3))

    @cached_property
    def fewest(self) -> Variation:
        """Known values with one channel everywhere, which tells thresholds from constants."""
        return Variation(self.graph.facts, lambda name: self._lengths(name, 0))

    @cached_property
    def runs(self) -> Shuffles:
        """Nodes that together reorder channels."""
        return find_shuffles(self.graph)

    def _run_through(self, run: Shuffle) -> None:
        self.cuts[run.last.outputs[0]] = {
            axis: labels[run.taken] if axis == run.axis else labels
            for axis, labels in self.cuts.get(run.source, {}).items()
        }

    def _lengths(self, name: str, times: int) -> dict[int, int]:
        cuts = self.cuts.get(name, {})
        return {axis: max(times * labels.size, 1) for axis, labels in cuts.items()}

    def step(self, node: Node) -> None:
        """Give labels to the outputs of `node`, and tie or pin those of its inputs."""
        op = find_op(node)
        for name in (*node.inputs, *node.captures):
            self._introduce(name)
        if node.name in self.graph.computed.inside:
            return
        self.counts.follow(node)
        self.fewest.follow(node)
        site = replace(
            site_of(self.graph, node),
            counted=self.counts.differs,
            cut=[self.cuts.get(name, {}).keys() for name in node.inputs],
        )
        for name in node.captures:
            self._pin(name, f"is read inside the subgraph of {node}")
        if node.name in self.runs.inner:
            return
        if node.name in self.runs.ending:
            self._run_through(self.runs.ending[node.name])
            return
        self._pin_counts(node, op)
        known = [self.graph.shape(name) is not None for name in self.graph.read_outputs(node)]
        if op is None:
            self._pin_all(node, f"feeds {node}, {why_unknown(node)}")
        elif node.nested and _states_counts(op, site):
            self._pin_all(node, f"feeds {node} of a function that other nodes may call")
        elif isinstance(op.how, Pins):
            self._pin_all(node, f"feeds {node}, {op.how.why}")
        elif not all(known):
            self._pin_all(node, f"feeds {node}, whose output shape is not known")
        else:
            self._cross(node, op, site)
            self._check_restatement(node, op, site)

    def _check_restatement(self, node: Node, op: Op, site: Site) -> None:
        """Ask the operator again, now that the cuts of its outputs are known."""
        if callable(op.how):
            cut = [self.cuts.get(name, {}).keys() for name in node.outputs]
            how = op.channels(replace(site, output_cut=cut))
            if isinstance(how, Pins):
                for name in (*node.inputs, *node.outputs):
                    self._pin(name, f"feeds {node}, {how.why}")

    def _cross(self, node: Node, op: Op, site: Site) -> None:
        how = op.channels(site)
        if isinstance(how, Moves):
            self._move(node, op, site, how.along)
        elif isinstance(how, Aligns):
            self._align(node, op)
        elif isinstance(how, Axes):
            self._relate(node, how)
        elif isinstance(how, Pins):
            self._pin_all(node, f"feeds {node}, {how.why}")
        else:
            assert isinstance(how, Shapes | Holds | Fills)

    def _introduce(self, name: str) -> None:
        """Give a constant that is seen for the first time labels on every axis.

        A list of 64-bit integers is a shape, bounds or indices; those have none.
        """
        tensor = self.graph.constant_tensors.get(name)
        if name in self.cuts or tensor is None:
            return
        if tensor.data_type != TensorProto.INT64 or len(tensor.dims) > 1:
            self.cuts[name] = {k: self.labels.fresh(n) for k, n in enumerate(tensor.dims) if n > 1}

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
        for name in node.outputs:
            if self.counts.resizes(name):
                self.pin_counted(name, f"their number is the size of what {node} makes")
        for name in node.captures:
            self.pin_counted(name, f"their number is read inside the subgraph of {node}")
        if all(name in self.graph.facts.values for name in node.outputs if name):
            return
        for index, name in enumerate(node.inputs):
            if op is None or not op.is_parameter(index):
                self.pin_counted(name, f"their number is a value that {node} computes with")

    def pin_counted(self, name: str, reason: str) -> None:
        """Pin the channels on whose number a known value depends."""
        if name in self.counts.values or name in self.fewest.values:
            for source in self.graph.facts.counts[name]:
                self._pin(source, reason)

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
        loose = bool(how.loose) and self._is_allowed(node)
        inputs, outputs = parse(how.loose if loose else how.pattern)
        shapes = [self.graph.shape(name) if name else None for name in node.inputs]
        letters = Letters(self.labels, loose_letters((*inputs, *outputs)), dict(how.sizes))
        operands = [
            (axis, size, self.cuts.get(name, {}).get(k), name)
            for name, shape, axes in zip(node.inputs, shapes, inputs, strict=False)
            if shape is not None
            for k, (axis, size) in enumerate(axes.match(shape, f"{node}: input '{name}'"))
        ]
        letters.measure((axis, size) for axis, size, _, _ in operands)
        self._tie_inputs(node, how, letters, operands)
        if loose and letters.held:
            self.inexact[str(node)] = np.concatenate(list(letters.held.values()))
        for name, axes in zip(node.outputs, outputs, strict=False):
            shape = self.graph.shape(name) if name else None
            if shape is not None:
                placed = axes.match(shape, f"{node}: output '{name}'")
                self.cuts[name] = {
                    k: letters.spread(axis)
                    for k, (axis, size) in enumerate(placed)
                    if size > 1 and letters.places(axis)
                }
        self.balances += letters.balances(f"meets fixed channels in another group of {node}")

    def _tie_inputs(
        self,
        node: Node,
        how: Axes,
        letters: Letters,
        operands: Iterable[tuple[Axis, int, IntArray | None, str]],
    ) -> None:
        for axis, size, held, name in operands:
            if axis.fixed and held is not None:
                self.labels.pin(held, f"feeds {node}, {how.why}")
            if axis.fixed and (held is None or len(axis.names) != 1):
                continue
            if not letters.fits(axis, size):
                raise InvalidModel(
                    f"{node}: input '{name}' has {size} positions where others have "
                    f"{letters.size(axis)}; export the model again"
                )
            if size > 1:
                given = np.full(size, KEPT) if held is None else held
                letters.tie(axis, given, f"meets fixed channels of '{name}' in {node}")

    def _is_allowed(self, node: Node) -> bool:
        name = node.op_type.lower()
        return any(name.startswith(allowed.lower()) for allowed in self.allowed)

    def _move(self, node: Node, op: Op, site: Site, along: tuple[int, ...] | None) -> None:
        """Shuffle the node on labels, one labelled axis of its inputs at a time."""
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
                    self._place(name, labels, along, f"is split apart by {node}")

    def _freest(self, name: str, classes: Mapping[int, int]) -> int:
        """The axis that leaves most classes, of those that no reader needs whole if any does."""
        if sum(count > 1 for count in classes.values()) > 1:
            closed = self._closed_axes(name)
            left = {k: n for k, n in classes.items() if k not in closed}
            classes = left if any(count > 1 for count in left.values()) else classes
        return max(classes, key=lambda axis: classes[axis])

    def _closed_axes(self, name: str) -> set[int]:
        """The axes of a tensor that one of its readers needs whole."""
        found: set[int] = set()
        for node in self.graph.consumers.get(name, ()):
            op, shape = find_op(node), self.graph.shape(name)
            how = op.channels(site_of(self.graph, node)) if op else None
            if not isinstance(how, Axes) or shape is None:
                continue
            for operand, read in zip(parse(how.pattern)[0], node.inputs, strict=False):
                if read == name:
                    pairs = enumerate(operand.match(shape, str(node)))
                    found.update(k for k, (axis, _) in pairs if axis.fixed)
        return found

    def _spread(self, name: str, axis: int, shape: Shape | None) -> IntArray:
        """The labels of one axis as an array of the tensor's shape, with stride 0 elsewhere."""
        assert shape is not None
        labels = self.cuts.get(name, {}).get(axis)
        if labels is None:
            return np.broadcast_to(np.int64(KEPT), shape)
        return np.broadcast_to(
            labels.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape
        )

    def _place(
        self, name: str, moved: IntArray, along: tuple[int, ...] | None, reason: str
    ) -> None:
        """Cut the tensor along the axis that leaves the most classes; tie what shares a slice."""
        if not (moved[thin(moved)] > KEPT).any():
            return
        axes = range(moved.ndim) if along is None else along
        choices = {k: rows_of(moved, k) for k in axes if moved.shape[k] > 1}
        if not choices:
            self.labels.pin(moved[thin(moved)].ravel(), f"alone fills '{name}'")
            return
        axis = self._freest(name, {k: freedom(rows) for k, rows in choices.items()})
        labels = self.labels.unite_rows(choices[axis], reason)
        if melts(labels, moved):
            self.labels.pin(labels, reason)
            return
        cut = self.cuts.setdefault(name, {})
        if axis in cut:
            self.labels.pin(labels, reason)
            return
        if (labels == labels[0]).all():
            self.labels.pin(labels[:1], f"alone fills '{name}'")
        free = labels == FREE
        cut[axis] = np.where(free, KEPT, labels)
        cut[axis][free] = self.labels.fresh(int(free.sum()))


def _states_counts(op: Op, site: Site) -> bool:
    """Say whether a node states a number of channels that may change."""
    if op.restate is None:
        return False
    return not op.weights or op.restate(replace(site, before=site)) is not None
