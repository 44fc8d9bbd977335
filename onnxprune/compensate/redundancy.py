"""The price of a channel that a least-squares fit partly restores: its redundancy.

With `--compensate least-squares`, the kept channels of a layer are fitted to predict the removed
ones, and only what they cannot predict is lost. For the kept channels S of a layer with covariance
G and relevance R the loss is

    L(S) = sum_j R_j * (1 - r2_j(S)),        1 - r2_j(S) = (G - G_:S G_SS^-1 G_S:)_jj / G_jj

the relevance of each channel times the share of its variance that S does not explain. Channels go
one by one, each time the one that raises L least. With `P = G_SS^-1`, `A = G_:S P` and
`T = A' diag(R / G_jj) A` the rise is `T_jj / P_jj`. P and T are updated by outer products, so the
elimination costs one inverse, O(C^2) for each channel, and the one forward pass that measures G.

Source: the elimination is Hassibi and Stork 1993 (optimal brain surgeon, eq. 5) applied to whole
channels and a quadratic form made of relevance. Measured: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.compensate.covariance import find_covariances
from onnxprune.compensate.reference import Reference
from onnxprune.compensate.ridge import RIDGE
from onnxprune.graph import Graph

if TYPE_CHECKING:
    from onnxprune.data import Data

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


def eliminate(covariance: FloatArray, relevance: FloatArray, *, ridge: float = RIDGE) -> FloatArray:
    """Return the rise of the loss as each channel goes; the largest so far, so it never falls.

    `ridge` is a share of the mean variance, as in the compensation.
    Shapes: covariance `[C, C]`, relevance `[C]` -> `[C]`.
    Source: Hassibi and Stork 1993, eq. 5, for whole channels.
    """
    variance = np.diag(covariance)
    mean = float(variance.mean()) if variance.size else 0.0
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
