"""Correct the layers that read what was removed, in closed form: no gradient, no training.

Imports relevance (the mirror runs the samples), surgery and what lies below. `compensator` is
the way in.

* `bias`: the mean of what is missing goes into the bias
* `least_squares`: the weights are fitted again
* `ridge`: the regression; `redundancy`: what the other channels tell of a channel
* `readers`: which layers read a channel, and how; `reference`: the samples, run through both nets
"""

from onnxprune.compensate.bias import METHODS, Corrector, compensator
from onnxprune.compensate.redundancy import irreplaceable

__all__ = [
    "METHODS",
    "Corrector",
    "compensator",
    "irreplaceable",
]
