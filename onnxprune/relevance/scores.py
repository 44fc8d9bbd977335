"""Scores: how much each channel matters to each class, as a value that can be saved."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.errors import DataError
from onnxprune.files import write_whole

ALL = ("all",)
"""The one class of criteria that look at no samples."""


@dataclass(frozen=True, eq=False)
class Scores:
    """How much each channel matters to each class, by one criterion.

    Shapes: values `[classes, channels]`; a class without samples has a row of zeros.
    """

    values: FloatArray
    criterion: str
    classes: tuple[str, ...]

    def total(self, weights: FloatArray | None = None) -> FloatArray:
        """Return the mean over classes, weighted if asked; criteria without classes ignore weights.

        Shapes: weights `[classes]` -> `[channels]`.
        Raises: DataError when there is not one weight for each class.
        """
        if weights is None or self.classes == ALL:
            return np.asarray(self.values.mean(0))
        if np.shape(weights) != (len(self.classes),):
            raise DataError(
                f"scores by {self.criterion}: {np.size(weights)} class weights, "
                f"expected {len(self.classes)}"
            )
        return np.asarray(weights @ self.values / max(float(np.sum(weights)), 1e-300))

    def save(self, path: str | Path) -> Path:
        """Write the scores as `.npz`, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            values=self.values,
            criterion=np.array(self.criterion),
            classes=np.array(self.classes, dtype=np.str_),
        )
        return write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> Scores:
        """Read scores that `save` wrote.

        Raises: DataError when the file is not readable or not scores.
        """
        try:
            content = io.BytesIO(Path(path).read_bytes())
            with np.load(content, allow_pickle=False) as archive:
                return cls(
                    np.asarray(archive["values"], np.float64),
                    str(archive["criterion"]),
                    tuple(str(name) for name in archive["classes"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path}: not scores ({type(error).__name__}: {error}); write them with "
                f"`onnxprune score`"
            ) from error
