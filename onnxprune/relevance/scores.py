"""Scores: how much each channel matters to each class, as a value that can be saved."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from onnxprune.arrays import FloatArray
from onnxprune.errors import DataError
from onnxprune.files import write_whole
from onnxprune.plugins import first_line
from onnxprune.records import read_bytes

LARGEST = 1 << 30
"""Bytes of an array."""
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
            content = io.BytesIO(read_bytes(Path(path), partial(_no_scores, why="")))
            with zipfile.ZipFile(content) as archive:
                values, criterion, classes = (
                    _array(archive, name) for name in ("values", "criterion", "classes")
                )
            names = tuple(map(str, np.ravel(classes)))  # numbers beyond all letters raise here
            said = str(criterion)
        except BROKEN as error:
            if isinstance(error, DataError):
                raise
            raise _no_scores(path, first_line(error)) from error
        if values.ndim != 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise _no_scores(path, f"values are {list(values.shape)} of {values.dtype}")
        if criterion.dtype.kind != "U" or criterion.ndim:
            raise _no_scores(path, "criterion is no text")
        if classes.dtype.kind != "U" or classes.shape != values.shape[:1]:
            raise _no_scores(path, f"classes are {list(classes.shape)} of {classes.dtype}")
        return cls(np.asarray(values, np.float64), said, names)


BROKEN = (
    *(OSError, ValueError, TypeError, SyntaxError, EOFError, KeyError, OverflowError),
    *(MemoryError, RecursionError, NotImplementedError, RuntimeError, SystemError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)
"""What NumPy and zipfile raise for a file that is none, or damaged."""


def _array(archive: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """An array of an archive, whose header is held against what is there before it is believed."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        old = npy.read_magic(file) == (1, 0)
        read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
        shape, fortran, dtype = read(file)
        size = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not 0 <= size <= min(member.file_size - file.tell(), LARGEST):
            raise ValueError(f"the header of {name} says {list(shape)} of {dtype}")
        held = np.frombuffer(file.read(size), dtype)
        return held.reshape(shape, order="F" if fortran else "C")


def _no_scores(path: str | Path, why: str) -> DataError:
    said = f"not scores ({why})" if why else "not scores"
    return DataError(f"{path}: {said}; write them with `onnxprune score`")
