"""The error of ridges on samples left out, a fold at a time: the folds are shards of a job.

It falls with the ridge up to the best one and rises behind it, so bisection finds that one. A layer
of few outputs is solved once for each ridge that is looked at, in single precision where the
residual stays small: the products come from single precision as well.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import FloatArray, shared
from onnxprune.engine import Job, talk
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

HELD = 6
"""Matrices of K rows and columns that a fold computes beside what it is given."""
SINGLE = 128
"""So many equations and more are solved in single precision first."""
RESIDUAL = 1e-3
"""The largest residual, as a share of the right-hand side, that single precision may leave."""


@dataclass(frozen=True, eq=False)
class RidgeErrors(Job):
    """What the errors follow from, as `onnxprune.compensate.ridge.choose_ridge` says.

    Without a weight, the layer has few outputs: these are fitted, not the inputs, and `cross` is
    theirs. Then each ridge costs a factorisation, which is less than what the products of all
    inputs would; else one decomposition serves all of them, and the shards first share the work on
    the gain W' W. `checks` is how many folds are left out, one after the other; all without it.
    Shapes: gram `[F, K, K]`, cross `[F, C, K]` or `[F, outputs * positions, K]`, weight W'
    `[C, outputs * positions]`, parts each `[K, m]`.
    """

    gram: Tensor
    cross: Tensor
    weight: Tensor | None
    parts: Sequence[Tensor]
    ridges: Sequence[float]
    checks: int | None = None

    def total(self) -> FloatArray:
        """Return the error of each ridge on all folds that are left out. Shapes: -> `[ridges]`."""
        with talk(self, range(len(self.gram[: self.checks]))) as folds:
            if self.weight is None:
                list(folds.ask())
                return np.array([sum(folds.ask(ridge)) for ridge in self.ridges])
            found = folds.ask()
            if not self._few_columns:
                found = folds.ask(np.concatenate(list(found)))
            errors: FloatArray = sum(found, np.zeros(len(self.ridges)))
            return errors

    def best(self) -> tuple[int, float]:
        """Return which of the rising ridges errs least, and its error."""
        if self.weight is not None:
            errors = self.total()
            best = int(errors.argmin())
            return best, float(errors[best])
        with talk(self, range(len(self.gram[: self.checks]))) as folds:
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
    def stays(self) -> bool:
        """A worker may have another device."""
        return self.gram.device.type != "cpu"

    @property
    def keeps(self) -> bool:
        """A fold is asked again, for other ridges or with the whole gain."""
        return True

    @property
    def _few_columns(self) -> bool:
        """Whether the outputs of so few directions are less work than the gain of all inputs."""
        return 0 < 2 * sum(part.shape[1] for part in self.parts) <= self.gram.shape[1]

    @property
    def taken(self) -> int:
        """Bytes of a fold."""
        return HELD * self.gram[0].nbytes + self.cross[0].nbytes

    def __getstate__(self) -> dict[str, Any]:
        """Send arrays, which workers of a machine share."""
        found = {"gram": self.gram, "cross": self.cross, "weight": self.weight}
        arrays = {name: None if one is None else one.numpy() for name, one in found.items()}
        rest = {"ridges": self.ridges, "checks": self.checks}
        return {**arrays, "parts": [one.numpy() for one in self.parts], **rest}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = (state.pop("gram"), state.pop("cross"), state.pop("weight"), *state.pop("parts"))
        found = [None if one is None else torch.from_numpy(shared(one)) for one in arrays]
        gram, cross, weight, *parts = found
        self.__dict__.update(state, gram=gram, cross=cross, weight=weight, parts=parts)

    def run(self, shard: int) -> FloatArray | Generator[Any, Any, None]:
        """Return the error of each ridge on a fold, with A fitted to the others.

        Without a weight it is asked for one ridge after the other. With one it hands out rows of
        the gain first, and is given all, unless there is little to multiply the weight by.
        Shapes: -> `[ridges]`.
        """
        if self.weight is None:
            return self._asked(shard)
        if self._few_columns:
            weight = self.weight.double()
            return np.array(self._of_inputs(lambda fitted: weight @ (weight.T @ fitted), shard))
        return self._rounds(self.weight, shard)

    def _asked(self, fold: int) -> Generator[float | None, float, None]:
        own = self.gram[fold], self.cross[fold].T
        held = _Held(self.gram.sum(0) - own[0], self.cross.sum(0).T - own[1], *own)
        ridge = yield None
        while True:
            ridge = yield held.error(ridge)

    def _rounds(self, weight: Tensor, fold: int) -> Generator[FloatArray, FloatArray, None]:
        weight = weight.double()
        rows = weight.tensor_split(len(self.gram[: self.checks]))[fold]
        gain = torch.tensor((yield (rows @ weight.T).cpu().numpy()), device=self.gram.device)
        yield np.array(self._of_inputs(lambda fitted: gain @ fitted, fold))

    def _of_inputs(self, gain: Callable[[Tensor], Tensor], fold: int) -> list[float]:
        own_gram, own_cross = self.gram[fold], self.cross[fold]
        others = [part for i, part in enumerate(self.parts) if i != fold]
        values, vectors = _decompose(self.gram.sum(0) - own_gram, others)
        fitted = (self.cross.sum(0) - own_cross) @ vectors
        output = gain(fitted)
        linear = ((own_cross @ vectors) * output).sum(0)
        square = (fitted.T @ output) * (vectors.T @ own_gram @ vectors)
        unit = float(values.sum()) / len(own_gram)
        errors = []
        for ridge in self.ridges:
            h = 1 / (values + max(ridge * unit, 1e-300))
            errors.append(float(h @ square @ h - 2 * h @ linear))
        return errors


class _Held:
    """A fold that is held against what is fitted to the others.

    Shapes: gram and own_gram `[K, K]`, cross and own_cross `[K, outputs * positions]`.
    """

    def __init__(self, gram: Tensor, cross: Tensor, own_gram: Tensor, own_cross: Tensor) -> None:
        self._exact = gram, cross, own_gram, own_cross
        self._unit = float(gram.diagonal().mean())
        self._size = float(cross.abs().max())
        self._single: tuple[Tensor, ...] | None = None
        if len(gram) >= SINGLE and 0.0 < self._unit < np.inf and 0.0 < self._size < np.inf:
            units = self._unit, self._size, self._unit, self._size
            self._single = tuple(
                (one / unit).float() for one, unit in zip(self._exact, units, strict=True)
            )
            probe = torch.arange(cross.shape[1], dtype=cross.dtype, device=cross.device).cos()
            self._probe = probe, cross @ probe

    def error(self, ridge: float) -> float:
        """Return how much more than S a ridge errs on the fold."""
        if self._single is not None:
            found = _solve(self._single[0], ridge, self._single[1])
            if found is not None and self._fits(found, ridge):
                return _excess(found, *self._single[2:]) * self._size**2 / self._unit
        gram, cross, *own = self._exact
        found = _solve(gram, max(ridge * self._unit, 1e-300), cross)
        return np.nan if found is None else _excess(found, *own)

    def _fits(self, found: Tensor, ridge: float) -> bool:
        """Whether what single precision found solves the equations, of outputs put together."""
        probe, wanted = self._probe
        one = found.double() @ probe * (self._size / self._unit)
        left = self._exact[0] @ one + ridge * self._unit * one - wanted
        return bool(left.norm() <= RESIDUAL * wanted.norm())


def _solve(gram: Tensor, share: float, wanted: Tensor) -> Tensor | None:
    system = gram.clone()
    system.diagonal().add_(share)
    factor, failed = torch.linalg.cholesky_ex(system)
    return None if failed else torch.cholesky_solve(wanted, factor)


def _excess(fitted: Tensor, gram: Tensor, cross: Tensor) -> float:
    return float(((gram @ fitted - 2 * cross) * fitted).sum(dtype=torch.float64))


def _decompose(gram: Tensor, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues of `X X'` that are not 0 and their eigenvectors.

    With `parts` they come from `X' X`, which is smaller.
    Shapes: gram `[K, K]`, parts of X each `[K, m]`, or none -> `[r]`, `[K, r]`.
    """
    if not parts:
        values, vectors = torch.linalg.eigh(gram)
        return values.clamp(min=0), vectors
    rows = torch.cat(list(parts), 1)
    values, turned = torch.linalg.eigh(rows.T @ rows)
    seen = values > 1e-12 * values[-1]
    return values[seen], rows @ turned[:, seen] / values[seen].sqrt()
