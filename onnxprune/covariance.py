"""The covariance of what the readers of a net read, over all samples and positions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.batches import batches_of
from onnxprune.least_squares import MAX_ROWS
from onnxprune.mirror import Mirror
from onnxprune.ops._torch import torch
from onnxprune.readers import Reader

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data

FloatArray = npt.NDArray[np.float64]


def find_covariances(
    mirror: Mirror, readers: Collection[Reader], data: Data, batch_size: int
) -> dict[str, FloatArray]:
    """Return the covariance of each reader's rows by its key; those of too many rows have none.

    One forward pass.
    Shapes: each `[C, C]`.
    """
    sums = {reader.key: _Sum(reader) for reader in readers}
    with torch.no_grad():
        for x, _ in batches_of(mirror, data, batch_size):
            env = mirror.start({mirror.graph.image: x})
            for step, spent in mirror.schedule():
                mirror.execute(step, env)
                if step[0].outputs[0] in sums:
                    sums[step[0].outputs[0]].add(env[step[0].inputs[0]])
                for name in spent:
                    env.pop(name, None)
    return {key: total.covariance() for key, total in sums.items() if total.count}


@dataclass
class _Sum:
    """The products and the sum of a reader's rows, less the means of its first batch.

    Less these, single precision is enough where means are far above spreads.
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
