"""Mirror images: what a correction fits beside few images, because a network sees them as new."""

from __future__ import annotations

import numpy as np

from onnxprune import memory
from onnxprune.data.inputs import Samples
from onnxprune.data.variants import channel_axis

ENOUGH = 200
"""So many images are fitted as they are."""


def with_mirrored(x: Samples, folds: int) -> Samples:
    """Return the samples and, behind them, mirror images of nearly all, where they are few images.

    Large ones stay alone: workers read them from files. The first `n % folds` have none. So sample
    k and its mirror image lie at places with the same remainder by `folds`, that is in the same
    fold.
    Shapes: `[n, C, H, W]` or `[n, H, W, C]` with 1 or 3 channels -> `[2n - n % folds, ...]`; others
    come back as they are.

    >>> with_mirrored(np.arange(8).reshape(4, 1, 1, 2), folds=3)[4:].ravel().tolist()
    [3, 2, 5, 4, 7, 6]
    """
    if not isinstance(x, np.ndarray) or len(x) >= ENOUGH or x.nbytes > memory.LITTLE:
        return x
    axis = channel_axis(x.shape[1:])
    if axis is None:
        return x
    return np.concatenate([x, np.flip(x[len(x) % folds :], -1 if axis == 1 else -2)])
