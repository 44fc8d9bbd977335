"""The covariance of the channels that a layer reads, over samples and positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.reference import Reference
from onnxprune.compensate.ridge import MAX_ROWS
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor


def find_covariances(reference: Reference) -> dict[str, FloatArray]:
    """Return the covariance of the channels that each reader reads, by its key.

    Runs one forward pass. A reader of too many channels has no covariance.
    Shapes: each `[C, C]`.
    """
    sums = {reader.key: _Sum(reader) for reader in reference.readers}
    with torch.no_grad():
        mirror = reference.mirror()
        for x in reference.batches(mirror):
            reference.watch(mirror, x, lambda reader, given, _: sums[reader.key].add(given))
    return {key: total.covariance() for key, total in sums.items() if total.count}


@dataclass
class _Sum:
    """The sum of a reader's rows and of their products, minus the means of the first batch.

    Without these means single precision is enough, even where they are far above the spreads.
    """

    reader: Reader
    shift: Tensor | None = None
    products: FloatArray | None = None
    total: FloatArray | None = None
    count: int = 0

    def add(self, x: Tensor) -> None:
        rows = self.reader.rows(x)
        if len(rows) > MAX_ROWS:
            return
        if self.shift is None:
            self.shift = rows.mean(1, keepdim=True)
        rows = rows - self.shift
        products = (rows @ rows.T).double().cpu().numpy()
        total = rows.sum(1, dtype=torch.float64).cpu().numpy()
        self.products = products if self.products is None else self.products + products
        self.total = total if self.total is None else self.total + total
        self.count += rows.shape[1]

    def covariance(self) -> FloatArray:
        assert self.products is not None and self.total is not None
        mean = self.total / self.count
        return self.products / self.count - np.outer(mean, mean)
