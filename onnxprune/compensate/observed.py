"""What the layers of the unpruned net read and write on the reference samples.

It is kept from one correction to the next, so it has a limit: positions of maps are given up first,
then samples. What does not fit into the memory that the user allows goes into temporary files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.compensate.readers import WIDE, Reader
from onnxprune.compensate.reference import Reference
from onnxprune.ops._torch import torch
from onnxprune.relevance import Mirror, on_disk

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Samples

logger = logging.getLogger(__name__)

HELD_BYTES = 512 * 2**20
"""How much of the unpruned net's activations is kept at most."""
LIVE_BYTES = 2 * 2**30
"""How much the activations of all samples may take at most while a pruned net runs."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over samples of the mean and the mean square over positions, for each output channel.

    Shapes: total, squares `[o]`.
    """

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, reader: Reader, y: Tensor) -> Sums:
        """Return the sums of one batch. Shapes: y `[N, o, *]`."""
        mean = reader.mean(y)
        variance = reader.mean_square(y - reader.along(mean, y))
        return cls(len(y), len(y) * mean, len(y) * (variance + mean**2))

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance. Shapes: both `[o]`."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean**2).clamp(min=0)


@dataclass(frozen=True)
class Observed:
    """What the unpruned net read and wrote, in batches of samples of one fold each.

    `rows` and `outputs` hold the input and the sums of the output of each reader, by its key, for
    each batch. `wide` is the width at which maps are read, `keep` puts a tensor where it is kept.
    Shapes: batches each `[b, ...]`, rows each `[C, M]`.
    """

    batches: Sequence[Samples]
    folds: Sequence[int]
    wide: int
    keep: Callable[[Tensor], Tensor]
    rows: Mapping[str, Sequence[Tensor]]
    outputs: Mapping[str, Sequence[Sums]]

    def without(self, fold: int | None) -> Observed:
        """Return what is left without the samples of a fold."""
        if fold is None:
            return self
        chosen = [k for k, of in enumerate(self.folds) if of != fold]

        def some(values: Sequence[Any]) -> list[Any]:
            return [values[k] for k in chosen]

        return replace(
            self,
            batches=some(self.batches),
            folds=some(self.folds),
            rows={key: some(rows) for key, rows in self.rows.items()},
            outputs={key: some(sums) for key, sums in self.outputs.items()},
        )

    def moments(self, reader: Reader) -> tuple[Tensor, Tensor]:
        """Return the mean and the variance of each output channel. Shapes: both `[o]`."""
        return reduce(add, self.outputs[reader.key]).moments()


def observe(reference: Reference, folds: IntArray) -> Observed:
    """Run the unpruned net on the reference samples. Shapes: folds `[n]`."""
    rows: dict[str, list[Tensor]] = {}
    outputs: dict[str, list[Sums]] = {}
    with torch.no_grad():
        mirror = reference.mirror()
        every, wide, needed = _affordable(reference, mirror)
        crowded = reference.allowed is not None and needed > reference.allowed
        keep = on_disk if crowded and mirror.device.type == "cpu" else _as_it_is

        def note(reader: Reader, given: Tensor, made: Tensor) -> None:
            rows.setdefault(reader.key, []).append(keep(reader.rows(given, wide=wide)))
            outputs.setdefault(reader.key, []).append(Sums.of(reader, made))

        batches = list(_batches(reference, mirror, folds, every))
        for _, x in batches:
            reference.watch(mirror, x, note)
    return Observed([x for _, x in batches], [k for k, _ in batches], wide, keep, rows, outputs)


def _batches(
    reference: Reference, mirror: Mirror, folds: IntArray, every: int
) -> Iterator[tuple[int, Samples]]:
    """Yield one sample in `every`, in batches of one fold each, with the fold."""
    for fold in np.unique(folds).tolist():
        for x in reference.batches(mirror, np.flatnonzero(folds == fold)[::every]):
            yield fold, x


def _affordable(reference: Reference, mirror: Mirror) -> tuple[int, int, int]:
    """Return which samples to run (one in how many), the width of maps, and the bytes of both."""
    held = dict.fromkeys((WIDE, WIDE // 2, WIDE // 4), 0)

    def note(reader: Reader, given: Tensor, _: Tensor) -> None:
        for wide in held:
            held[wide] += reader.rows(given, wide=wide).nbytes

    (probe,) = reference.batches(mirror, slice(1), 1)
    live = reference.watch(mirror, probe, note)
    count = -(-len(reference.data) // len(probe))
    wide = next((w for w in held if held[w] * count <= HELD_BYTES), min(held))
    fit = min(HELD_BYTES // max(held[wide], 1), LIVE_BYTES // max(live, 1))
    every = -(-count // max(fit, 1))
    if every > 1:
        logger.info("least squares on one sample in %d, to save memory", every)
    return every, wide, (held[wide] + live) * -(-count // every)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor
