"""Correct the layers that read removed channels, in closed form: no gradient, no training.

Imports relevance (the mirror runs the samples), surgery and what lies below. `compensator` is
the way in.

* `methods`: the methods by name; `bias`: the mean of a removed channel goes into the bias
* `least_squares`: weights are fitted again; `ridge`: the regression; `observed`: what it fits to
* `folds`: the errors of ridges on samples left out; `solved`: those of few outputs or columns
* `refit`: the pruned net on one batch, while it is corrected; `activated`: the fit of a layer
  through the activation behind it
* `redundancy`: the price of a channel that others predict; `covariance`: how far they do
* `readers`: the layers whose weights may change; `reference`: the unpruned net and its samples
"""

import typing

from onnxprune.compensate.methods import FOLDS, JUDGES, METHODS, ROUGH, Corrector, compensator

if typing.TYPE_CHECKING:
    from onnxprune.compensate.redundancy import Evenly, irreplaceable

__all__ = [
    "FOLDS",
    "JUDGES",
    "METHODS",
    "ROUGH",
    "Corrector",
    "Evenly",
    "compensator",
    "irreplaceable",
]


def __getattr__(name: str) -> typing.Any:
    """Import what only a search needs when it is first used: commands start without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from onnxprune.compensate import redundancy

    return getattr(redundancy, name)
