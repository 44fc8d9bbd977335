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
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, shared
from onnxprune.compensate.folds import RidgeErrors
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""The candidates, as shares of the mean variance of the kept channels."""
RIDGE = RIDGES[0]
BLOCK = 128
"""Rows of which the products with all that follow are computed at once."""
MAX_ROWS = 4096
"""A layer that reads more channels keeps its weights: the system to solve would be too large."""


@dataclass(frozen=True, eq=False)
class Products:
    """What the regression needs of X and X_k, for each fold, in double precision.

    `parts` are X_k itself, one for each fold, where all together have fewer columns than rows. A
    layer `of_outputs` has so few that `cross` is of these, `W (X - S X_k) X_k'`.
    Shapes: gram `X_k X_k'` `[F, K, K]`, cross `(X - S X_k) X_k'` `[F, C, K]` or
    `[F, outputs * positions, K]`, identity S `[C, K]`, parts each `[K, m]`.
    """

    gram: Tensor
    cross: Tensor
    identity: Tensor
    parts: Sequence[Tensor] = ()
    of_outputs: bool = False

    @property
    def unit(self) -> float:
        """The mean diagonal of `X_k X_k'` over all folds, which a ridge is a share of."""
        return float(self.gram.sum(0).diagonal().mean())

    def solve(self, ridge: float) -> Tensor:
        """Return the map A from the kept channels to all of them, unless it is of outputs.

        Shapes: -> `[C, K]`.
        """
        return self.identity + self._fitted(ridge, self.cross.sum(0).T).T

    def mapping(self, ridge: float, columns: int) -> Callable[[Tensor], Tensor]:
        """Return what turns weights of all channels into those of the kept ones: A' W.

        A itself is only computed for more `columns` in all than there are channels.
        Shapes: W `[C, o]` -> `[K, o]`.
        """
        kept = self.identity.argmax(0)
        if self.of_outputs:
            fitted = self._fitted(ridge, self.cross.sum(0).T)
            return lambda weight: (weight[kept] + fitted).to(weight.dtype)
        if columns >= len(self.identity):
            whole = self.solve(ridge).T
            return lambda weight: whole.to(weight.dtype) @ weight

        def map_few(weight: Tensor) -> Tensor:
            missing = self.cross.sum(0).T @ weight.double()
            return (weight[kept] + self._fitted(ridge, missing)).to(weight.dtype)

        return map_few

    def _fitted(self, ridge: float, wanted: Tensor) -> Tensor:
        """The regression of the missing on the kept channels. Shapes: `[K, n]` -> `[K, n]`."""
        share = ridge * self.unit
        if not 0.0 < share < np.inf:
            return torch.zeros_like(wanted)
        gram = self.gram.sum(0)
        gram.diagonal().add_(share)
        return torch.cholesky_solve(wanted, torch.linalg.cholesky(gram))


@dataclass(frozen=True, eq=False)
class BatchProducts:
    """The products of one batch, in its own precision; `own` is X_k where it has few columns.

    Shapes: gram `[K, K]`, cross `[C, K]` or `[outputs * positions, K]`, own `[K, m]`.
    """

    gram: npt.NDArray[Any]
    cross: npt.NDArray[Any]
    own: npt.NDArray[Any] | None


def multiply(
    full: Tensor,
    kept: Tensor,
    alive: BoolArray,
    means: Sequence[Tensor],
    *,
    narrow: bool,
    weight: Tensor | None = None,
) -> BatchProducts:
    """Return the products of X (`full`) and X_k (`kept`) of one batch; `narrow` keeps X_k.

    With a `weight` W' the cross products are those of the outputs.
    Shapes: full `[C, m]`, kept `[K, m]`, alive `[C]`, means `[C, 1]` and `[K, 1]`, weight
    `[C, outputs * positions]`.
    """
    missing, own = full - means[0], kept - means[1]
    missing[torch.from_numpy(alive).to(full.device)] -= own
    if weight is not None:
        missing = weight.to(missing).T @ missing
    products = (_square(own), missing @ own.T, own)
    gram, cross, rows = (one.cpu().numpy() for one in products)
    return BatchProducts(gram, cross, rows if narrow else None)


def _square(rows: Tensor) -> Tensor:
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


def is_narrow(columns: int, kept: int) -> bool:
    """Return whether a layer has few outputs, `columns` at all positions, beside what it keeps."""
    return 2 * columns <= kept


def gather(
    batches: Iterable[BatchProducts],
    alive: BoolArray,
    folds: Sequence[int],
    device: torch.device,
    *,
    of_outputs: bool = False,
) -> Products:
    """Add the products of batches of one fold each. Shapes: alive `[C]`, folds one each."""
    where = torch.from_numpy(alive).to(device)
    identity = torch.eye(len(alive), dtype=torch.float64, device=device)[:, where]
    names = sorted(set(folds))
    gram: list[Tensor | None] = [None for _ in names]
    cross = list(gram)
    parts: list[list[Tensor]] = [[] for _ in names]
    for batch, fold in zip(batches, folds, strict=True):
        k = names.index(fold)
        for sums, new in ((gram, batch.gram), (cross, batch.cross)):
            held = sums[k]
            one = torch.from_numpy(shared(new)).to(device)
            sums[k] = one.double() if held is None else held.add_(one)
        if batch.own is not None:
            parts[k].append(torch.tensor(batch.own, device=device).double())
    whole = [torch.stack([one for one in sums if one is not None]) for sums in (gram, cross)]
    joined = [torch.cat(p, 1) for p in parts if p]
    return Products(whole[0], whole[1], identity, joined, of_outputs)


def mean_of(sums: Sequence[npt.NDArray[Any]], count: int, *, centre: bool) -> npt.NDArray[Any]:
    """Return the mean of each row over all batches, or zeros. Shapes: sums each `[R, 1]`."""
    total = torch.stack([torch.tensor(one) for one in sums]).double().sum(0)
    mean = total / count
    return (mean if centre else torch.zeros_like(mean)).numpy().astype(sums[0].dtype)


def choose_ridge(
    products: Products,
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
    if len(products.gram) < 2 or not 0.0 < products.unit < np.inf:
        return ridges[0]
    best, error = ridge_errors(products, weight, ridges, checks=checks).best()
    return ridges[best] if error < 0 else np.inf


def ridge_errors(
    products: Products,
    weight: Tensor,
    ridges: Sequence[float],
    *,
    narrow: bool | None = None,
    checks: int | None = None,
) -> RidgeErrors:
    """Return the job that finds the error of each ridge on a fold.

    `narrow` layers, those of few outputs unless it is said, are fitted by their outputs.
    Shapes: weight W' `[C, outputs * positions]`.
    """
    gram, cross = products.gram, products.cross
    if products.of_outputs:
        return RidgeErrors(gram, cross, None, (), ridges, checks)
    if is_narrow(weight.shape[1], gram.shape[1]) if narrow is None else narrow:
        return RidgeErrors(gram, weight.double().T @ cross, None, (), ridges, checks)
    return RidgeErrors(gram, cross, weight, products.parts, ridges, checks)
