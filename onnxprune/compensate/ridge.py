"""The regression of `--compensate least-squares`: predict all channels from the kept ones.

Let `X` be the channels that a layer reads in the unpruned net and `X_k` the kept ones as the pruned
net computes them, both `[channels, samples * positions]` and centred. The map A from the kept
channels to all of them is the ridge regression

    A = argmin |X - A X_k|^2 + ridge |A - S|^2
      = S + (X - S X_k) X_k' (X_k X_k' + ridge I)^-1

where S is the identity on the kept channels. Without evidence A is S, which leaves the layer as it
is; so it is where nothing is missing. The positions of a sample resemble each other, so a small
ridge overfits few samples. The ridge of each layer is chosen by cross-validation over samples.

Source: Hoerl and Kennard 1970, ridge regression, here shrunk towards S in place of 0; Stone 1974,
cross-validation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, IntArray, shared
from onnxprune.compensate.folds import InputErrors, OnFolds
from onnxprune.compensate.solved import ColumnErrors, OutputErrors
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""The candidates, as shares of the mean variance of the kept channels."""
RIDGE = RIDGES[0]
BLOCK = 64
"""Rows of which the products with all that follow are computed at once."""
PIECE = 2**24
"""Elements of what the outputs miss that are kept at most."""
MAX_ROWS = 4096
"""A layer that reads more channels keeps its weights: the system to solve would be too large."""


INPUTS, OUTPUTS, COLUMNS = "inputs", "outputs", "columns"
"""What is predicted from the kept channels: all channels, the outputs (with as few equations as
kept channels), or the outputs with as few equations as columns."""


def form_of(outputs: int, kept: int, columns: int) -> str:
    """Return in which form the regression is the least work.

    `outputs` are those at all positions, `columns` all samples and positions.
    """
    if columns < kept and outputs * columns <= PIECE:
        return COLUMNS
    return OUTPUTS if 2 * outputs <= kept else INPUTS


class Regression(Protocol):
    """What a regression needs of X and X_k, for each fold."""

    @property
    def unit(self) -> float:
        """The mean diagonal of `X_k X_k'` over all folds, which a ridge is a share of."""
        ...

    @property
    def folds(self) -> int:
        """How many folds there are."""
        ...

    def errors(self, weight: Tensor, ridges: Sequence[float], checks: int | None) -> OnFolds:
        """Return the job that finds the best ridge. Shapes: weight W' `[C, outputs * positions]`.

        `checks` is on how many folds that is measured, all by default.
        """
        ...

    def mapping(self, ridge: float, columns: int) -> Callable[[Tensor], Tensor]:
        """Return what turns weights of all channels into those of the kept ones: A' W.

        `columns` are those of W in all. Shapes: W `[C, o]` -> `[K, o]`.
        """
        ...


@dataclass(frozen=True, eq=False)
class Products:
    """The products of X and X_k of each fold, in double precision.

    `of_outputs` they are `W (X - S X_k) X_k'` in place of `(X - S X_k) X_k'`.
    Shapes: gram `X_k X_k'` `[F, K, K]`, cross `[F, C, K]` or `[F, outputs * positions, K]`, alive
    `[C]`.
    """

    gram: Tensor
    cross: Tensor
    alive: BoolArray
    of_outputs: bool = False

    @cached_property
    def unit(self) -> float:
        """The mean diagonal of `X_k X_k'` over all folds, which a ridge is a share of."""
        return float(self.gram.diagonal(dim1=1, dim2=2).sum(0).mean())

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return len(self.gram)

    def errors(self, weight: Tensor, ridges: Sequence[float], checks: int | None) -> OnFolds:
        """Return the job that finds the best ridge. Shapes: weight W' `[C, outputs * positions]`.

        A layer of few outputs is fitted by these. `checks` is on how many folds that is measured.
        """
        folds = len(self.gram[:checks])
        if self.of_outputs:
            return OutputErrors(folds, ridges, self.gram, self.cross)
        return InputErrors(folds, ridges, self.gram, self.cross, weight)

    def solve(self, ridge: float) -> Tensor:
        """Return the map A from the kept channels to all of them, unless it is of outputs.

        Shapes: -> `[C, K]`.
        """
        found = self._fitted(ridge, self.cross.sum(0).T).T
        kept = torch.arange(found.shape[1], device=found.device)
        found[torch.from_numpy(self.alive).to(found.device), kept] += 1
        return found

    def mapping(self, ridge: float, columns: int) -> Callable[[Tensor], Tensor]:
        """Return what turns weights of all channels into those of the kept ones: A' W.

        A itself is only computed for more `columns` in all than there are channels.
        Shapes: W `[C, o]` -> `[K, o]`.
        """
        kept = torch.from_numpy(self.alive).to(self.gram.device)
        if self.of_outputs:
            fitted = self._fitted(ridge, self.cross.sum(0).T)
            return lambda weight: (weight[kept] + fitted).to(weight.dtype)
        if columns >= len(self.alive):
            whole = self.solve(ridge).T
            return lambda weight: whole.to(weight.dtype) @ weight

        def map_few(weight: Tensor) -> Tensor:
            missing = self.cross.sum(0).T @ weight.double()
            return (weight[kept] + self._fitted(ridge, missing)).to(weight.dtype)

        return map_few

    def _fitted(self, ridge: float, wanted: Tensor) -> Tensor:
        """The regression of the missing on the kept channels. Shapes: `[K, n]` -> `[K, n]`."""
        return _regressed(self.gram.sum(0), ridge * self.unit, wanted)


@dataclass(frozen=True, eq=False)
class Columns:
    """X_k itself and what the outputs miss, `D = W (X - S X_k)`, where there are few columns.

        (X_k X_k' + ridge I)^-1 X_k D' = X_k (X_k' X_k + ridge I)^-1 D'

    Shapes: own X_k `[K, m]`, missing D `[outputs * positions, m]`, fold `[m]`, alive `[C]`.
    """

    own: Tensor
    missing: Tensor
    fold: IntArray
    alive: BoolArray

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return int(self.fold.max()) + 1

    @cached_property
    def unit(self) -> float:
        """The mean diagonal of `X_k X_k'` over all folds, which a ridge is a share of."""
        return float(self._gram.trace()) / len(self.own)

    @cached_property
    def _gram(self) -> Tensor:
        return square_of(self.own.T).double()

    def errors(self, weight: Tensor, ridges: Sequence[float], checks: int | None) -> OnFolds:
        """Return the job that finds the best ridge. Shapes: weight W' `[C, outputs * positions]`.

        `checks` is on how many folds that is measured.
        """
        folds, outputs = len(range(self.folds)[:checks]), square_of(self.missing.T).double()
        fold = torch.from_numpy(self.fold).to(self.own.device)
        return ColumnErrors(folds, ridges, self._gram, outputs, fold, len(self.own))

    def mapping(self, ridge: float, columns: int) -> Callable[[Tensor], Tensor]:
        """Return what turns weights of all channels into those of the kept ones: A' W.

        Shapes: W `[C, o]` -> `[K, o]`.
        """
        kept = torch.from_numpy(self.alive).to(self.own.device)
        share = ridge * self.unit
        mixed = _regressed(self._gram, share, self.missing.double().T)
        fitted = self.own.double() @ mixed if mixed.any() else mixed.new_zeros(1)
        return lambda weight: (weight[kept] + fitted).to(weight.dtype)


def _regressed(gram: Tensor, share: float, wanted: Tensor) -> Tensor:
    """Solve `(gram + share I) f = wanted`; 0 without evidence. Shapes: `[K, n]` -> `[K, n]`."""
    if not 0.0 < share < np.inf:
        return torch.zeros_like(wanted)
    system = gram.clone()
    system.diagonal().add_(share)
    return torch.cholesky_solve(wanted, torch.linalg.cholesky(system))


@dataclass(frozen=True, eq=False)
class BatchProducts:
    """The products of one batch, in its own precision, or X_k itself and what the outputs miss.

    Shapes: own `[K, K]` or X_k `[K, m]`, cross `[C, K]`, `[outputs * positions, K]` or
    `[outputs * positions, m]`.
    """

    own: npt.NDArray[Any]
    cross: npt.NDArray[Any]


def multiply(
    full: Tensor,
    kept: Tensor,
    alive: BoolArray,
    means: Sequence[Tensor],
    form: str,
    weight: Tensor | None = None,
) -> BatchProducts:
    """Return what the regression needs of X (`full`) and X_k (`kept`) of one batch.

    A form of outputs needs the weight W' of the layer.
    Shapes: full `[C, m]`, kept `[K, m]`, alive `[C]`, means `[C, 1]` and `[K, 1]`, weight
    `[C, outputs * positions]`.
    """
    missing, own = full - means[0], kept - means[1]
    missing.index_add_(0, torch.from_numpy(np.flatnonzero(alive)).to(full.device), own, alpha=-1)
    if weight is not None and form != INPUTS:
        missing = weight.to(missing).T @ missing
    if form != COLUMNS:
        missing, own = missing @ own.T, square_of(own)
    return BatchProducts(own.cpu().numpy(), missing.cpu().numpy())


def square_of(rows: Tensor) -> Tensor:
    """Return `X X'`, of which only one half is computed. Shapes: `[K, m]` -> `[K, K]`."""
    if len(rows) < 2 * BLOCK:
        return rows @ rows.T
    found = rows.new_empty(len(rows), len(rows))
    for start in range(0, len(rows), BLOCK):
        end = start + BLOCK
        half = found[start:, start:end]
        torch.matmul(rows[start:], rows[start:end].T, out=half)
        found[start:end, end:] = half[BLOCK:].T
    return found


def gather(
    batches: Iterable[BatchProducts],
    alive: BoolArray,
    folds: Sequence[int],
    device: torch.device,
    form: str,
) -> Regression:
    """Add what was found of batches of one fold each. Shapes: alive `[C]`, folds one each."""
    places = np.unique(folds, return_inverse=True)[1].tolist()
    if form == COLUMNS:
        found = list(batches)
        own, missing = (
            torch.cat([torch.from_numpy(shared(one)).to(device) for one in side], 1)
            for side in ([one.own for one in found], [one.cross for one in found])
        )
        fold = np.repeat(places, [one.own.shape[1] for one in found])
        return Columns(own, missing, fold, alive)
    sums: list[dict[int, Tensor]] = [{}, {}]
    for batch, place in zip(batches, places, strict=True):
        for total, one in zip(sums, (batch.own, batch.cross), strict=True):
            new = torch.from_numpy(shared(one)).to(device)
            total[place] = total[place].add_(new) if place in total else new.double()
    gram, cross = (torch.stack([total[k] for k in sorted(total)]) for total in sums)
    return Products(gram, cross, alive, form == OUTPUTS)


def mean_of(sums: Sequence[npt.NDArray[Any]], count: int, *, centre: bool) -> npt.NDArray[Any]:
    """Return the mean of each row over all batches, or zeros. Shapes: sums each `[R, 1]`."""
    total = torch.stack([torch.tensor(one) for one in sums]).double().sum(0)
    mean = total / count
    return (mean if centre else torch.zeros_like(mean)).numpy().astype(sums[0].dtype)


def choose_ridge(
    products: Regression,
    weight: Tensor,
    ridges: Sequence[float] = RIDGES,
    *,
    checks: int | None = None,
) -> float:
    """Return the ridge with the least error of the layer's output on samples left out.

    `checks` is on how many folds that is measured, all by default.
    It is infinite where every ridge is worse than S. The error on a fold, with A fitted to the
    others, follows for all ridges from one decomposition `X_k X_k' = V diag(v) V'` of the others:

        |W (X - A X_k)|^2 = constant - 2 h' linear + h' square h,        h = 1 / (v + ridge)

        F = (X - S X_k) X_k' V                        of the others, so A - S = F diag(h) V'
        linear_r = (M V)_r' (W' W F)_r                M = (X - S X_k) X_k' of the fold
        square = (F' W' W F) * (V' X_k X_k' V)        X_k of the fold, * element by element

    Shapes: weight W' `[C, outputs * positions]`. Units: shares, as `Products.solve` takes them.
    """
    if products.folds < 2 or not 0.0 < products.unit < np.inf:
        return ridges[0]
    best, error = products.errors(weight, ridges, checks).best()
    return ridges[best] if error < 0 else np.inf
