"""The error of each ridge on samples left out, a fold at a time: the folds are shards of a job."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import FloatArray, shared
from onnxprune.engine import Job, talk
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

HELD = 6
"""Matrices of K rows and columns that a fold computes beside what it is given."""


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
            found = folds.ask()
            if self.weight is not None:
                found = folds.ask(np.concatenate(list(found)))
            errors: FloatArray = sum(found, np.zeros(len(self.ridges)))
            return errors

    @property
    def stays(self) -> bool:
        """A worker may have another device."""
        return self.gram.device.type != "cpu"

    @property
    def keeps(self) -> bool:
        """Rows of the gain are of equal size."""
        return self.weight is not None

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

    def run(self, shard: int) -> FloatArray | Generator[FloatArray, FloatArray, None]:
        """Return the error of each ridge on a fold, with A fitted to the others.

        With a weight it hands out rows of the gain first, and is given all.
        Shapes: -> `[ridges]`.
        """
        if self.weight is None:
            return np.array(self._of_outputs(shard))
        return self._rounds(self.weight, shard)

    def _rounds(self, weight: Tensor, fold: int) -> Generator[FloatArray, FloatArray, None]:
        weight = weight.double()
        rows = weight.tensor_split(len(self.gram[: self.checks]))[fold]
        gain = yield (rows @ weight.T).cpu().numpy()
        yield np.array(self._of_inputs(torch.tensor(gain, device=self.gram.device), fold))

    def _of_outputs(self, fold: int) -> list[float]:
        own_gram, own_cross = self.gram[fold], self.cross[fold]
        others = self.gram.sum(0) - own_gram
        wanted = (self.cross.sum(0) - own_cross).T
        unit = float(others.diagonal().mean())
        errors = []
        for ridge in self.ridges:
            system = others.clone()
            system.diagonal().add_(max(ridge * unit, 1e-300))
            fitted = torch.cholesky_solve(wanted, torch.linalg.cholesky(system)).T
            errors.append(float(((fitted @ own_gram - 2 * own_cross) * fitted).sum()))
        return errors

    def _of_inputs(self, gain: Tensor, fold: int) -> list[float]:
        own_gram, own_cross = self.gram[fold], self.cross[fold]
        others = [part for i, part in enumerate(self.parts) if i != fold]
        values, vectors = _decompose(self.gram.sum(0) - own_gram, others)
        fitted = (self.cross.sum(0) - own_cross) @ vectors
        output = gain @ fitted
        linear = ((own_cross @ vectors) * output).sum(0)
        square = (fitted.T @ output) * (vectors.T @ own_gram @ vectors)
        unit = float(values.sum()) / len(own_gram)
        errors = []
        for ridge in self.ridges:
            h = 1 / (values + max(ridge * unit, 1e-300))
            errors.append(float(h @ square @ h - 2 * h @ linear))
        return errors


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
