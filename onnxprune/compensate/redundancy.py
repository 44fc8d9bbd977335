"""The price of a channel that a least-squares fit partly restores: its redundancy.

With `--compensate least-squares`, the kept channels of a layer are fitted to predict the removed
ones, and only what they cannot predict is lost. For the kept channels S of a layer with covariance
G and relevance R the loss is

    L(S) = sum_j R_j * (1 - r2_j(S)),        1 - r2_j(S) = (G - G_:S G_SS^-1 G_S:)_jj / G_jj

the relevance of each channel times the share of its variance that S does not explain. Channels go
one by one, each time the one that raises L least. With `P = G_SS^-1`, `A = G_:S P` and
`T = A' diag(R / G_jj) A` the rise is `T_jj / P_jj`. P and T are updated by outer products, so the
elimination costs one inverse, O(C^2) for each channel, and the one forward pass that measures G.

Where every layer loses the same share (`Evenly`), R is the variance: what counts is how much of it
the kept channels explain, of those that are gone already as of those that go now.

Source: the elimination is Hassibi and Stork 1993 (optimal brain surgeon, eq. 5) applied to whole
channels and a quadratic form made of relevance. Measured: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.compensate.covariance import find_covariances
from onnxprune.compensate.reference import Reference
from onnxprune.compensate.ridge import RIDGE
from onnxprune.data import part_of
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from onnxprune.data import Data

SEEN = 100
"""Samples that an even order looks at, at least, where there are twice as many."""
ORDERED = 1e-12
"""Relative; separates equal losses, so that sorting them gives the order of the elimination."""


def irreplaceable(
    graph: Graph,
    groups: ChannelGroups,
    data: Data,
    scores: FloatArray,
    *,
    device: str = "auto",
    batch_size: int = 32,
) -> FloatArray:
    """Return the price of each channel, given that a fit of the others restores a part of it.

    Within a group the prices rise in the order of the elimination. A channel keeps its score where
    no layer that a compensation can fit reads it.
    Shapes: scores `[channels]` -> `[channels]`.
    Units: those of `scores`.
    """
    result = scores.copy()
    reference = Reference(graph, groups, data, device, batch_size)
    for channels, covariance in _covariances(reference):
        result[channels] = eliminate(covariance, scores[channels])
    return result


@dataclass
class Evenly:
    """An order by which every layer loses the same share: first what its others can restore.

    `among`: the samples that it looks at, all by default. Shapes: among `[n]`.
    """

    graph: Graph
    groups: ChannelGroups
    data: Data
    device: str = "auto"
    batch_size: int = 32
    among: IntArray | None = None

    @cached_property
    def _covariances(self) -> list[tuple[IntArray, FloatArray]]:
        """Those of the unpruned net, of many samples on a part. Shapes: each `[C]`, `[C, C]`."""
        among = np.arange(len(self.data)) if self.among is None else self.among
        rows = among[part_of(self.data.y[among], max(len(among) // SEEN, 1))]
        data = self.data if len(rows) == len(self.data) else self.data.rows(rows)
        given = self.graph, self.groups, data, self.device, self.batch_size
        return list(_covariances(Reference(*given)))

    def __call__(self, dead: BoolArray, share: float) -> FloatArray:
        """Return which share of its group is gone once a channel is, after the `dead` ones.

        The first `share` of each group is in order. A channel that no correction could restore
        comes last. Shapes: dead `[channels]` -> `[channels]`.
        """
        groups, places = self.groups, np.full(len(dead), 2.0)
        for channels, covariance in self._covariances:
            loss = eliminate(covariance, np.diag(covariance), dead=dead[channels], share=share)
            whole = groups.channels_of(int(groups.group[channels[0]]))
            left = channels[~dead[channels]]
            order = left[np.argsort(loss[~dead[channels]], kind="stable")]
            gone = int(dead[whole].sum())
            places[order] = (gone + np.arange(order.size) + 0.5) / whole.size
        places[dead] = np.inf
        return places


def eliminate(
    covariance: FloatArray,
    relevance: FloatArray,
    *,
    ridge: float = RIDGE,
    dead: BoolArray | None = None,
    share: float = 1.0,
) -> FloatArray:
    """Return the rise of the loss as each channel goes; the largest so far, so it never falls.

    It goes on from the `dead` channels, which cost nothing, and ends when a `share` of the others
    is gone; what is left costs as much as it would as the next one. `ridge` is a share of the mean
    variance, as in the compensation.
    Shapes: covariance `[C, C]`, relevance `[C]`, dead `[C]` -> `[C]`.
    Source: Hassibi and Stork 1993, eq. 5, for whole channels.
    """
    variance = np.diag(covariance)
    mean = float(variance.mean()) if variance.size else 0.0
    if not 0.0 < mean < np.inf:
        return relevance.copy()
    alive = np.ones(len(covariance), np.bool_) if dead is None else ~dead
    loss, own = np.zeros(len(covariance)), np.flatnonzero(alive)
    held = covariance[np.ix_(alive, alive)] + ridge * mean * np.eye(own.size)
    inverse = _inverse(held)
    weight = relevance / np.maximum(variance, 1e-6 * mean)
    said = covariance[np.ix_(~alive, alive)] @ inverse
    quadratic = np.diag(weight[alive]) + (said.T * weight[~alive]) @ said
    left = np.ones(own.size, np.bool_)
    highest, walk = 0.0, _Removal(inverse, quadratic, int(np.ceil(share * own.size)))
    for _ in range(walk.most):
        rise = walk.rise()
        gone = int(np.where(left, rise, np.inf).argmin())
        highest = max(highest * (1 + ORDERED), float(rise[gone]))
        loss[own[gone]] = highest
        left[gone] = False
        walk.remove(gone)
    loss[own[left]] = np.maximum(walk.rise()[left], highest * (1 + ORDERED))
    return loss


def _inverse(matrix: FloatArray) -> FloatArray:
    """Return the inverse of a symmetric matrix, from its Cholesky factor where it has one."""
    factor, failed = torch.linalg.cholesky_ex(torch.from_numpy(matrix))
    if failed:
        return np.asarray(np.linalg.inv(matrix), np.float64)
    found: FloatArray = torch.cholesky_inverse(factor).numpy()
    return found


class _Removal:
    """`P` and `T` while channels go: their diagonals, and of the rest what is asked for.

    Each channel that goes changes both by outer products, which are kept as vectors: a column costs
    O(C) for each channel that is gone, in place of O(C^2) for all of both.
    Shapes: inverse P and quadratic T `[C, C]`.
    """

    def __init__(self, inverse: FloatArray, quadratic: FloatArray, most: int) -> None:
        self.most = most
        self._inverse, self._quadratic = inverse, quadratic
        self._own, self._lost = np.diag(inverse).copy(), np.diag(quadratic).copy()
        self._rows, self._columns = np.zeros((2, most, len(inverse)))
        self._pivots, self._corners = np.zeros((2, most))
        self._count = 0

    def rise(self) -> FloatArray:
        """Return `T_jj / P_jj`. Shapes: `[C]`."""
        return np.asarray(self._lost / np.maximum(self._own, 1e-300))

    def remove(self, gone: int) -> None:
        """Take a channel out."""
        n = self._count
        rows, columns, corners = self._rows[:n], self._columns[:n], self._corners[:n]
        at, across = rows[:, gone], columns[:, gone]
        row = self._inverse[gone] - (self._pivots[:n] * at) @ rows
        pivot = max(float(row[gone]), 1e-300)
        row = row / pivot
        column = self._quadratic[:, gone] - at @ columns - (across - corners * at) @ rows
        corner = float(column[gone])
        self._own -= pivot * row**2
        self._lost -= 2 * column * row - corner * row**2
        self._rows[n], self._columns[n] = row, column
        self._pivots[n], self._corners[n] = pivot, corner
        self._count += 1


def _covariances(reference: Reference) -> Iterator[tuple[IntArray, FloatArray]]:
    """Yield the channels of each group that some reader reads, and their covariance there.

    The covariances of several readers add up, each divided by its mean variance.
    Shapes: `[C]`, `[C, C]`.
    """
    groups, found = reference.groups, find_covariances(reference)
    whole: dict[int, FloatArray] = {}
    for reader in reference.readers:
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
