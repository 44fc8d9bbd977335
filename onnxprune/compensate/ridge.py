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

from onnxprune.arrays import BoolArray
from onnxprune.compensate.folds import RidgeErrors
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

RIDGES = (0.01, 0.1, 1.0, 10.0)
"""The candidates, as shares of the mean variance of the kept channels."""
RIDGE = RIDGES[0]
MAX_ROWS = 4096
"""A layer that reads more channels keeps its weights: the system to solve would be too large."""


@dataclass(frozen=True, eq=False)
class Products:
    """What the regression needs of X and X_k, for each fold, in double precision.

    `parts` are X_k itself, one for each fold, where all together have fewer columns than rows.
    Shapes: gram `X_k X_k'` `[F, K, K]`, cross `(X - S X_k) X_k'` `[F, C, K]`, identity S `[C, K]`,
    parts each `[K, m]`.
    """

    gram: Tensor
    cross: Tensor
    identity: Tensor
    parts: Sequence[Tensor] = ()

    @property
    def unit(self) -> float:
        """The mean diagonal of `X_k X_k'` over all folds, which a ridge is a share of."""
        return float(self.gram.sum(0).diagonal().mean())

    def solve(self, ridge: float) -> Tensor:
        """Return the map A from the kept channels to all of them. Shapes: -> `[C, K]`."""
        return self.identity + self._fitted(ridge, self.cross.sum(0).T).T

    def mapping(self, ridge: float, columns: int) -> Callable[[Tensor], Tensor]:
        """Return what turns weights of all channels into those of the kept ones: A' W.

        A itself is only computed for more `columns` in all than there are channels.
        Shapes: W `[C, o]` -> `[K, o]`.
        """
        if columns >= len(self.identity):
            whole = self.solve(ridge).T
            return lambda weight: whole.to(weight.dtype) @ weight
        kept = self.identity.argmax(0)

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

    Shapes: gram `[K, K]`, cross `[C, K]`, own `[K, m]`.
    """

    gram: npt.NDArray[Any]
    cross: npt.NDArray[Any]
    own: npt.NDArray[Any] | None


def multiply(
    full: Tensor, kept: Tensor, alive: BoolArray, means: Sequence[Tensor], *, narrow: bool
) -> BatchProducts:
    """Return the products of X (`full`) and X_k (`kept`) of one batch; `narrow` keeps X_k.

    Shapes: full `[C, m]`, kept `[K, m]`, alive `[C]`, means `[C, 1]` and `[K, 1]`.
    """
    missing, own = full - means[0], kept - means[1]
    missing[torch.from_numpy(alive).to(full.device)] -= own
    products = (own @ own.T, missing @ own.T, own)
    gram, cross, rows = (one.cpu().numpy() for one in products)
    return BatchProducts(gram, cross, rows if narrow else None)


def gather(
    batches: Iterable[BatchProducts],
    alive: BoolArray,
    folds: Sequence[int],
    device: torch.device,
) -> Products:
    """Add the products of batches of one fold each. Shapes: alive `[C]`, folds one each."""
    where = torch.from_numpy(alive).to(device)
    identity = torch.eye(len(alive), dtype=torch.float64, device=device)[:, where]
    names = sorted(set(folds))
    cross = identity.new_zeros(len(names), *identity.shape)
    gram = identity.new_zeros(len(names), identity.shape[1], identity.shape[1])
    parts: list[list[Tensor]] = [[] for _ in names]
    for batch, fold in zip(batches, folds, strict=True):
        k = names.index(fold)
        gram[k] += torch.tensor(batch.gram, device=device)
        cross[k] += torch.tensor(batch.cross, device=device)
        if batch.own is not None:
            parts[k].append(torch.tensor(batch.own, device=device).double())
    return Products(gram, cross, identity, [torch.cat(p, 1) for p in parts if p])


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
    errors = ridge_errors(products, weight, ridges, checks=checks).total()
    best = int(errors.argmin())
    return ridges[best] if float(errors[best]) < 0 else np.inf


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
    if narrow is None:
        narrow = 2 * weight.shape[1] <= products.gram.shape[1] and not products.parts
    gram, cross = products.gram, products.cross
    if narrow:
        return RidgeErrors(gram, weight.double().T @ cross, None, (), ridges, checks)
    return RidgeErrors(gram, cross, weight, products.parts, ridges, checks)
