"""Samples in batches of a size that the model takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.data import Data, Inputs, Samples
from onnxprune.errors import InvalidModel
from onnxprune.ops._torch import torch
from onnxprune.progress import track
from onnxprune.relevance.mirror import Mirror

if TYPE_CHECKING:
    from torch import Tensor

SAME = 1e-3
"""Absolute and relative; samples that got mixed up differ by far more."""


def batches_of(
    mirror: Mirror, data: Data, size: int, tensors: Collection[str] = ()
) -> Iterator[tuple[Samples, IntArray]]:
    """Yield batches of `size` samples with their labels, or of the size that the model fixes.

    Where one of the `tensors` that are looked at has its samples in another place than first, as
    tokens of many samples one under another, a batch is one sample.

    Many models that fix the batch in name compute any size, so two samples are tried first. Where
    the size is fixed indeed, the last batch is filled with copies, which have no labels.
    Shapes: samples `[b, ...]`, labels `[l]` or maps `[l, H, W]`, `l` at most `b`.
    """
    one_by_one = any(head.alone for head in data.heads)
    if one_by_one or (isinstance(data.x, Inputs) and data.x.apart):
        yield from track("looking at samples", data.batches(1), len(data))
        return
    fixed = fixed_batch(mirror, data.x)
    shape = mirror.graph.shape(mirror.graph.inputs[0])
    first = shape[0] if shape else 1
    if any((mirror.graph.shape(name) or (first,))[0] != first for name in tensors):
        size = 1
    size = fixed or size
    for x, y in track("looking at samples", data.batches(size), -(-len(data) // size)):
        filled = np.minimum(np.arange(max(fixed, len(x))), len(x) - 1)
        yield x[filled] if len(x) < fixed else x, y


def by_filter(x: Tensor, axis: int, samples: int) -> Tensor:
    """Return the values of each filter, of which `axis` is the one of a batch's tensor.

    Shapes: x `[samples, filters, *]`, in any order if there is one sample -> `[samples, filters,
    positions]`.
    """
    values = x.movedim(axis, -1)
    return values.reshape(samples, -1, values.shape[-1]).mT


def fixed_batch(mirror: Mirror, x: Samples) -> int:
    """Return the batch size that the model fixes, 0 where it computes any.

    Shapes: x `[n, ...]`, two of which are tried.
    """
    first = mirror.graph.inputs[0]
    shape, dynamic = mirror.graph.shape(first), mirror.graph.dynamic(first)
    fixed = shape[0] if shape and dynamic and not dynamic[0] else 0
    return 0 if fixed and len(x) > 1 and _takes_any_size(mirror, x[:2]) else fixed


def _takes_any_size(mirror: Mirror, x: Samples) -> bool:
    """Whether two samples computed together come out as they do one by one."""
    try:
        with torch.no_grad():
            both = mirror(x)
            single = torch.cat([mirror(x[k : k + 1]) for k in range(2)])
    except InvalidModel:
        return False
    return both.shape == single.shape and bool(torch.allclose(both, single, SAME, SAME))
