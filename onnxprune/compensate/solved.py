"""The errors of ridges where a system is solved for each one that is looked at.

The error falls with the ridge up to the best one and rises behind it, so bisection finds that one.
Systems are solved in single precision where the residual stays small, as it does: what they are
made of are products in single precision.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.compensate.folds import HELD, OnFolds
from onnxprune.engine import talk
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

SINGLE = 128
"""So many equations and more are solved in single precision first."""
RESIDUAL = 1e-3
"""The largest residual, as a share of the right-hand side, that single precision may leave."""


@dataclass(frozen=True, eq=False)
class SolvedErrors(OnFolds):
    """A job that is asked for one ridge after the other."""

    gram: Tensor

    def best(self) -> tuple[int, float]:
        """Return which of the rising ridges errs least, and its error."""
        with talk(self, range(self.folds)) as folds:
            list(folds.ask())
            error = cache(lambda k: float(sum(folds.ask(self.ridges[k]))))
            low, high = 0, len(self.ridges) - 1
            while low < high:
                middle = (low + high) // 2
                if error(middle) <= error(middle + 1):
                    high = middle
                else:
                    low = middle + 1
            return low, error(low)

    @property
    def taken(self) -> int:
        """Bytes of a fold."""
        return HELD * self.gram[0].nbytes

    def run(self, shard: int) -> Generator[Any, Any, None]:
        """Return the error of each ridge that is asked for on a fold, fitted to the others."""
        held = self.held(shard)
        ridge = yield None
        while True:
            ridge = yield held.error(ridge)

    def held(self, fold: int) -> Held:
        """Return a fold that is held against the others."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class OutputErrors(SolvedErrors):
    """The errors of a layer of few outputs: these are fitted, not the inputs.

    Shapes: gram `[F, K, K]`, cross `[F, outputs * positions, K]`.
    """

    cross: Tensor

    def held(self, fold: int) -> Held:
        """Return a fold and what is fitted to the others."""
        own = self.gram[fold], self.cross[fold].T
        gram = self.gram.sum(0) - own[0]
        unit = float(gram.diagonal().mean())
        return Held(gram, self.cross.sum(0).T - own[1], *own, unit)


@dataclass(frozen=True, eq=False)
class ColumnErrors(SolvedErrors):
    """The errors where X_k has fewer columns than rows: what predicts is a mix of columns.

    With `G = X_k' X_k` and the outputs' `D = W (X - S X_k)`, a fold f is predicted from the others
    o by `D_o B`, of `B = (G_oo + ridge I)^-1 G_of`, and D only counts by its products.
    `fold` is that of each column, and K the `rows` of X_k.
    Shapes: gram G `[m, m]`, outputs `D' D` `[m, m]`, fold `[m]`.
    """

    outputs: Tensor
    fold: Tensor
    rows: int

    @property
    def taken(self) -> int:
        """Bytes of a fold."""
        return HELD * self.gram.nbytes

    def held(self, fold: int) -> Held:
        """Return a fold and what is fitted to the others."""
        here = self.fold == fold
        gram, outputs = self.gram[~here], self.outputs[~here]
        others = gram[:, ~here]
        unit = float(others.trace()) / self.rows
        return Held(others, gram[:, here], outputs[:, ~here], outputs[:, here], unit)


class Held:
    """A fold that is held against what is fitted to the others.

    The error of a fit `f = (gram + ridge * unit I)^-1 cross` is `f' own_gram f - 2 own_cross' f`.
    Shapes: gram and own_gram `[K, K]`, cross and own_cross `[K, n]`.
    """

    def __init__(
        self, gram: Tensor, cross: Tensor, own_gram: Tensor, own_cross: Tensor, unit: float
    ) -> None:
        self._exact, self._unit = (gram, cross, own_gram, own_cross), unit
        sizes = float(gram.diagonal().mean()), float(cross.abs().max())
        size = float(own_gram.diagonal().mean())
        self._single: tuple[Tensor, ...] | None = None
        if len(gram) < SINGLE or not all(0.0 < one < np.inf for one in (*sizes, size)):
            return
        self._size, self._scale = sizes[0], sizes[1] / sizes[0]
        self._found = size * self._scale
        scaled = zip(self._exact, (*sizes, size, self._found), strict=True)
        self._single = tuple((one / by).float() for one, by in scaled)
        probe = torch.arange(cross.shape[1], dtype=cross.dtype, device=cross.device).cos()
        self._probe = probe, cross @ probe

    def error(self, ridge: float) -> float:
        """Return how much more than S a ridge errs on the fold."""
        if self._single is not None:
            found = _solve(self._single[0], ridge * self._unit / self._size, self._single[1])
            if found is not None and self._fits(found, ridge):
                return _excess(found, *self._single[2:]) * self._found * self._scale
        gram, cross, *own = self._exact
        found = _solve(gram, max(ridge * self._unit, 1e-300), cross)
        return np.nan if found is None else _excess(found, *own)

    def _fits(self, found: Tensor, ridge: float) -> bool:
        """Whether what single precision found solves the equations, of outputs put together."""
        probe, wanted = self._probe
        one = (found @ probe.float()).double() * self._scale
        left = self._exact[0] @ one + ridge * self._unit * one - wanted
        return bool(left.norm() <= RESIDUAL * wanted.norm())


def _solve(gram: Tensor, share: float, wanted: Tensor) -> Tensor | None:
    system = gram.clone()
    system.diagonal().add_(share)
    factor, failed = torch.linalg.cholesky_ex(system)
    return None if failed else torch.cholesky_solve(wanted, factor)


def _excess(fitted: Tensor, gram: Tensor, cross: Tensor) -> float:
    return float((torch.addmm(cross, gram, fitted, beta=-2) * fitted).sum(dtype=torch.float64))
