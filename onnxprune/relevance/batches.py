"""Samples in batches of a size that the model takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.data import Data, Inputs, Samples, read
from onnxprune.engine import Job
from onnxprune.errors import InvalidModel
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.progress import track
from onnxprune.relevance.memory import sample_bytes
from onnxprune.relevance.mirror import Mirror, choose_device

if TYPE_CHECKING:
    from torch import Tensor

LOOKING = "looking at samples"
"""What progress says."""
MOST = 4096
"""Shards; so many keep 512 workers busy, and a part of each fits through one machine."""
SAME = 1e-3
"""Absolute and relative; samples that got mixed up differ by far more."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The rows of samples that are computed together, and how many the model fixes, or 0.

    Shapes: rows `[l]`.
    """

    rows: IntArray
    fixed: int = 0

    def of(self, data: Data) -> tuple[Samples, IntArray]:
        """Return the samples, filled with copies to what is fixed, and the labels of all but these.

        Shapes: samples `[b, ...]`, labels `[l]` or maps `[l, H, W]`, `l` at most `b`.
        """
        x, y = read(data.x[self.rows]), data.y[self.rows]
        filled = np.minimum(np.arange(max(self.fixed, len(x))), len(x) - 1)
        return x[filled] if len(x) < self.fixed else x, y


def cut(
    mirror: Mirror,
    data: Data,
    size: int,
    tensors: Collection[str] = (),
    rows: IntArray | None = None,
) -> list[Batch]:
    """Cut samples, or some of their rows, into batches of `size`, or of what the model fixes.

    Where one of the `tensors` that are looked at has its samples in another place than first, as
    tokens of many samples one under another, a batch is one sample.

    Many models that fix the batch in name compute any size, so two samples are tried first. Where
    the size is fixed indeed, the last batch is filled with copies, which have no labels.
    Shapes: rows `[m]`.
    """
    fixed = 0
    if any(h.alone for h in data.heads) or (isinstance(data.x, Inputs) and data.x.apart):
        size = 1
    else:
        fixed = fixed_batch(mirror, data.x)
        shape = mirror.graph.shape(mirror.graph.inputs[0])
        first = shape[0] if shape else 1
        if any((mirror.graph.shape(name) or (first,))[0] != first for name in tensors):
            size = 1
        size = fixed or size
    rows = np.arange(len(data)) if rows is None else rows
    return [Batch(rows[k : k + size], fixed) for k in range(0, len(rows), size)]


class OnSamples(Job):
    """A job whose shards hold batches of samples, which are read ahead where they are streamed."""

    @property
    def samples(self) -> Data:
        """What the batches are rows of."""
        found: Data = self.data  # type: ignore[attr-defined]
        return found

    @property
    def computed(self) -> tuple[Graph, int, str]:
        """The graph whose tensors take the most memory, the size of a batch, and the device."""
        job: Any = self
        return job.graph, job.batch_size, job.device

    @property
    def taken(self) -> int | None:
        """How many bytes a batch takes; None on a card, which computes one at a time."""
        graph, size, device = self.computed
        return sample_bytes(graph) * size if choose_device(device) == "cpu" else None

    def soon(self, shard: Any) -> None:
        """Begin to read the samples of all batches that a shard holds."""
        if isinstance(shard, Batch):
            self.samples.soon(shard.rows)
        elif isinstance(shard, tuple):
            for one in shard:
                self.soon(one)


def shards(batches: Sequence[Batch]) -> list[tuple[Batch, ...]]:
    """Return the batches in shards: one each, or more where there are very many."""
    size = -(-len(batches) // MOST)
    return [tuple(batches[k : k + size]) for k in range(0, len(batches), size)]


def batches_of(
    mirror: Mirror, data: Data, size: int, tensors: Collection[str] = ()
) -> Iterator[tuple[Samples, IntArray]]:
    """Yield the batches that `cut` finds, with their labels.

    Shapes: as `Batch.of`.
    """
    batches = cut(mirror, data, size, tensors)
    return (batch.of(data) for batch in track(LOOKING, batches, len(batches)))


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
