"""Inputs: the samples of a network that has several inputs, an array for each by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import in_pieces
from onnxprune.data.streamed import Streamed, ahead

Array: TypeAlias = npt.NDArray[Any]
Rows: TypeAlias = Array | Streamed
"""The samples of one input, in memory or read when they are asked for."""


AT_ONCE = 32
"""Samples that are read together where nobody says how many."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples by the name of the input that takes them; all arrays hold as many.

    `apart` says that a sample is a whole run of the network, because its inputs have no common
    batch axis: an array has one axis more than its input, and samples are not computed together.
    Shapes: each `[n, ...]`.
    """

    arrays: Mapping[str, Rows] = field(default_factory=dict)
    apart: bool = False

    def __len__(self) -> int:
        return min((len(array) for array in self.arrays.values()), default=0)

    def __getitem__(self, rows: Any) -> Inputs:
        """Return some of the samples. Shapes: rows, a slice, numbers or a mask `[n]`."""
        return Inputs({name: array[rows] for name, array in self.arrays.items()}, self.apart)

    def __iter__(self) -> Iterator[Inputs]:
        return (self[k : k + 1] for k in range(len(self)))

    @property
    def feeds(self) -> dict[str, Array]:
        """The arrays as a session takes them, read. Shapes: each as the input's."""
        if not self.apart:
            return {name: np.asarray(array) for name, array in self.arrays.items()}
        return {name: np.asarray(array[0]) for name, array in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        """How many bytes the samples take."""
        return sum(array.nbytes for array in self.arrays.values())

    @property
    def streamed(self) -> bool:
        """Whether some are read only when they are asked for."""
        return any(isinstance(array, Streamed) for array in self.arrays.values())


Samples: TypeAlias = Rows | Inputs
"""Samples of the one input of a network, or of several by name."""


def by_name(x: Samples, name: str) -> Inputs:
    """Return samples by the name of their input; an array belongs to the one that is named."""
    return x if isinstance(x, Inputs) else Inputs({name: x})


def read(x: Samples) -> Array | Inputs:
    """Return samples in memory, read where they are not. Shapes: `[n, ...]` -> the same."""
    if not isinstance(x, Inputs):
        return np.asarray(x)
    return Inputs({name: np.asarray(array) for name, array in x.arrays.items()}, x.apart)


def pieces(x: Rows) -> Iterator[Array]:
    """Yield samples a few at a time, in order, read ahead where they are streamed.

    Shapes: `[n, ...]` -> `[m, ...]`.
    """
    if isinstance(x, Streamed):
        yield from ahead(np.asarray, [x[k : k + AT_ONCE] for k in range(0, len(x), AT_ONCE)])
    else:
        yield from in_pieces(x)


def joined(parts: list[Samples]) -> Samples:
    """Return the samples of all parts in one, without a copy where there is one part only.

    Shapes: parts of arrays `[n_i, ...]` -> `[sum n_i, ...]`.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if not isinstance(first, Inputs):
        return _in_one([part for part in parts if not isinstance(part, Inputs)])
    held = [part.arrays for part in parts if isinstance(part, Inputs)]
    arrays = {name: _in_one([one[name] for one in held]) for name in first.arrays}
    return Inputs(arrays, first.apart)


def _in_one(parts: list[Rows]) -> Rows:
    """The rows of all parts, unread where those of one are."""
    if any(isinstance(part, Streamed) for part in parts):
        return Streamed.joined(parts)
    return np.concatenate([np.asarray(part) for part in parts])
