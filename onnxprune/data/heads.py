"""Heads: the outputs that a network is judged by, and what each of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

KINDS = {
    "classes": "class scores: the highest one has to stay",
    "vector": "a vector: its direction has to stay",
    "sequence": "class scores along a sequence: the text that is read off has to stay",
    "values": "numbers: each row of them has to stay close",
}
"""What an output may hold, and what is asked of it."""


@dataclass(frozen=True, eq=False)
class Head:
    """An output of a network, or a tensor inside it, that is judged.

    `kind` is one of `KINDS`; `axis` is that of the classes or rows. `deviation` is how far the
    unpruned network's numbers are from their mean over samples: a change is measured in it.
    `alone` says that the tensor has no batch axis in the first place, so that samples are run one
    by one and get one. `residual` is the share of the variance of each row that the network adds,
    where the output is a picture that it was given; all of it by default.
    Shapes: deviation broadcasts to the output of samples, `[n, ...]`; residual `[rows]`.
    """

    tensor: str
    kind: str = "classes"
    axis: int = 1
    deviation: npt.NDArray[Any] | None = None
    alone: bool = False
    residual: npt.NDArray[Any] | None = None

    @property
    def is_scores(self) -> bool:
        """Whether it holds class scores, one for each class along its axis."""
        return self.kind in ("classes", "sequence")
