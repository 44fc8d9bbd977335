"""Closed-form correction of the layers that read removed channels: no gradient, nothing trained.

A layer computes `y = W x + b` of input channels x, of which the pruned net still has `x_k`. The
removed ones are not independent of those that stay, and the reference samples say how they hang
together. Two corrections, neither of which changes a shape:

`bias`: each removed channel is replaced by its mean over the samples, which only moves `b`. A
product without a bias input (MatMul) is left as it is.

`least-squares`: the layers are re-fitted to what they read in the unpruned net
(`onnxprune.compensate.least_squares`).

What `onnxprune.compensate.readers` leaves out stays as it is.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.compensate.least_squares import LeastSquares
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.reference import Reference, Writer
from onnxprune.errors import DataError, UnknownName
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data

METHODS = ("none", "bias", "least-squares")


class Corrector(Protocol):
    """Corrects what `prune` returned; `folds` says of each sample which fold of them it is in."""

    @property
    def folds(self) -> IntArray:
        """The fold of each sample. Shapes: `[n]`."""
        ...

    def __call__(
        self, model: ModelProto, dead: BoolArray, *, without: int | None = None
    ) -> ModelProto:
        """Return the corrected model, fitted without the samples of a fold.

        Shapes: dead `[channels]`.
        """
        ...


def compensator(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    method: str,
    *,
    device: str = "auto",
    batch_size: int = 32,
    ridge: float | None = None,
    variance: float = 1.0,
    allowed: int | None = None,
) -> Corrector | None:
    """Return `compensate(pruned, dead) -> corrected`, or None for the method `none`.

    `pruned` is what `prune(graph, groups, dead)` returned; it is not changed. Names, shapes and all
    that reads no removed channel stay as they are; a node without a bias gets one where it needs
    it. The unpruned net runs once, at the first call. `ridge` is a share of the mean variance; None
    chooses one for each layer. The factor that restores a variance is raised to the power
    `variance`: 1 restores all of it, 0 nothing. `allowed` is how many bytes may be kept of all
    samples in memory; on a CPU what is more goes into a temporary file.
    Raises: UnknownName for a method that does not exist; DataError where samples are missing.
    """
    if method not in METHODS:
        raise UnknownName(f"compensate '{method}': unknown; expected one of {', '.join(METHODS)}")
    if method == "none":
        return None
    if data is None:
        raise DataError(
            f"compensate '{method}': needs reference samples; give --data, or use --compensate none"
        )
    reference = Reference(graph, groups, data, device, batch_size)
    if method == "bias":
        return _Bias(reference)
    return LeastSquares(reference, ridge, variance, allowed)


class _Bias:
    """Replaces removed channels by their means: a constant input gives a constant output."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    @property
    def folds(self) -> IntArray:
        """All samples are one: a mean says of those that it has not seen what it says of others."""
        return np.zeros(len(self._reference.data), np.int64)

    def __call__(
        self, model: ModelProto, dead: BoolArray, *, without: int | None = None
    ) -> ModelProto:
        """Return the corrected model."""
        writer = Writer(Graph(model))
        for one in self._reference.narrowed(dead):
            reader = one.reader
            mean = self._means.get(reader.key)
            if reader.bias is None or mean is None:
                continue
            gone = torch.from_numpy(~one.read).to(mean.device)
            place = [-1 if axis == reader.axes.input else 1 for axis in range(mean.ndim)]
            weight = torch.from_numpy(self._reference.graph.constant(reader.weight).copy())
            shift = reader.op(reader.node, [mean * gone.reshape(place), weight.to(mean)])[0]
            writer.move(reader, reader.mean(shift)[torch.from_numpy(one.written)])
        return writer.model

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Each reader's input, averaged over the samples but not over positions."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = {}

        def note(reader: Reader, given: Tensor, _: Tensor) -> None:
            total = given.sum(0, keepdim=True, dtype=torch.float64)
            sums[reader.key] = sums.get(reader.key, 0) + total
            counts[reader.key] = counts.get(reader.key, 0) + len(given)

        with torch.no_grad():
            mirror = self._reference.mirror()
            for x in self._reference.batches(mirror):
                self._reference.watch(mirror, x, note)
        return {key: (total / counts[key]).to(mirror.dtype) for key, total in sums.items()}
