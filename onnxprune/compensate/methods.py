"""The methods of compensation by name.

A layer computes `y = W x + b` of input channels x, of which the pruned net still has `x_k`. The
removed channels are correlated with the kept ones, and the reference samples show how. Two methods
use that, in closed form and without changing a shape:

* `bias` replaces each removed channel by its mean (`onnxprune.compensate.bias`);
* `least-squares` fits the weights again (`onnxprune.compensate.least_squares`).

A layer that is no reader (`onnxprune.compensate.readers`) keeps its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.errors import DataError, check_name
from onnxprune.graph import Graph

if TYPE_CHECKING:
    from onnxprune.compensate.least_squares import Fit
    from onnxprune.compensate.reference import Reference
    from onnxprune.data import Data


FOLDS = 3
"""Parts of the samples; each is left out once."""
JUDGES = FOLDS
"""Added to the fold of a sample that judges; leaves out all of them in the place of a fold."""


ROUGH = 50
"""Samples that a rough correction is fitted on, at least, where there are twice as many."""


class Corrector(Protocol):
    """Corrects the weights of a pruned model."""

    @property
    def folds(self) -> IntArray:
        """The fold of each sample; a correction can leave one out. Shapes: `[n]`."""
        ...

    def __call__(
        self,
        model: ModelProto,
        dead: BoolArray,
        *,
        without: int | None = None,
        rough: bool = False,
    ) -> ModelProto:
        """Return the corrected model, fitted without the samples of a fold, or `JUDGES`.

        A `rough` one takes less time: it may be fitted less well, and on a part of the samples.
        Shapes: dead `[channels]`.
        """
        ...


def _bias(reference: Reference, fit: Fit) -> Corrector:
    from onnxprune.compensate.bias import Bias

    return Bias(reference)


def _least_squares(reference: Reference, fit: Fit) -> Corrector:
    from onnxprune.compensate.least_squares import LeastSquares

    return LeastSquares(reference, fit)


METHODS: Mapping[str, Callable[[Reference, Fit], Corrector] | None] = MappingProxyType(
    {"none": None, "bias": _bias, "least-squares": _least_squares}
)
"""By name: what makes the corrector, None where weights stay as they are."""


def compensator(
    graph: Graph,
    groups: ChannelGroups,
    data: Data | None,
    method: str,
    *,
    device: str = "auto",
    batch_size: int = 32,
    ridge: float | None = None,
    ridge_share: float = 1.0,
    variance: float = 1.0,
    rounds: int = 0,
    allowed: int | None = None,
    folds: IntArray | None = None,
) -> Corrector | None:
    """Return `correct(pruned, dead) -> corrected`, or None for the method `none`.

    `pruned` is what `remove_channels` returned; it is not changed. Names and shapes stay as they
    are, and so does every layer that reads no removed channel. A node without a bias gets one where
    it needs it. The unpruned net runs once, at the first call.

    `ridge`, `ridge_share`, `variance` and `rounds` are those of `Fit`. `allowed` limits how much of
    all samples is kept in memory; on a CPU the rest goes into a temporary file. `folds` are those
    that a correction can leave out.
    Shapes: folds `[n]`. Units: allowed, bytes.
    Raises: UnknownName for a method that does not exist; DataError where samples are missing.
    """
    check_name("compensate", method, METHODS)
    make = METHODS[method]
    if make is None:
        return None
    if data is None:
        raise DataError(
            f"compensate '{method}': needs reference samples; give --data, or use --compensate none"
        )
    from onnxprune.compensate.least_squares import Fit
    from onnxprune.compensate.reference import Reference

    reference = Reference(graph, groups, data, device, batch_size, allowed, folds)
    return make(reference, Fit(ridge, ridge_share, variance, rounds=rounds))
