"""What the layers of the unpruned net read and write on the reference samples.

It is kept from one correction to the next, so it has a limit: positions of maps are given up first,
then samples. What does not fit into the memory that the user allows goes into temporary files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.compensate.activated import fits, positions_of, sample
from onnxprune.compensate.methods import FOLDS, JUDGES, ROUGH
from onnxprune.compensate.readers import WIDE, Reader
from onnxprune.compensate.reference import OnReference, Reference
from onnxprune.data import part_of
from onnxprune.engine import Portable, once
from onnxprune.ops._torch import torch
from onnxprune.relevance import Batch, Mirror, on_disk

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Samples

logger = logging.getLogger(__name__)

HELD_BYTES = 512 * 2**20
"""How much of the unpruned net's activations is kept at most."""
LIVE_BYTES = 2**30
"""How much the activations of all samples may take at most while a pruned net runs."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over samples of the mean and the mean square over positions, for each output channel.

    Shapes: total, squares `[o]`.
    """

    count: int
    total: FloatArray
    squares: FloatArray

    @classmethod
    def of(cls, reader: Reader, y: Tensor) -> Sums:
        """Return the sums of one batch. Shapes: y `[N, o, *]`."""
        mean = reader.mean(y)
        variance = reader.mean_square(y - reader.along(mean, y))
        total, squares = len(y) * mean, len(y) * (variance + mean**2)
        return cls(len(y), total.cpu().numpy(), squares.cpu().numpy())

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def moments(self) -> tuple[FloatArray, FloatArray]:
        """Return the mean and the variance. Shapes: both `[o]`."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean**2).clip(min=0)


@dataclass(frozen=True)
class Seen:
    """What the unpruned net read and wrote on a batch: rows and sums of each reader, by its key.

    `made` are outputs, at some positions, of those that can be fitted through their activation.
    Shapes: rows each `[C, M]`, made `[N, o, *]`.
    """

    rows: Mapping[str, Tensor]
    sums: Mapping[str, Sums]
    made: Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Observed(Portable):
    """What the unpruned net reads and writes, kept where it was seen first.

    `wide` is the width at which maps are read. What is `crowded` lies in temporary files. Where
    layers are fitted through activations, their outputs are kept at some `positions` of each map.
    """

    reference: Reference
    wide: int
    crowded: bool
    positions: int = 0

    @once
    def _seen(self) -> dict[int, Seen]:
        return {}

    def keep(self, tensor: Tensor) -> Tensor:
        """Put a tensor where it is kept. Shapes: any."""
        return on_disk(tensor) if self.crowded else tensor

    def see(self, number: int, x: Samples, mirror: Callable[[], Mirror]) -> Seen:
        """Return what there is to see on a batch; `mirror` makes that of the unpruned net.

        Shapes: x `[N, ...]`.
        """
        if number not in self._seen:
            rows: dict[str, Tensor] = {}
            sums: dict[str, Sums] = {}
            made: dict[str, Tensor] = {}
            unpruned = mirror()

            def note(reader: Reader, given: Tensor, y: Tensor) -> None:
                rows[reader.key] = self.keep(reader.rows(given, wide=self.wide))
                sums[reader.key] = Sums.of(reader, y)
                if self.positions and fits(reader, unpruned):
                    made[reader.key] = self.keep(sample(y, self.positions).clone())

            with torch.no_grad():
                self.reference.watch(unpruned, x, note)
            self._seen[number] = Seen(rows, sums, made)
        return self._seen[number]


@dataclass(frozen=True, eq=False)
class Look(OnReference):
    """Looks at the batches, by their numbers, so that a correction needs no unpruned net."""

    observed: Observed

    @property
    def keeps(self) -> bool:
        """What the unpruned net gave is where it was looked at."""
        return True

    def run(self, shard: tuple[int, Batch]) -> None:
        """See a batch."""
        number, batch = shard
        self.observed.see(number, batch.of(self.samples)[0], lambda: self.mirror)


class Part(NamedTuple):
    """A batch of samples of one fold; the `first` ones are enough for a rough correction.

    Folds from `JUDGES` on are those of samples that judge.
    """

    fold: int
    first: bool
    batch: Batch

    def within(self, without: int | None) -> bool:
        """Whether it is left out: of a fold, or one that judges where that is `JUDGES`."""
        if without == JUDGES:
            return self.fold >= JUDGES
        return without is not None and self.fold % FOLDS == without


def observe(
    reference: Reference, folds: IntArray, *, activated: bool = False
) -> tuple[Observed, list[Part]]:
    """Return what is observed, in batches. Shapes: folds `[n]`."""
    with torch.no_grad():
        mirror = reference.mirror()
        positions = positions_of(len(reference.data)) if activated else 0
        every, wide, needed = _affordable(reference, mirror, positions)
        too_much = reference.allowed is not None and needed > reference.allowed
        crowded = too_much and mirror.device.type == "cpu"
        observed = Observed(reference, wide, crowded, positions)
        return observed, list(_batches(reference, mirror, folds, every))


def _batches(reference: Reference, mirror: Mirror, folds: IntArray, every: int) -> Iterator[Part]:
    """Yield one sample in `every` of each fold and class, in batches of one fold each."""
    y = reference.data.y
    apart = max(len(folds) // every // ROUGH, 1)
    for fold in np.unique(folds).tolist():
        own = np.flatnonzero(folds == fold)
        first = own[part_of(y[own], every * apart)]
        others = np.setdiff1d(own[part_of(y[own], every)], first)
        for rows, is_first in ((first, True), (others, False)):
            for batch in reference.cut(mirror, rows) if rows.size else ():
                yield Part(fold, is_first, batch)


def _affordable(reference: Reference, mirror: Mirror, positions: int) -> tuple[int, int, int]:
    """Return which samples to run (one in how many), the width of maps, and the bytes of both."""
    held = dict.fromkeys((WIDE, WIDE // 2, WIDE // 4), 0)

    def note(reader: Reader, given: Tensor, y: Tensor) -> None:
        made = sample(y, positions).nbytes if positions and fits(reader, mirror) else 0
        for wide in held:
            held[wide] += reader.rows(given, wide=wide).nbytes + made

    (batch,) = reference.cut(mirror, np.arange(1), 1)
    probe, _ = batch.of(reference.data)
    live = reference.watch(mirror, probe, note)
    count = -(-len(reference.data) // len(probe))
    wide = next((w for w in held if held[w] * count <= HELD_BYTES), min(held))
    fit = min(HELD_BYTES // max(held[wide], 1), LIVE_BYTES // max(live, 1))
    every = -(-count // max(fit, 1))
    if every > 1:
        logger.info("least squares on one sample in %d, to save memory", every)
    return every, wide, (held[wide] + live) * -(-count // every)
