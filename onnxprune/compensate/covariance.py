"""The covariance of the channels that a layer reads, over samples and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.reference import OnReference, Reference
from onnxprune.compensate.ridge import MAX_ROWS, square_of
from onnxprune.engine import each
from onnxprune.ops._torch import torch
from onnxprune.relevance import LOOKING, Batch

if TYPE_CHECKING:
    from torch import Tensor


def find_covariances(reference: Reference) -> dict[str, FloatArray]:
    """Return the covariance of the channels that each reader reads, by its key.

    Runs one forward pass. A reader of too many channels has no covariance.
    Shapes: each `[C, C]`.
    """
    job = _Products(reference)
    (batches,) = each(job, [None])
    ((shifts, first),) = each(job, [(batches[0], None)])
    rest = each(job, [(batch, shifts) for batch in batches[1:]], LOOKING)
    sums = {key: _Sum() for key in shifts}
    for part in (first, *(part for _, part in rest)):
        for key, found in part.items():
            sums[key].add(*found)
    return {key: total.covariance() for key, total in sums.items()}


Shifts = dict[str, npt.NDArray[Any]]
"""The means of the first batch, by reader. Shapes: each `[C, 1]`."""
Part = dict[str, tuple[npt.NDArray[Any], FloatArray, int]]
"""Products of rows, their sums, and how many columns they have, by reader.

Shapes: `[C, C]`, `[C]`."""


@dataclass(frozen=True, eq=False)
class _Products(OnReference):
    """The products of the rows of each reader, minus the means of the first batch.

    Without these means single precision is enough, even where they are far above the spreads.
    """

    def run(self, shard: tuple[Batch, Shifts | None] | None) -> list[Batch] | tuple[Shifts, Part]:
        """Multiply the rows of a batch; without one, return the batches there are."""
        if shard is None:
            return self.reference.cut(self.mirror)
        batch, given_shifts = shard
        shifts: Shifts = {} if given_shifts is None else given_shifts
        found: Part = {}

        def note(reader: Reader, given: Tensor, _: Tensor) -> None:
            rows = reader.rows(given)
            if len(rows) > MAX_ROWS:
                return
            if reader.key not in shifts:
                shifts[reader.key] = rows.mean(1, keepdim=True).cpu().numpy()
            rows = rows - torch.tensor(shifts[reader.key]).to(rows)
            total = rows.sum(1, dtype=torch.float64).cpu().numpy()
            found[reader.key] = square_of(rows).cpu().numpy(), total, rows.shape[1]

        with torch.no_grad():
            self.reference.watch(self.mirror, batch.of(self.reference.data)[0], note)
        return shifts, found


@dataclass
class _Sum:
    """The sums of products and of rows, in double precision."""

    products: FloatArray | None = None
    total: FloatArray | None = None
    count: int = 0

    def add(self, products: npt.NDArray[Any], total: FloatArray, count: int) -> None:
        wide = products.astype(np.float64)
        self.products = wide if self.products is None else self.products + wide
        self.total = total if self.total is None else self.total + total
        self.count += count

    def covariance(self) -> FloatArray:
        assert self.products is not None and self.total is not None
        mean = self.total / self.count
        return self.products / self.count - np.outer(mean, mean)
