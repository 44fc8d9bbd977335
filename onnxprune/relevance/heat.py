"""Heat maps: how much each pixel of an image speaks for what a network says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.data import Head
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.batches import fixed_batch
from onnxprune.relevance.criteria import find_criterion
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import explain, relevance
from onnxprune.relevance.mirror import Mirror, Tensors
from onnxprune.relevance.rules import Composite

AT_ONCE = 4
"""Images."""

Explained: TypeAlias = "IntArray | Mapping[str, npt.NDArray[Any]]"
"""Classes, or how much each number of the outputs counts."""


def heat_maps(
    graph: Graph,
    x: npt.NDArray[np.float32],
    explained: Explained,
    axis: int,
    *,
    criterion: str = "lrp",
    heads: tuple[Head, ...] = (),
    device: str = "auto",
) -> FloatArray:
    """Return the relevance of the pixels of images for what is explained, added up over channels.

    That is the score of a class, or the sum of all numbers of the outputs, each times its weight.
    The rules are those of the criterion, or the default ones where it has none. `axis` is the one
    of the channels.
    Shapes: x `[n, C, H, W]` or `[n, H, W, C]`, classes `[n]` or weights as the outputs of the
    heads, `[n, ...]` -> `[n, H, W]`.
    Units: shares of what is explained.
    Raises: UnsupportedOp naming the first node that relevance cannot cross.
    """
    composite = find_criterion(criterion).composite or find_criterion("lrp").composite
    assert composite is not None
    mirror = folded(Mirror(graph, device=device, heads=heads))
    size, found = fixed_batch(mirror, x) or AT_ONCE, []
    for start in range(0, len(x), size):
        rows = np.minimum(np.arange(start, start + size), len(x) - 1)
        held = _of_image(mirror, x[rows], explained, rows, composite)
        found.append(held.sum(axis).cpu().numpy()[: len(x) - start])
    return np.concatenate(found).astype(np.float64)


def _of_image(
    mirror: Mirror,
    x: npt.NDArray[np.float32],
    explained: Explained,
    rows: IntArray,
    composite: Composite,
) -> torch.Tensor:
    image = mirror.graph.image
    if not isinstance(explained, Mapping):
        return relevance(mirror, x, explained[rows], composite, [image])[image]
    weights = {name: torch.from_numpy(one[rows]) for name, one in explained.items()}

    def starts(ends: Tensors) -> list[Tensors]:
        each = {name: end * weights[name].to(end) for name, end in ends.items()}
        total = sum(one.abs().reshape(len(one), -1).sum(1) for one in each.values())
        whole = torch.as_tensor(total).clamp(min=1e-30)
        return [{n: one / whole.reshape(-1, *[1] * (one.ndim - 1)) for n, one in each.items()}]

    (found,) = explain(mirror, x, starts, composite, [image])
    return found[image]
