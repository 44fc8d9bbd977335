"""Inputs: the samples of a network that has several inputs, an array for each by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Samples by the name of the input that takes them; all arrays hold as many.

    `apart` says that a sample is a whole run of the network, because its inputs have no common
    batch axis: an array has one axis more than its input, and samples are not computed together.
    Shapes: each `[n, ...]`.
    """

    arrays: Mapping[str, Array] = field(default_factory=dict)
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
        """The arrays as a session takes them. Shapes: each as the input's."""
        if not self.apart:
            return dict(self.arrays)
        return {name: np.asarray(array[0]) for name, array in self.arrays.items()}

    @property
    def nbytes(self) -> int:
        """How many bytes the samples take."""
        return sum(array.nbytes for array in self.arrays.values())


Samples: TypeAlias = Array | Inputs
"""Samples of the one input of a network, or of several by name."""


def by_name(x: Samples, name: str) -> Inputs:
    """Return samples by the name of their input; an array belongs to the one that is named."""
    return x if isinstance(x, Inputs) else Inputs({name: x})


def joined(parts: list[Samples]) -> Samples:
    """Return the samples of all parts in one, without a copy where there is one part only.

    Shapes: parts of arrays `[n_i, ...]` -> `[sum n_i, ...]`.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    if not isinstance(first, Inputs):
        return np.concatenate([part for part in parts if not isinstance(part, Inputs)])
    held = [part.arrays for part in parts if isinstance(part, Inputs)]
    arrays = {name: np.concatenate([one[name] for one in held]) for name in first.arrays}
    return Inputs(arrays, first.apart)
