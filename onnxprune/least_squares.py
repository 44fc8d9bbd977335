"""The regression behind `--compensate least-squares`: all channels of a layer from the kept ones.

With `X` the channels of the unpruned net and `X_k` the kept ones as the pruned net has them, both
`[channels, samples * positions]` and centred, the map A is the ridge regression

    A = argmin |X - A X_k|^2 + ridge |A - S|^2
      = S + (X - S X_k) X_k' (X_k X_k' + ridge I)^-1

with S the identity on the kept channels: without evidence a layer stays as it is, and where nothing
is missing A is S exactly.

Source: Hoerl and Kennard 1970, ridge regression, here shrunk towards S in place of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.channels import BoolArray
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 0.01
"""Ridge as a share of the mean variance of the kept channels; measured in docs/method.md."""
MAX_ROWS = 4096
"""A layer that reads more channels than this keeps its weights: the system would be too large."""


def regress(
    full: Sequence[Tensor],
    kept: Sequence[Tensor],
    alive: BoolArray,
    *,
    ridge: float = RIDGE,
    centre: bool = True,
) -> Tensor:
    """Return the map A from the kept channels to all of them, in double precision.

    The products are summed batch by batch; `ridge` is a share of the mean diagonal of `X_k X_k'`.
    Shapes: full each `[C, M]`, kept each `[K, M]`, alive `[C]` -> `[C, K]`.
    """
    where = torch.from_numpy(alive).to(full[0].device)
    identity = torch.eye(len(alive), dtype=torch.float64, device=where.device)[:, where]
    gram = identity.new_zeros(identity.shape[1], identity.shape[1])
    cross = torch.zeros_like(identity)
    mean, mean_kept = _mean(full, centre), _mean(kept, centre)
    for all_rows, rows in zip(full, kept, strict=True):
        x, x_k = all_rows - mean, rows - mean_kept
        gram += x_k @ x_k.T
        cross += x @ x_k.T
    weight = ridge * float(gram.diagonal().mean())
    if not 0.0 < weight < np.inf:
        return identity
    cross[where] -= gram
    gram.diagonal().add_(weight)
    factor = torch.linalg.cholesky(gram)
    return identity + torch.cholesky_solve(cross.T, factor).T


def _mean(batches: Sequence[Tensor], centre: bool) -> Tensor:
    """The mean of each row over all batches, or zeros. Shapes: each `[C, M]` -> `[C, 1]`."""
    total = torch.stack([rows.sum(1, keepdim=True) for rows in batches]).double().sum(0)
    mean = total / sum(rows.shape[1] for rows in batches)
    return (mean if centre else torch.zeros_like(mean)).to(batches[0].dtype)
