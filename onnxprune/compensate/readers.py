"""The layers whose weights a compensation may change, and which axes their channels lie along.

A **reader** is a node whose weight has an axis that its output does not have: along it, it reads
channels and sums over them. No operator is named here; the axes are those of its pattern.

A node is no reader, and keeps its weights, where

* its weight is not a constant, is shared by several nodes, or does not have 32 or 64 bits;
* it is grouped or depthwise, so that what it reads is tied to what it writes;
* it reads channels along the first axis of its input, where samples are expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Axis, Moves, Node, Op, Relevance, parse

if TYPE_CHECKING:
    from torch import Tensor

PIECE = 2**24
"""Elements of a weight of which copies are made at once."""
WIDE = 32
"""Positions; an axis of a map that is at least this wide is read in strides."""


@dataclass(frozen=True)
class ChannelAxes:
    """Along which axes the channels lie that a node reads (`in`) and those that it writes (`out`).

    `weight_in` and `weight_out` are axes of its weight, `input` is that of its input, `output` that
    of its output. `map` holds the axes of its input that are neither samples nor channels.
    """

    weight_in: int
    weight_out: int
    input: int
    output: int
    map: tuple[int, ...]


@dataclass(frozen=True)
class Cells:
    """The positions of a flattened map by channel: `order[c * places:][:places]` are those of c."""

    order: IntArray
    places: int


@dataclass(frozen=True)
class Reader:
    """One node of the unpruned graph whose weights a compensation may change.

    `bias` is the input that takes a bias, None where there is none, and `bias_scale` the factor
    that the node multiplies it by. `flattened` is there where the input is a flattened map of which
    every channel fills equally many positions: the channel that each position belongs to.
    Shapes: flattened `[positions]`.
    """

    node: Node
    op: Op
    weight: str
    axes: ChannelAxes
    bias: int | None
    bias_scale: float
    flattened: IntArray | None

    @property
    def key(self) -> str:
        """The name of the output, which is the same in the pruned graph."""
        return self.node.outputs[0]

    def kept(
        self, graph: Graph, groups: ChannelGroups, dead: BoolArray
    ) -> tuple[BoolArray, BoolArray]:
        """Return which positions of its weight it still reads, and which it still writes.

        Shapes: dead `[channels]` -> `[i]`, `[o]`.
        """
        found = groups.kept(self.weight, dead)
        shape = graph.constant(self.weight).shape
        axes = (self.axes.weight_in, self.axes.weight_out)
        read, written = (found.get(axis, np.ones(shape[axis], np.bool_)) for axis in axes)
        return read, written

    def cells(self, alive: BoolArray | None = None) -> Cells | None:
        """Return where a flattened map has its channels, None where nothing is flattened.

        Shapes: alive `[positions]`, those that survive; all by default.
        """
        if self.flattened is None:
            return None
        owners = self.flattened if alive is None else self.flattened[alive]
        order = np.argsort(owners, kind="stable")
        return Cells(order, int((owners == owners[0]).sum()))

    def channels(self, alive: BoolArray) -> BoolArray:
        """Return which rows of `rows` survive. Shapes: alive `[positions]` -> `[C]`."""
        cells = self.cells()
        return alive if cells is None else alive[cells.order[:: cells.places]]

    def rows(self, x: Tensor, alive: BoolArray | None = None, *, wide: int = WIDE) -> Tensor:
        """Return one row for each channel of the input, its values over samples and positions.

        Shapes: x `[N, C, *]` (or as the pattern says) -> `[C, M]`.
        """
        index = [slice(None)] * x.ndim
        for axis in self.axes.map:
            index[axis] = slice(None, None, stride(x.shape[axis], wide))
        matrix = x[tuple(index)].movedim(self.axes.input, 0).flatten(1)
        cells = self.cells(alive)
        if cells is None:
            return matrix
        return matrix[cells.order].reshape(-1, cells.places * matrix.shape[1])

    def owners(self, groups: ChannelGroups) -> IntArray:
        """Return the channel of each of `rows`, -1 for what stays. Shapes: `[C]`."""
        cells = self.cells()
        owners = groups.cuts[self.weight][self.axes.weight_in]
        return owners if cells is None else owners[cells.order[:: cells.places]]

    def remap(
        self, weight: Tensor, mapping: Callable[[Tensor], Tensor], alive: BoolArray
    ) -> Tensor:
        """Return the weight that reads K channels as `weight` reads what is predicted from them.

        `mapping` turns weights of C channels into those of K.
        Shapes: weight `[o, C, *]`, mapping `[C, n]` -> `[K, n]`, -> `[o, K, *]` (axes as the
        pattern says).
        """
        size, after = list(weight.shape), self.cells(alive)
        size[self.axes.weight_in] = int(alive.sum())
        found, done = weight.new_empty(size), 0
        for part in self.split(weight):
            mapped = mapping(self.by_channel(part))
            shape = [size for axis, size in enumerate(part.shape) if axis != self.axes.weight_in]
            mapped = mapped.reshape(int(alive.sum()), *shape)
            if after is not None:
                mapped = mapped[np.argsort(after.order)]
            outputs = part.shape[self.axes.weight_out]
            place = found.narrow(self.axes.weight_out, done, outputs)
            place.copy_(mapped.movedim(0, self.axes.weight_in))
            done += outputs
        return found

    def split(self, weight: Tensor) -> Sequence[Tensor]:
        """Return views of a weight, a few outputs each where it is large. Shapes: `[o, C, *]`."""
        outputs = weight.shape[self.axes.weight_out]
        step, axis = max(PIECE * outputs // weight.numel(), 1), self.axes.weight_out
        return [weight.narrow(axis, k, min(step, outputs - k)) for k in range(0, outputs, step)]

    def by_channel(self, weight: Tensor) -> Tensor:
        """Return the weights of each channel. Shapes: `[o, C, *]` -> `[C, o * positions]`."""
        rows, cells = weight.movedim(self.axes.weight_in, 0), self.cells()
        if cells is None:
            return rows.flatten(1)
        return rows[cells.order].reshape(len(rows) // cells.places, -1)

    def mean(self, y: Tensor) -> Tensor:
        """Return the mean of each output channel. Shapes: y `[N, o, *]` -> `[o]`."""
        return y.mean(self._others(y)).double()

    def mean_square(self, y: Tensor) -> Tensor:
        """Return the mean square of each output channel. Shapes: y `[N, o, *]` -> `[o]`."""
        norm: Tensor = y.norm(2, self._others(y)).double()
        return norm**2 * len(norm) / y.numel()

    def along(self, values: Tensor, y: Tensor) -> Tensor:
        """Return a value of each output channel in a form that broadcasts with `y`.

        Shapes: values `[o]`, y `[N, o, *]` -> `[1, o, 1..]`.
        """
        return values.to(y.dtype).reshape(
            [-1 if axis == self.axes.output else 1 for axis in range(y.ndim)]
        )

    def _others(self, y: Tensor) -> list[int]:
        return [axis for axis in range(y.ndim) if axis != self.axes.output]


def stride(size: int, wide: int) -> int:
    """Return the step that reads at most `wide` positions of an axis at least as wide."""
    return 1 if size < wide else max(2, -(-size // wide))


def find_readers(graph: Graph, groups: ChannelGroups) -> tuple[Reader, ...]:
    """Return the readers of channels that may go, in the order of the graph."""
    uses = Counter(n for node in graph.nodes for n in (*node.inputs, *node.captures))
    shared = {name for name, count in uses.items() if count > 1}
    found = (_reader(graph, groups, node, shared) for node in graph.nodes if not node.nested)
    return tuple(reader for reader in found if reader is not None)


def _reader(
    graph: Graph, groups: ChannelGroups, node: Node, shared: Collection[str]
) -> Reader | None:
    """The node as a reader, or None where it is none or reads no channel that may go."""
    op = node.op
    if op is None or op.relevance is not Relevance.LINEAR or op.weights != (1,):
        return None
    x, weight = node.inputs[:2]
    if not _is_weight(graph, weight) or weight in shared or x in graph.constant_tensors:
        return None
    axes = _find_axes(graph, node)
    channels = None if axes is None else groups.cuts.get(weight, {}).get(axes.weight_in)
    if axes is None or channels is None or not groups.removable[channels[channels >= 0]].any():
        return None
    bias, scale = _bias(graph, op, node)
    flattened = None if axes.map else _flattened(graph, groups, x, channels)
    return Reader(node, op, weight, axes, bias, scale, flattened)


def _is_weight(graph: Graph, name: str) -> bool:
    return name in graph.constant_tensors and graph.constant(name).dtype in (np.float32, np.float64)


def _find_axes(graph: Graph, node: Node) -> ChannelAxes | None:
    """The axes of the channels, from the pattern of the operator and the shapes of its tensors."""
    how = graph.how(node)
    if not isinstance(how, Axes):
        return None
    inputs, outputs = parse(how.pattern)
    operands, names = (*inputs[:2], outputs[0]), (*node.inputs[:2], node.outputs[0])
    matched: list[Sequence[Axis]] = []
    for operand, name in zip(operands, names, strict=True):
        shape = graph.shape(name)
        if shape is None:
            return None
        matched.append([axis for axis, _ in operand.match(shape, str(node))])
    found = _place(*matched)
    return None if found is None or found.input == 0 else found


def _place(x: Sequence[Axis], weight: Sequence[Axis], y: Sequence[Axis]) -> ChannelAxes | None:
    """The axes of the channels, where the weight has one for each direction and no others.

    The letter of an axis says which channels lie along it. Those that the output has are written,
    the other ones are read.
    """
    of_input, of_output = ({axis.names: k for k, axis in enumerate(axes)} for axes in (x, y))
    named = {axis.names: k for k, axis in enumerate(weight) if axis.names}
    read = [names for names in named if names not in of_output]
    written = [names for names in named if names in of_output]
    if len(read) != 1 or len(written) != 1 or any(len(names) != 1 for names in named):
        return None
    return ChannelAxes(
        weight_in=named[read[0]],
        weight_out=named[written[0]],
        input=of_input[read[0]],
        output=of_output[written[0]],
        map=tuple(k for k, axis in enumerate(x) if not axis.names),
    )


def _bias(graph: Graph, op: Op, node: Node) -> tuple[int | None, float]:
    """The input that takes a bias, and its factor; None where there is no such input."""
    if not op.biases:
        return None, 1.0
    index = op.biases[0]
    name = node.inputs[index] if index < len(node.inputs) else ""
    scale = float(node.attributes.get("beta", 1.0))
    if name and not _is_weight(graph, name):
        return None, 1.0
    is_row = not name or graph.constant(name).shape[:-1] in ((), (1,))
    return (index, scale) if is_row and scale != 0.0 else (None, 1.0)


def _flattened(
    graph: Graph, groups: ChannelGroups, name: str, channels: IntArray
) -> IntArray | None:
    """Return `channels` where the tensor is a flattened map of equally large channels, else None.

    Shapes: channels `[positions]`.
    """
    source = name
    while len(graph.shape(source) or ()) <= 2:
        node = graph.producers.get(source)
        if node is None or not _carries(graph, node):
            return None
        source = node.inputs[0]
    cut = groups.cuts.get(source, {})
    width = next((len(owners) for owners in cut.values()), 0)
    counts = np.unique(channels, return_counts=True)[1]
    even = len(cut) == 1 and channels.min() >= 0 and (counts * width == channels.size).all()
    return channels if even and width < channels.size else None


def _carries(graph: Graph, node: Node) -> bool:
    """Whether the output is the first input, moved or changed element by element."""
    op = node.op
    data = [
        k
        for k, name in enumerate(node.inputs)
        if name and name not in graph.constant_tensors and not (op and op.is_parameter(k))
    ]
    return isinstance(graph.how(node), (Moves, Aligns)) and data == [0]
