"""One walk over the nodes that gives labels to the axes of every tensor.

`cuts[tensor][axis]` is the label of each position of an axis; an axis without a cut never shrinks
(its positions are KEPT). Constants start with fresh labels on all their axes. What is done at a
node depends only on how its operator says that channels cross it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from onnx import TensorProto

from onnxprune.arrays import IntArray
from onnxprune.channels import placement
from onnxprune.channels.axis_labels import InputAxis, Letters, idle_letters, loose_letters
from onnxprune.channels.labels import KEPT, Balance, Labels, Reason, feeds
from onnxprune.channels.lookahead import freest_axis
from onnxprune.channels.misfit import MISFITS, check_sizes, why_misfit
from onnxprune.channels.places import can_restate
from onnxprune.channels.shuffles import Shuffle, Shuffles, find_shuffles
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import Graph, Shape, Variation
from onnxprune.ops import (
    FREE,
    FROZEN,
    Aligns,
    Axes,
    Border,
    CutSite,
    Misfit,
    Moves,
    Node,
    Op,
    Operand,
    Pins,
    PrunedSite,
    Shapes,
    Writes,
    parse,
    why_unknown,
)


@dataclass
class Propagation:
    """The walk: call `step` for each node in order, then read `cuts` and solve `labels`.

    `allowed` are operators, named or by the beginning of their names, that may be pruned through
    inexactly; `inexact` collects the nodes where that happened, with the labels that crossed.
    `inner` says that the inner widths of attention may go.
    """

    graph: Graph
    allowed: tuple[str, ...] = ()
    inner: bool = False
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
    def shuffles(self) -> Shuffles:
        """Nodes that together reorder channels."""
        return find_shuffles(self.graph)

    def _lengths(self, name: str, times: int) -> dict[int, int]:
        cuts = self.cuts.get(name, {})
        return {axis: max(times * labels.size, 1) for axis, labels in cuts.items()}

    def step(self, node: Node) -> None:
        """Give labels to the outputs of `node`, and tie or pin those of its inputs.

        The first reason recorded for a channel is the one that is shown, so the order matters:

        1. Constants get labels where they are read first.
        2. A node that makes a weight from constants, a constant too, or enters a body is skipped.
        3. Known values are worked out anew, as they follow the cuts of the inputs.
        4. What a subgraph reads is pinned, also by a node of a shuffle.
        5. The last node of a shuffle reorders the labels of its source; the others have none.
        6. At any other node, numbers of channels that are used as values pin these; labels cross.
        """
        try:
            self._step(node)
        except MISFITS as error:
            self._pin_all(node.inputs, why_misfit(self.graph, node, error))

    def _step(self, node: Node) -> None:
        for name in (*node.inputs, *node.captures):
            self._introduce(name)
        if node.name in self.graph.computed.inside:
            self._pin_all(node.inputs, Reason(f"goes into a weight that {node} makes", node.name))
        if node.name in self.graph.computed.inside or node.border is Border.ENTRY:
            return
        self.counts.follow(node)
        self.fewest.follow(node)
        for name in node.captures:
            self._pin(name, Reason(f"is read inside the subgraph of {node}", node.name))
        if node.name in self.shuffles.ending:
            self._reorder(self.shuffles.ending[node.name])
        elif node.name not in self.shuffles.inner:
            self._pin_counts(node)
            check_sizes(self.graph, node)
            self._cross(node)

    def _introduce(self, name: str) -> None:
        """Give a constant that is seen for the first time labels on every axis.

        A list of 64-bit integers is a shape, bounds or indices; those have none.
        """
        tensor = self.graph.constant_tensors.get(name)
        if name in self.cuts or tensor is None:
            return
        if tensor.data_type != TensorProto.INT64 or len(tensor.dims) > 1:
            self.cuts[name] = {k: self.labels.fresh(n) for k, n in enumerate(tensor.dims) if n > 1}

    def _reorder(self, shuffle: Shuffle) -> None:
        self.cuts[shuffle.last.outputs[0]] = {
            axis: labels[shuffle.taken] if axis == shuffle.axis else labels
            for axis, labels in self.cuts.get(shuffle.source, {}).items()
        }

    def _pin(self, name: str, reason: Reason) -> None:
        for labels in self.cuts.get(name, {}).values():
            self.labels.pin(labels, reason)

    def _pin_all(self, names: Iterable[str], reason: Reason) -> None:
        for name in names:
            self._pin(name, reason)

    def _pin_counts(self, node: Node) -> None:
        """Pin channels whose number is used as a value: removing one would change results."""
        if node.op is not None and isinstance(node.op.how, Shapes):
            return
        for name in node.captures:
            reason = Reason(f"their number is read inside the subgraph of {node}", node.name)
            self.pin_counted(name, reason)
        if all(name in self.graph.facts.values for name in node.outputs if name):
            return
        for index, name in enumerate(node.inputs):
            if node.op is None or not node.op.is_parameter(index):
                reason = Reason(f"their number is a value that {node} computes with", node.name)
                self.pin_counted(name, reason)
            elif self.counts.resizes(name) and not isinstance(self.graph.how(node), Writes):
                reason = Reason(f"their number is the size of what {node} is told", node.name)
                self.pin_counted(name, reason)

    def pin_counted(self, name: str, reason: Reason) -> None:
        """Pin the channels on whose number a known value depends."""
        if name in self.counts.values or name in self.fewest.values:
            self._pin_all(self.graph.facts.counts[name], reason)

    def _cross(self, node: Node) -> None:
        """Carry the labels across a node; what cannot cross it is pinned."""
        obstacle = self._obstacle(node)
        if obstacle is not None:
            self._pin_all(node.inputs, obstacle)
            return
        how = self.graph.how(node)
        if isinstance(how, Moves):
            self._move(node, how.along)
        elif isinstance(how, Aligns):
            self._align(node)
        elif isinstance(how, Axes):
            self._relate(node, how)
        elif isinstance(how, Writes):
            self._write(node, how)
        pins = self._ask_again(node)
        if pins is not None:
            self._pin_all((*node.inputs, *node.outputs), feeds(node, pins.why))

    def _obstacle(self, node: Node) -> Reason | None:
        """Return why no channel can cross a node, or None where they can."""
        if node.op is None:
            return feeds(node, why_unknown(node))
        if node.nested and self._states_counts(node.op, node):
            return feeds(node, "in a function that other nodes may call")
        if isinstance(node.op.how, Pins):
            return feeds(node, node.op.how.why)
        supposed = self.graph.facts.supposed
        read = self.graph.read_outputs(node)
        if any(self.graph.shape(name) is None or name in supposed for name in read):
            return feeds(node, "whose output shape is not known")
        how = self.graph.how(node)
        return feeds(node, how.why) if isinstance(how, Pins) else None

    def _states_counts(self, op: Op, node: Node) -> bool:
        """Say whether a node states a number of channels that may change."""
        if op.restate is None:
            return False
        site = PrunedSite.untouched(self.graph.site(node))
        return not op.weights or op.restated(site) is not None

    def _ask_again(self, node: Node) -> Pins | None:
        """Ask the operator what must stay, now that the cuts of its outputs are known."""
        if node.op is None or node.op.pins is None:
            return None
        cut, output_cut = (
            [self.cuts.get(name, {}).keys() for name in names]
            for names in (node.inputs, node.outputs)
        )
        site = CutSite(
            **vars(self.graph.site(node)),
            cut=cut,
            output_cut=output_cut,
            counted=self.counts.differs,
        )
        return node.op.asked_again(site)

    def _align(self, node: Node) -> None:
        """Tie what numpy broadcasting brings together."""
        out = self.graph.shape(node.outputs[0])
        assert out is not None and node.op is not None
        operands = [
            (name, self.graph.shape(name))
            for index, name in enumerate(node.inputs)
            if name and not node.op.is_parameter(index)
        ]
        cut: dict[int, IntArray] = {}
        for axis, size in enumerate(out):
            held = list(self._held(operands, axis - len(out)))
            if size == 1:
                continue
            if not held:
                cut[axis] = self.labels.fresh(size)
            elif any(labels is not None for labels in held):
                reason = Reason(f"meets fixed channels in {node}", node.name)
                cut[axis] = self._unite_all(held, size, reason)
        for name in node.outputs:
            if name and self.graph.shape(name) == out:
                self.cuts[name] = cut

    def _held(
        self, operands: Iterable[tuple[str, Shape | None]], axis: int
    ) -> Iterator[IntArray | None]:
        """The labels (None: KEPT) of every operand that is not of size 1 on `axis` (< 0)."""
        for name, shape in operands:
            if shape is not None and len(shape) >= -axis and shape[axis] > 1:
                yield self.cuts.get(name, {}).get(len(shape) + axis)

    def _unite_all(self, held: Iterable[IntArray | None], size: int, reason: Reason) -> IntArray:
        arrays = [np.full(size, KEPT) if labels is None else labels for labels in held]
        for other in arrays[1:]:
            self.labels.unite(arrays[0], other, reason)
        return next((labels for labels in arrays if (labels != KEPT).any()), arrays[0])

    def _relate(self, node: Node, how: Axes) -> None:
        """Tie the axes that the operator's pattern gives the same letter."""
        loose = bool(how.loose) and self._is_allowed(node)
        inputs, outputs = parse(how.pattern_for(loose=loose, inner=self.inner and not node.nested))
        read = list(self._input_axes(node, inputs))
        idle = idle_letters(inputs[0], read)
        letters = Letters(self.labels, loose_letters((*inputs, *outputs)), idle, dict(how.sizes))
        letters.measure((found.axis, found.size) for found in read)
        for found in read:
            self._tie(node, how, letters, found)
        if loose and letters.held:
            self.inexact[str(node)] = np.concatenate(list(letters.held.values()))
        for name, operand in zip(node.outputs, outputs, strict=False):
            shape = self.graph.shape(name) if name else None
            if shape is not None:
                placed = operand.match(shape, f"{node}: output '{name}'")
                self.cuts[name] = {
                    k: letters.spread(axis)
                    for k, (axis, size) in enumerate(placed)
                    if size > 1 and letters.places(axis)
                }
        reason = Reason(f"meets fixed channels in another group of {node}", node.name)
        self.balances += letters.balances(reason)

    def _input_axes(self, node: Node, operands: Sequence[Operand]) -> Iterator[InputAxis]:
        for name, operand in zip(node.inputs, operands, strict=False):
            shape = self.graph.shape(name) if name else None
            if shape is not None:
                axes = operand.match(shape, f"{node}: input '{name}'")
                for k, (axis, size) in enumerate(axes):
                    yield InputAxis(name, axis, size, self.cuts.get(name, {}).get(k))

    def _tie(self, node: Node, how: Axes, letters: Letters, found: InputAxis) -> None:
        """Tie an axis of an input to its letter; pin it where its letter is a capital."""
        axis, size, held = found.axis, found.size, found.labels
        if axis.fixed and held is not None:
            self.labels.pin(held, feeds(node, how.why, lift=bool(how.loose)))
        if axis.fixed and (held is None or len(axis.names) != 1):
            return
        if not letters.fits(axis, size):
            others = letters.size(axis)
            raise Misfit(f"'{found.tensor}' has {size} positions where others have {others}")
        if size > 1 and axis.letter not in letters.idle:
            given = np.broadcast_to(np.int64(KEPT), size) if held is None else held
            reason = f"meets fixed channels of '{found.tensor}' in {node}"
            letters.tie(axis, given, Reason(reason, node.name))

    def _is_allowed(self, node: Node) -> bool:
        return node.op_type.lower().startswith(tuple(map(str.lower, self.allowed)))

    def _move(self, node: Node, along: tuple[int, ...] | None) -> None:
        """Run the node on labels, one labelled axis of its inputs at a time."""
        op, site = node.op, self.graph.site(node)
        assert op is not None
        given = [k for k, name in enumerate(node.inputs) if name]
        data = {k for k in given if not op.is_parameter(k)}
        if any(site.shapes[k] is None for k in data):
            self._pin_all(node.inputs, feeds(node, "whose input shape is not known"))
            return
        if any(site.values[k] is None for k in given if op.is_parameter(k)):
            self._pin_all(node.inputs, feeds(node, "whose parameters are computed at run time"))
            return
        for axis in sorted({a for k in data for a in self.cuts.get(node.inputs[k], {})}):
            arguments = [
                placement.spread(self.cuts.get(name, {}).get(axis), axis, site.shapes[k])
                if k in data
                else op.parameter(k, site.values[k])
                for k, name in enumerate(node.inputs)
            ]
            try:
                moved = op(node, arguments)
            except OnnxPruneError as error:
                self._pin_all(node.inputs, feeds(node, str(error)))
                return
            reason = Reason(f"is split apart by {node}", node.name)
            for name, labels in zip(node.outputs, moved, strict=False):
                if name and placement.is_padding(labels):
                    self._pin_all(node.inputs, feeds(node, "which leaves nothing but padding"))
                elif name:
                    self._place(name, labels, along, reason)

    def _write(self, node: Node, how: Writes) -> None:
        """Tie what is written to the positions that it is written to.

        Neither may go where the labels of these do not lie along one axis of what is written.
        """
        data, updates = (self.cuts.get(node.inputs[k], {}) for k in (0, 2))
        reason = Reason(f"is written in place by {node}", node.name)
        tied = set()
        for axis, labels in data.items():
            moved = labels[how.places[axis]]
            along = placement.varying_axes(moved)
            if not can_restate(self.graph, node, how, axis, along):
                self.labels.pin(labels, feeds(node, FROZEN.why))
            elif len(along) != 1:
                self.labels.pin(moved.ravel(), reason)
            else:
                line = placement.rows_of(moved, *along)[:, 0]
                self.labels.unite(line, updates.get(along[0], np.full(line.size, KEPT)), reason)
                tied.update(along)
        for axis in updates.keys() - tied:
            self.labels.pin(updates[axis], reason)
        self.cuts[node.outputs[0]] = dict(data)

    def _place(
        self, name: str, moved: IntArray, along: tuple[int, ...] | None, reason: Reason
    ) -> None:
        """Cut a tensor by the labels that were moved into it, along one axis.

        1. No label arrives that may go: there is nothing to cut.
        2. Every axis that may be cut has one position: the labels fill it alone, and stay.
        3. Else the tensor is cut along the axis that leaves the most classes, and labels that share
           a slice are tied. They stay all the same where
           a. all of several labels were tied to one, or
           b. the labels of another axis of the input were placed there before.
        4. One label alone along the axis stays. Positions that are nobody's get fresh labels.

        Shapes: moved, that of the tensor.
        """
        if not (moved[placement.thin(moved)] > KEPT).any():  # 1
            return
        axes = range(moved.ndim) if along is None else along
        wide = [k for k in axes if moved.shape[k] > 1]
        changing = [k for k in wide if moved.strides[k]]
        choices = {k: placement.rows_of(moved, k) for k in changing or wide[:1]}
        if not choices:  # 2
            self.labels.pin(moved[placement.thin(moved)].ravel(), Reason(f"alone fills '{name}'"))
            return
        classes = {k: placement.freedom(rows) for k, rows in choices.items()}
        axis = freest_axis(self.graph, name, classes, inner=self.inner)
        labels = self.labels.unite_rows(choices[axis], reason)
        if placement.melts(labels, moved) or axis in self.cuts.setdefault(name, {}):  # 3
            self.labels.pin(labels, reason)
            return
        if (labels == labels[0]).all():  # 4
            self.labels.pin(labels[:1], Reason(f"alone fills '{name}'"))
        free = labels == FREE
        cut = np.where(free, KEPT, labels)
        cut[free] = self.labels.fresh(int(free.sum()))
        self.cuts[name][axis] = cut
