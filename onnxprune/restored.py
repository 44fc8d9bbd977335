"""What a least-squares fit says in the place of a channel that goes.

Where layers are re-fitted, a channel is not lost whole: the kept ones predict a part of it, and
only the rest is missing. With `P = (G + ridge I)^-1`, G the covariance of what a reader reads, the
best prediction of channel c by all the others leaves the residual

    x_c - x^_c = (P (x - mean))_c / P_cc

and of its relevance the reader keeps `sum over positions of s_c x^_c`, with s the relevance of the
input per unit of it: the effect of the channel is its relevance less that. One product of matrices
for each reader, whatever the number of channels.

Source: the inverse covariance holds all regressions of one variable on the others, Hassibi and
Stork 1993, eq. 5. That relevance is split by it is ours: docs/method.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.channels import ChannelGroups
from onnxprune.labels import IntArray
from onnxprune.least_squares import RIDGE
from onnxprune.mirror import Mirror
from onnxprune.moments import Moments, find_moments
from onnxprune.ops._torch import torch
from onnxprune.readers import Reader, find_readers

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data


@dataclass(frozen=True, eq=False)
class Restored:
    """What one reader keeps of channels: of row `rows[i]`, that of channel `channels[i]`.

    Shapes: rows, channels `[R]`, -1 for a row that stays; mean `[R, 1]`, residual `[R, R]`.
    """

    reader: Reader
    rows: IntArray
    channels: IntArray
    mean: Tensor
    residual: Tensor

    def relevance(self, x: Tensor, slope: Tensor) -> Tensor:
        """Return the relevance that is kept of each row, by sample.

        `slope` is the relevance of the input per unit of it.
        Shapes: both as the reader's input, of n samples -> `[n, R]`.
        """
        rows = torch.from_numpy(self.rows).to(x.device)
        given, slopes = (self.reader.rows(t, wide=x.numel() + 1)[rows] for t in (x, slope))
        said = given - self.residual @ (given - self.mean)
        return self.reader.by_sample(slopes * said, len(x)).double()

    def add_to(self, total: Tensor, kept: Tensor) -> None:
        """Add what rows keep to their channels. Shapes: total `[n, channels]`, kept `[n, R]`."""
        owned = np.flatnonzero(self.channels >= 0)
        channels = torch.from_numpy(self.channels[owned])
        total.index_add_(1, channels, kept.cpu()[: len(total), owned])


def find_restored(
    mirror: Mirror, groups: ChannelGroups, data: Data, batch_size: int, *, ridge: float = RIDGE
) -> dict[str, Restored]:
    """Return what each reader of a net keeps, by its key. One forward pass.

    `ridge` is a share of the mean variance, as in the compensation.
    """
    ran = {step[0].outputs[0] for step in mirror.steps}
    readers = [r for r in find_readers(mirror.graph, groups) if r.key in ran]
    moments = find_moments(mirror, readers, data, batch_size)
    found = (_of(r, groups, moments[r.key], ridge, mirror) for r in readers if r.key in moments)
    return {one.reader.key: one for one in found if one is not None}


def _of(
    reader: Reader, groups: ChannelGroups, moments: Moments, ridge: float, mirror: Mirror
) -> Restored | None:
    """A channel that is read twice goes as a whole: its second row predicts nothing."""
    owners = reader.owners(groups)
    first = np.unique(owners, return_index=True)[1]
    rows = np.union1d(first, np.flatnonzero(owners < 0))
    covariance = moments.covariance[np.ix_(rows, rows)]
    variance = float(np.diag(covariance).mean())
    if not 0.0 < variance < np.inf:
        return None
    inverse = np.linalg.inv(covariance + ridge * variance * np.eye(len(rows)))
    residual = torch.from_numpy(inverse / np.diag(inverse)[:, None]).to(mirror.device, mirror.dtype)
    mean = torch.from_numpy(moments.mean[rows, None]).to(residual)
    return Restored(reader, rows, owners[rows], mean, residual)
