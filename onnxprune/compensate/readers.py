"""The nodes that weigh and sum channels, and along which axes: what a compensation may re-fit.

A **reader** is a weighing node whose weight has an axis that its output does not have: there it
reads channels and sums over them. No operator is named here: the axes are those of its pattern.

A node is left out, and so stays as it is, when

* its weight is not a constant, belongs to several nodes, or is not of 32 or 64 bits;
* it is grouped or depthwise: what it reads is tied to what it writes;
* it has its channels on the first axis of its input, where samples are expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.ops import Aligns, Axes, Axis, Moves, Node, Op, Relevance, parse

if TYPE_CHECKING:
    from torch import Tensor

WIDE = 32
"""Positions; an axis of a map at least this wide is read in strides."""


@dataclass(frozen=True)
class Cells:
    """The positions of a flattened map by channel: channel c is at `order[c * places:][:places]`.

    Where nothing is flattened every position is a channel of its own.
    """

    order: IntArray
    places: int


@dataclass(frozen=True)
class Reader:
    """One weighing node of the unpruned graph.

    `read` and `written` are the axes of its weight along which it reads and writes channels,
    `given` and `made` the same channels' axes of its input and output, `rest` the axes of a map.
    `bias` is the input that a correction may be added to, None where there is none; `bias_scale` is
    what it is multiplied by. `flattened[position]` is the channel that owns a position of the
    input, where that is a map flattened so that every channel fills equally many positions.
    """

    node: Node
    op: Op
    weight: str
    read: int
    written: int
    given: int
    made: int
    rest: tuple[int, ...]
    bias: int | None
    bias_scale: float
    flattened: IntArray | None

    @property
    def key(self) -> str:
        """The name of the output: the same in the pruned graph."""
        return self.node.outputs[0]

    def kept(
        self, graph: Graph, groups: ChannelGroups, dead: BoolArray
    ) -> tuple[BoolArray, BoolArray]:
        """Return which positions it still reads and writes. Shapes: dead `[channels]`."""
        found = groups.kept(self.weight, dead)
        shape = graph.constant(self.weight).shape
        whole = {axis: np.ones(shape[axis], np.bool_) for axis in (self.read, self.written)}
        kept = {**whole, **found}
        return kept[self.read], kept[self.written]

    def cells(self, alive: BoolArray | None = None) -> Cells | None:
        """Return where a flattened map has its channels, among all or the surviving positions."""
        if self.flattened is None:
            return None
        owners = self.flattened if alive is None else self.flattened[alive]
        order = np.argsort(owners, kind="stable")
        return Cells(order, int((owners == owners[0]).sum()))

    def channels(self, alive: BoolArray) -> BoolArray:
        """Return which rows of `rows` survive, from which positions do."""
        cells = self.cells()
        return alive if cells is None else alive[cells.order[:: cells.places]]

    def rows(self, x: Tensor, alive: BoolArray | None = None, *, wide: int = WIDE) -> Tensor:
        """Return one row for each channel of the input, its values over samples and positions.

        Shapes: x `[N, C, *]` (or as the pattern says) -> `[C, M]`.
        """
        index = [slice(None)] * x.ndim
        for axis in self.rest:
            index[axis] = slice(None, None, stride(x.shape[axis], wide))
        matrix = x[tuple(index)].movedim(self.given, 0).flatten(1)
        cells = self.cells(alive)
        if cells is None:
            return matrix
        return matrix[cells.order].reshape(-1, cells.places * matrix.shape[1])

    def owners(self, groups: ChannelGroups) -> IntArray:
        """Return the channel of each of `rows`, -1 for what stays."""
        cells = self.cells()
        owners = groups.cuts[self.weight][self.read]
        return owners if cells is None else owners[cells.order[:: cells.places]]

    def remap(self, weight: Tensor, channel_map: Tensor, alive: BoolArray) -> Tensor:
        """Return the weight that reads `K` channels as `weight` read `channel_map` of them.

        Shapes: weight `[o, C, *]`, channel_map `[C, K]` -> `[o, K, *]` (axes as the pattern says).
        """
        after = self.cells(alive)
        mapped = channel_map.T @ self.by_channel(weight)
        shape = [size for axis, size in enumerate(weight.shape) if axis != self.read]
        mapped = mapped.reshape(int(alive.sum()), *shape)
        if after is not None:
            mapped = mapped[np.argsort(after.order)]
        return mapped.movedim(0, self.read)

    def by_channel(self, weight: Tensor) -> Tensor:
        """Return all that is done to each channel. Shapes: `[o, C, *]` -> `[C, o * positions]`."""
        rows, cells = weight.movedim(self.read, 0), self.cells()
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
        """Return one value for each output channel as `y` has them. Shapes: `[o]` -> `[o, 1..]`."""
        return values.to(y.dtype).reshape(
            [-1 if axis == self.made else 1 for axis in range(y.ndim)]
        )

    def _others(self, y: Tensor) -> list[int]:
        return [axis for axis in range(y.ndim) if axis != self.made]


def stride(size: int, wide: int) -> int:
    """Return the step in which an axis is read: no more than `wide` positions of a wide one."""
    return 1 if size < wide else max(2, -(-size // wide))


def find_readers(graph: Graph, groups: ChannelGroups) -> tuple[Reader, ...]:
    """Return the readers of channels that may go, in the order of the graph."""
    uses = Counter(n for node in graph.nodes for n in (*node.inputs, *node.captures))
    uses.update(graph.outputs)
    shared = {name for name, count in uses.items() if count > 1}
    found = (_reader(graph, groups, node, shared) for node in graph.nodes if not node.nested)
    return tuple(reader for reader in found if reader is not None)


def _reader(
    graph: Graph, groups: ChannelGroups, node: Node, shared: Collection[str]
) -> Reader | None:
    op = node.op
    if op is None or op.relevance is not Relevance.LINEAR or op.weights != (1,):
        return None
    x, weight, y = node.inputs[0], node.inputs[1], node.outputs[0]
    how = graph.how(node)
    if not isinstance(how, Axes) or not _is_weight(graph, weight) or weight in shared:
        return None
    inputs, outputs = parse(how.pattern)
    shapes = graph.shape(x), graph.shape(weight), graph.shape(y)
    if None in shapes or x in graph.constant_tensors:
        return None
    axes = [
        [axis for axis, _ in operand.match(shape, str(node))]
        for operand, shape in zip((*inputs[:2], outputs[0]), shapes, strict=True)
        if shape is not None
    ]
    placed = _place(*axes)
    if placed is None or placed[2] == 0:
        return None
    read, written, given, made = placed
    channels = groups.cuts.get(weight, {}).get(read)
    if channels is None or not groups.removable[channels[channels >= 0]].any():
        return None
    bias, scale = _bias(graph, op, node)
    rest = tuple(k for k, axis in enumerate(axes[0]) if not axis.names)
    flattened = None if rest else _flattened(graph, groups, x, channels)
    return Reader(
        node=node,
        op=op,
        weight=weight,
        read=read,
        written=written,
        given=given,
        made=made,
        rest=rest,
        bias=bias,
        bias_scale=scale,
        flattened=flattened,
    )


def _is_weight(graph: Graph, name: str) -> bool:
    return name in graph.constant_tensors and graph.constant(name).dtype in (np.float32, np.float64)


def _place(
    x: Sequence[Axis], weight: Sequence[Axis], y: Sequence[Axis]
) -> tuple[int, int, int, int] | None:
    """The axes `read`, `written`, `given` and `made` of a Reader, if all are plain."""
    named = [(k, axis.names) for k, axis in enumerate(weight) if axis.names]
    made = {axis.names: k for k, axis in enumerate(y)}
    given = {axis.names: k for k, axis in enumerate(x)}
    read = [(k, names) for k, names in named if names not in made]
    written = [(k, names) for k, names in named if names in made]
    if len(read) != 1 or len(written) != 1 or any(len(names) != 1 for _, names in named):
        return None
    (into, letter), (out, other) = read[0], written[0]
    return into, out, given[letter], made[other]


def _bias(graph: Graph, op: Op, node: Node) -> tuple[int | None, float]:
    """The input that takes a bias, and its factor; None where there is no such input."""
    if not op.biases:
        return None, 1.0
    index = op.biases[0]
    name = node.inputs[index] if index < len(node.inputs) else ""
    scale = float(node.attributes.get("beta", 1.0))
    if name and not _is_weight(graph, name):
        return None, 1.0
    rowwise = not name or graph.constant(name).shape[:-1] in ((), (1,))
    return (index, scale) if rowwise and scale != 0.0 else (None, 1.0)


def _flattened(
    graph: Graph, groups: ChannelGroups, name: str, channels: IntArray
) -> IntArray | None:
    """Return `channels` if the tensor is a flattened map, each filling equally many places."""
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
    """Whether the output is a rearranged or element-wise changed copy of the first input alone."""
    op = node.op
    data = [
        k
        for k, name in enumerate(node.inputs)
        if name and name not in graph.constant_tensors and not (op and op.is_parameter(k))
    ]
    return isinstance(graph.how(node), (Moves, Aligns)) and data == [0]
