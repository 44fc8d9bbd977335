"""What only this channel can say: relevance weighed by what a least-squares fit cannot restore.

With `--compensate least-squares` the loss of a channel is not its relevance: the kept channels of
its layer are re-fitted to predict it, and only what they cannot predict is lost. For kept channels
S of a layer with covariance G and relevance R, the loss is

    L(S) = sum_j R_j * (1 - r2_j(S)),        1 - r2_j(S) = (G - G_:S G_SS^-1 G_S:)_jj / G_jj

the relevance of every channel times the share of its variance that S leaves unexplained. Channels
go one by one, each time the one that raises L least. With `P = G_SS^-1`, `A = G_:S P` and
`T = A' diag(R / G_jj) A` the rise is `T_jj / P_jj`, and both are updated by outer products: one
inverse and O(C^2) for each channel, no forward pass beyond the one that measures G.

Source: the elimination is Hassibi and Stork 1993 (optimal brain surgeon, eq. 5) applied to whole
channels and a quadratic form made of relevance. Measured: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.compensate.readers import Reader, find_readers
from onnxprune.compensate.ridge import MAX_ROWS, RIDGE
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance import Mirror, batches_of

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data

ORDERED = 1e-12
"""Relative; keeps losses apart that are equal, so that sorting them gives the elimination back."""


def irreplaceable(
    graph: Graph,
    groups: ChannelGroups,
    data: Data,
    scores: FloatArray,
    *,
    device: str = "auto",
    batch_size: int = 32,
) -> FloatArray:
    """Return what each channel's removal costs once the others speak for it, in units of `scores`.

    Sorted within a group they give the order of the elimination. Channels that nothing reads which
    a compensation can re-fit keep their score.
    Shapes: scores `[channels]` -> `[channels]`.
    """
    result = scores.copy()
    for channels, covariance in _covariances(graph, groups, data, device, batch_size):
        result[channels] = eliminate(covariance, scores[channels])
    return result


def eliminate(covariance: FloatArray, relevance: FloatArray, *, ridge: float = RIDGE) -> FloatArray:
    """Return the loss at which each channel goes, rising in the order in which they go.

    `ridge` is a share of the mean variance, as in the compensation.
    Shapes: covariance `[C, C]`, relevance `[C]` -> `[C]`.
    """
    variance = np.diag(covariance)
    mean = float(variance.mean())
    if not 0.0 < mean < np.inf:
        return relevance.copy()
    held = covariance + ridge * mean * np.eye(len(covariance))
    inverse: FloatArray = np.asarray(np.linalg.inv(held), np.float64)
    quadratic = np.diag(relevance / np.maximum(variance, 1e-6 * mean))
    alive = np.ones(len(covariance), np.bool_)
    loss = np.empty(len(covariance))
    highest = 0.0
    for _ in range(len(covariance)):
        rise = np.diag(quadratic) / np.maximum(np.diag(inverse), 1e-300)
        gone = int(np.where(alive, rise, np.inf).argmin())
        highest = max(highest * (1 + ORDERED), float(rise[gone]))
        loss[gone] = highest
        alive[gone] = False
        _remove(gone, inverse, quadratic)
    return loss


def _remove(gone: int, inverse: FloatArray, quadratic: FloatArray) -> None:
    """Take a channel out of `P` and `T`, in place. Shapes: both `[C, C]`."""
    row = inverse[gone] / inverse[gone, gone]
    inverse -= np.outer(inverse[gone].copy(), row)
    column = quadratic[:, gone].copy()
    quadratic -= np.outer(column, row)
    quadratic -= np.outer(row, column - column[gone] * row)
    for matrix in (inverse, quadratic):
        matrix[gone] = matrix[:, gone] = 0.0


def _covariances(
    graph: Graph, groups: ChannelGroups, data: Data, device: str, batch_size: int
) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield the channels of each group that readers read, and their covariance there.

    Several readers of a group count equally, each on its own scale.
    """
    readers = find_readers(graph, groups)
    found = find_covariances(Mirror(graph, device=device), readers, data, batch_size)
    whole: dict[int, FloatArray] = {}
    for reader in readers:
        if reader.key not in found:
            continue
        owners, first = np.unique(reader.owners(groups), return_index=True)
        first, owners = first[owners >= 0], owners[owners >= 0]
        covariance = found[reader.key][np.ix_(first, first)]
        for group in np.unique(groups.group[owners]).tolist():
            members = np.flatnonzero(groups.group == group)
            rows = np.flatnonzero(groups.group[owners] == group)
            places = np.searchsorted(members, owners[rows])
            own = covariance[np.ix_(rows, rows)]
            matrix = whole.setdefault(group, np.zeros((members.size, members.size)))
            matrix[np.ix_(places, places)] += own / max(float(np.diag(own).mean()), 1e-300)
    for group, matrix in whole.items():
        members = np.flatnonzero(groups.group == group)
        read = np.diag(matrix) > 0
        yield members[read], matrix[np.ix_(read, read)]


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
            env = mirror.start(x)
            for step in mirror.walk(env):
                mirror.execute(step, env)
                if step.node.outputs[0] in sums:
                    sums[step.node.outputs[0]].add(env[step.node.inputs[0]])
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
