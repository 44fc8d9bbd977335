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
class OnFolds(Job):
    """A job on the `folds` that are left out, one after the other, of tensors of all folds."""

    folds: int
    ridges: Sequence[float]

    def best(self) -> tuple[int, float]:
        """Return which of the rising ridges errs least, and its error."""
        raise NotImplementedError

    @property
    def stays(self) -> bool:
        """A worker may have another device."""
        return any(one.device.type != "cpu" for one in self._tensors.values())

    @property
    def keeps(self) -> bool:
        """A fold is asked more than once."""
        return True

    @property
    def _tensors(self) -> dict[str, Tensor]:
        found = super().__getstate__().items()
        return {name: one for name, one in found if isinstance(one, torch.Tensor)}

    def __getstate__(self) -> dict[str, Any]:
        """Send arrays, which workers of a machine share."""
        arrays = {name: one.numpy() for name, one in self._tensors.items()}
        return {**super().__getstate__(), **arrays}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: one for name, one in state.items() if isinstance(one, np.ndarray)}
        tensors = {name: torch.from_numpy(shared(one)) for name, one in arrays.items()}
        self.__dict__.update({**state, **tensors})


@dataclass(frozen=True, eq=False)
class InputErrors(OnFolds):
    """What the errors follow from, as `onnxprune.compensate.ridge.choose_ridge` says.

    One decomposition serves all ridges. The shards first share the work on the gain W' W.
    Shapes: gram `[F, K, K]`, cross `[F, C, K]`, weight W' `[C, outputs * positions]`.
    """

    gram: Tensor
    cross: Tensor
    weight: Tensor

    def best(self) -> tuple[int, float]:
        """Return which of the ridges errs least, and its error."""
        errors = self.total()
        best = int(errors.argmin())
        return best, float(errors[best])

    def total(self) -> FloatArray:
        """Return the error of each ridge on all folds that are left out. Shapes: -> `[ridges]`."""
        with talk(self, range(self.folds)) as folds:
            gain = np.concatenate(list(folds.ask()))
            errors: FloatArray = sum(folds.ask(gain), np.zeros(len(self.ridges)))
            return errors

    @property
    def taken(self) -> int:
        """Bytes of a fold."""
        return HELD * self.gram[0].nbytes + self.cross[0].nbytes

    def run(self, shard: int) -> Generator[FloatArray, FloatArray, None]:
        """Hand out rows of the gain, take all, and return the error of each ridge on a fold.

        Shapes: `[C / folds, C]`, `[C, C]` -> `[ridges]`.
        """
        rows = self.weight.tensor_split(self.folds)[shard]
        gain = torch.tensor((yield (rows @ self.weight.T).cpu().numpy()))
        yield np.array(self._of_inputs(gain.to(self.gram), shard))

    def _of_inputs(self, gain: Tensor, fold: int) -> list[float]:
        own_gram, own_cross = self.gram[fold], self.cross[fold]
        values, vectors = torch.linalg.eigh(self.gram.sum(0) - own_gram)
        values = values.clamp(min=0)
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
