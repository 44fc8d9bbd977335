"""Heat maps: how much each pixel of an image speaks for the class that a network gives it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.data import Head
from onnxprune.graph import Graph
from onnxprune.relevance.batches import fixed_batch
from onnxprune.relevance.criteria import find_criterion
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror

AT_ONCE = 4
"""Images."""


def heat_maps(
    graph: Graph,
    x: npt.NDArray[np.float32],
    y: IntArray,
    axis: int,
    *,
    criterion: str = "lrp",
    heads: tuple[Head, ...] = (),
    device: str = "auto",
) -> FloatArray:
    """Return the relevance of the pixels of images for the classes y, added up over channels.

    The rules are those of the criterion, or the default ones where it has none. `axis` is the one
    of the channels.
    Shapes: x `[n, C, H, W]` or `[n, H, W, C]`, y `[n]` -> `[n, H, W]`.
    Units: shares of what is explained.
    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    composite = find_criterion(criterion).composite or find_criterion("lrp").composite
    assert composite is not None
    mirror = folded(Mirror(graph, device=device, heads=heads))
    size, found = fixed_batch(mirror, x) or AT_ONCE, []
    for start in range(0, len(x), size):
        rows = np.minimum(np.arange(start, start + size), len(x) - 1)
        images = relevance(mirror, x[rows], y[rows], composite, [graph.image])[graph.image]
        found.append(images.sum(axis).cpu().numpy()[: len(x) - start])
    return np.concatenate(found).astype(np.float64)
