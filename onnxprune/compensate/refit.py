"""The pruned net on one batch, while least squares corrects it layer by layer.

A layer takes four rounds with all batches: the sums of rows, their products around the mean, the
means of the outputs with the fitted weight, and their squares around the new mean. Those of
`onnxprune.compensate.activated` follow.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.compensate.activated import is_small, laid_out, look
from onnxprune.compensate.observed import Observed, Seen, Sums
from onnxprune.compensate.reference import Narrowed
from onnxprune.compensate.ridge import INPUTS, MAX_ROWS, multiply
from onnxprune.engine import once
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance import Batch, Mirror, OnSamples, Step, Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from onnxprune.data import Data

MAX_BYTES = 2**30
"""A layer with a larger weight keeps it: a fit holds three of them beside those of the models."""

Rounds = Generator[Any, Any, None]


@dataclass(frozen=True)
class RowSums:
    """The sums of what a layer reads, in the unpruned net and now, over `count` columns.

    Both are None where the layer is too large to be fitted.
    Shapes: full `[C, 1]`, kept `[K, 1]`.
    """

    key: str
    count: int = 0
    full: npt.NDArray[Any] | None = None
    kept: npt.NDArray[Any] | None = None


@dataclass(frozen=True)
class Totals:
    """The sum over `count` samples of the means of the outputs, and what it was before.

    Shapes: total `[o]`.
    """

    count: int
    total: FloatArray
    before: Sums


@dataclass(frozen=True, eq=False)
class Refit(OnSamples):
    """A pruned net, run on the batches in step; layers are fitted through activations if asked.

    Shapes: dead `[channels]`.
    """

    observed: Observed
    graph: Graph
    dead: BoolArray
    activated: bool

    @once
    def _mirror(self) -> Mirror:
        return self.observed.reference.mirror(self.graph)

    @once
    def _unpruned(self) -> Mirror:
        return self.observed.reference.mirror()

    @once
    def _narrowed(self) -> dict[str, Narrowed]:
        narrowed = self.observed.reference.narrowed(self.dead)
        return {one.reader.key: one for one in narrowed}

    @property
    def samples(self) -> Data:
        """What the batches are rows of."""
        return self.observed.reference.data

    @property
    def computed(self) -> tuple[Graph, int, str]:
        """The unpruned graph, the size of a batch, and the device."""
        return self.observed.reference.computed

    @property
    def keeps(self) -> bool:
        """What the unpruned net gave is where it was looked at."""
        return True

    def run(self, shard: tuple[int, Batch]) -> Rounds:
        """Run a batch, by its number; the last part is None."""
        rounds: Rounds = torch.no_grad()(self._rounds)(*shard)
        return rounds

    def _rounds(self, number: int, batch: Batch) -> Rounds:
        x, _ = batch.of(self.observed.reference.data)
        seen = self.observed.see(number, x, lambda: self._unpruned)
        left, env = dict(self._narrowed), self._mirror.start(x)
        for step in self._mirror.walk(env):
            one = left.pop(step.node.outputs[0], None)
            if one is not None:
                yield from self._fit(one, env, seen)
            self._mirror.execute(step, env)
            made = [name for name in step.node.outputs if name in env]
            env.update({name: self.observed.keep(env[name]) for name in made})
            if one is not None and one.reader.bias is not None:
                yield from self._restore(one, env[one.reader.key], seen)
                yield from self._look(one, step, env, seen)
            if not left:
                break
        yield None

    def _fit(self, one: Narrowed, env: Tensors, seen: Seen) -> Rounds:
        """Hand out what a fit needs and take its weight; None leaves the weight as it is."""
        reader = one.reader
        full = seen.rows[reader.key]
        part: Any = RowSums(reader.key)
        held = self._mirror.constants[reader.weight].nbytes
        if len(full) <= MAX_ROWS and held <= MAX_BYTES:
            kept = reader.rows(env[reader.node.inputs[0]], one.read, wide=self.observed.wide)
            sums = (rows.sum(1, keepdim=True).cpu().numpy() for rows in (full, kept))
            *means, form = yield RowSums(reader.key, kept.shape[1], *sums)
            part = multiply(
                full,
                kept,
                reader.channels(one.read),
                [torch.tensor(mean).to(kept) for mean in means],
                form,
                None if form == INPUTS else self._weight(one),
            )
        weight = yield part
        if weight is not None:
            fitted = torch.tensor(weight).to(self._mirror.device, self._mirror.dtype)
            self._mirror.constants[reader.weight] = fitted

    def _look(self, one: Narrowed, step: Step, env: Tensors, seen: Seen) -> Rounds:
        """Fit a layer through its activation, and add to its outputs what that changes."""
        reader, wanted = one.reader, seen.made.get(one.reader.key)
        weight = self._mirror.constants[reader.weight]
        if not self.activated or wanted is None or not is_small(reader, weight):
            return
        x, y, positions = env[reader.node.inputs[0]], env[reader.key], self.observed.positions
        written = torch.from_numpy(np.flatnonzero(one.written)).to(y.device)
        change = yield from look(reader, self._mirror, x, y, wanted[:, written], positions)
        if change is not None:
            added = torch.from_numpy(laid_out(change.weight, reader, weight.shape)).to(weight)
            y.add_(step.op(step.node, [x, added])[0])
            y.add_(reader.along(torch.from_numpy(change.bias).to(y.device), y))

    def _weight(self, one: Narrowed) -> Tensor:
        """The unpruned weight W' of a layer. Shapes: -> `[C, o * positions]`."""
        return one.reader.by_channel(one.weight(self.observed.reference.graph))

    def _restore(self, one: Narrowed, y: Tensor, seen: Seen) -> Rounds:
        """Hand out the moments of the outputs, and give them those of the unpruned net."""
        reader = one.reader
        total = (len(y) * reader.mean(y)).cpu().numpy()
        now = yield Totals(len(y), total, seen.sums[reader.key])
        y.sub_(reader.along(torch.tensor(now).to(y.device), y))
        factor, mean = yield (len(y) * reader.mean_square(y)).cpu().numpy()
        y.mul_(factor).add_(reader.along(torch.tensor(mean).to(y.device), y))
