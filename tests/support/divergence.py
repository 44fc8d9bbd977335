"""The divergence of class probabilities, by NumPy."""

from typing import Any

import numpy as np
import numpy.typing as npt


def divergence(before: npt.NDArray[Any], logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """KL(p0 || p) of each sample, of class probabilities and logits."""
    z = logits - logits.max(1, keepdims=True)
    now = z - np.log(np.exp(z).sum(1, keepdims=True))
    return np.asarray((before * (np.log(before) - now)).sum(1))
