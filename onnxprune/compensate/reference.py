"""What a correction fits to: the unpruned net on its reference samples; and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, IntArray, shared
from onnxprune.channels import ChannelGroups
from onnxprune.compensate.readers import Reader, find_readers
from onnxprune.engine import Portable
from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance import Batch, Mirror, OnSamples, choose_device, cut
from onnxprune.surgery import Constants, copy_model

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data, Samples


@dataclass(frozen=True)
class Reference(Portable):
    """The unpruned net, and the samples on which a pruned one is fitted to it.

    `allowed` is how many bytes of all samples may be kept in memory; None sets no limit. `folds` is
    the fold of each sample; without, samples go into one after the other.
    Shapes: folds `[n]`.
    """

    graph: Graph
    groups: ChannelGroups
    data: Data
    device: str
    batch_size: int
    allowed: int | None = None
    folds: IntArray | None = None

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        """The nodes whose weights may be corrected."""
        return find_readers(self.graph, self.groups)

    def narrowed(self, dead: BoolArray) -> Iterator[Narrowed]:
        """Yield the readers that lose input channels. Shapes: dead `[channels]`."""
        for reader in self.readers:
            read, written = reader.kept(self.graph, self.groups, dead)
            if not read.all():
                yield Narrowed(reader, read, written)

    @property
    def computed(self) -> tuple[Graph, int, str]:
        """The graph, the size of a batch, and the device."""
        return self.graph, self.batch_size, self.device

    @property
    def place(self) -> torch.device:
        """Where the mirror computes."""
        return torch.device(choose_device(self.device))

    def mirror(self, graph: Graph | None = None) -> Mirror:
        """Return the mirror of the unpruned net, or of a pruned one.

        Raises: UnsupportedOp naming the first node that torch cannot run.
        """
        try:
            return Mirror(self.graph if graph is None else graph, device=self.device)
        except UnsupportedOp as error:
            raise type(error)(f"{error}; or use --compensate none") from error

    def watch(
        self, mirror: Mirror, x: Samples, note: Callable[[Reader, Tensor, Tensor], None]
    ) -> int:
        """Run one batch and pass each reader's input and output to `note`.

        Returns the most bytes that activations took at once.
        """
        readers = {reader.key: reader for reader in self.readers}
        env, most = mirror.start(x), 0
        for step in mirror.walk(env):
            mirror.execute(step, env)
            most = max(most, sum(tensor.nbytes for tensor in env.values()))
            reader = readers.get(step.node.outputs[0])
            if reader is not None:
                note(reader, env[step.node.inputs[0]], env[reader.key])
        return most

    def cut(
        self, mirror: Mirror, rows: IntArray | None = None, size: int | None = None
    ) -> list[Batch]:
        """Cut the samples, or some rows of them, into batches of a size that the model takes.

        Shapes: rows `[m]`.
        """
        return cut(mirror, self.data, size or self.batch_size, rows=rows)


@dataclass(frozen=True, eq=False)
class OnReference(OnSamples):
    """A job on the samples that a correction fits to."""

    reference: Reference

    @property
    def samples(self) -> Data:
        """What the batches are rows of."""
        return self.reference.data

    @property
    def computed(self) -> tuple[Graph, int, str]:
        """The graph, the size of a batch, and the device."""
        return self.reference.computed

    @cached_property
    def mirror(self) -> Mirror:
        """That of the unpruned net."""
        return self.reference.mirror()


@dataclass(frozen=True, eq=False)
class Narrowed:
    """A reader that loses input channels, and which positions of its weight it keeps.

    Shapes: read `[i]`, written `[o]`.
    """

    reader: Reader
    read: BoolArray
    written: BoolArray

    def weight(self, graph: Graph) -> Tensor:
        """Return the unpruned weight, for the outputs that are left. Shapes: `[o, C, *]`."""
        whole = graph.constant(self.reader.weight)
        if self.written.all():  # nothing is written to it: a large one is not copied
            return torch.from_numpy(shared(whole))
        return torch.from_numpy(np.compress(self.written, whole, self.reader.axes.weight_out))


class Writer:
    """A copy of a pruned model whose weights and biases can be set."""

    def __init__(self, graph: Graph) -> None:
        self.model = copy_model(graph)
        self.constants = Constants(graph, self.model)

    def scale(self, reader: Reader, factor: float) -> None:
        """Multiply a node's weight."""
        weight = self.constants.array(reader.weight)
        self.constants.set(reader.weight, (weight * factor).astype(weight.dtype))

    def move(self, reader: Reader, shift: npt.NDArray[Any], factor: float = 1.0) -> None:
        """Multiply a node's bias and add to it; a bias that others read too is copied first.

        Shapes: shift `[o]`.
        """
        proto = self.constants.proto(reader.node)
        index = reader.bias
        assert index is not None
        added = shift / reader.bias_scale
        name = proto.input[index] if index < len(proto.input) else ""
        bias = self.constants.array(name) if name else np.zeros(1, self._dtype(reader))
        moved = (bias * factor + added).astype(bias.dtype)
        if name and moved.shape == bias.shape and not self.constants.is_shared(name):
            self.constants.set(name, moved)
            return
        own = self.constants.add(f"{reader.node.name}_bias", moved)
        proto.input.extend([""] * (index + 1 - len(proto.input)))
        proto.input[index] = own.name

    def _dtype(self, reader: Reader) -> np.dtype[Any]:
        return self.constants.array(reader.weight).dtype
