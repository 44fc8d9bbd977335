"""`--compensate bias`: each removed channel is replaced by its mean over the samples.

A layer `y = W x + b` reads a constant in place of a removed channel, and `W` times a constant goes
into `b`. A product without a bias input (MatMul) is left as it is.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.reference import OnReference, Reference, Writer
from onnxprune.engine import each
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance import LOOKING, Batch

if TYPE_CHECKING:
    from torch import Tensor


class Bias:
    """Corrects pruned models: see the module."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference

    @property
    def folds(self) -> IntArray:
        """One fold of all samples: a mean does not overfit, so no held-out split is needed.

        Shapes: `[n]`.
        """
        return np.zeros(len(self._reference.data), np.int64)

    def __call__(
        self,
        model: ModelProto,
        dead: BoolArray,
        *,
        without: int | None = None,
        rough: bool = False,
    ) -> ModelProto:
        """Return the corrected model. Shapes: dead `[channels]`."""
        writer = Writer(Graph(model))
        for one in self._reference.narrowed(dead):
            reader = one.reader
            mean = self._means.get(reader.key)
            if reader.bias is None or mean is None or not writer.constants.has(reader.node):
                continue
            gone = torch.from_numpy(~one.read).to(mean.device)
            place = [-1 if axis == reader.axes.input else 1 for axis in range(mean.ndim)]
            weight = torch.from_numpy(self._reference.graph.constant(reader.weight).copy())
            shift = reader.op(reader.node, [mean * gone.reshape(place), weight.to(mean)])[0]
            writer.move(reader, reader.mean(shift).numpy()[one.written])
        return writer.model

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """The input of each reader, averaged over samples but not over positions."""
        sums: dict[str, npt.NDArray[np.float64]] = {}
        counts: Counter[str] = Counter()
        job = _Inputs(self._reference)
        (batches,) = each(job, [None])
        for part in each(job, batches, LOOKING):
            for key, (total, count) in part.items():
                sums[key] = sums[key] + total if key in sums else total
                counts[key] += count
        return {key: torch.from_numpy(total / counts[key]).float() for key, total in sums.items()}


Sums = dict[str, tuple[npt.NDArray[np.float64], int]]
"""The sum of what each reader reads of some samples, by its key, and how many they are."""


@dataclass(frozen=True, eq=False)
class _Inputs(OnReference):
    """The sums over samples of what each reader reads."""

    def run(self, shard: Batch | None) -> list[Batch] | Sums:
        """Add up the samples of a batch; without one, return the batches there are."""
        if shard is None:
            return self.reference.cut(self.mirror)
        sums: Sums = {}

        def note(reader: Reader, given: Tensor, _: Tensor) -> None:
            total = given.sum(0, keepdim=True, dtype=torch.float64)
            sums[reader.key] = total.cpu().numpy(), len(given)

        with torch.no_grad():
            self.reference.watch(self.mirror, shard.of(self.reference.data)[0], note)
        return sums
