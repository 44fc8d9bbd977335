"""`--compensate least-squares`: re-fits, front to back, the layers that lost input channels.

All channels of a layer's input are predicted from the kept ones by one small linear map A
(`onnxprune.compensate.ridge`), and the layer reads the prediction: `W x ~ (W A) x_k`. x is what the
layer read in the unpruned net, `x_k` what the pruned net really produces there, its layers before
already corrected. `W A` replaces W at every kernel position. One map per layer, of channels only,
is what makes few samples enough: a map per kernel position would have nine times the unknowns. A
product with a flattened map is the same, a channel being all the rows that it was flattened to.

A prediction varies less than what it predicts, and from layer to layer less and less of the signal
would be left beside the biases. So the outputs of a layer are scaled, all by one factor, to the
variance that they had in the unpruned net, and its bias moves so that each has the mean it had.

A product without a bias input (MatMul) gets neither: its regression is not centred.

Source: He et al. 2017 (channel pruning) and Luo et al. 2017 (ThiNet) reconstruct the output of the
next layer from the kept channels; here it is its input, once per layer. Jordan et al. 2023 (REPAIR)
restore the variance of averaged networks, filter by filter. Measured: docs/method.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.compensate.readers import WIDE, Reader
from onnxprune.compensate.reference import Narrowed, Reference, Writer
from onnxprune.compensate.ridge import FOLDS, MAX_ROWS, choose_ridge, multiply
from onnxprune.ops._torch import torch
from onnxprune.relevance import Mirror, Tensors, on_disk

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

HELD_BYTES = 512 * 2**20
"""How much of the unpruned net's activations is kept from one call to the next, at most."""
LIVE_BYTES = 2 * 2**30
"""How much the pruned net's activations may take at most, of all samples at once."""
LARGEST = 3.0
"""Factor; what keeps less than a ninth of its variance says too little to be made louder."""


@dataclass(frozen=True, eq=False)
class _Sums:
    """Over samples, of each output channel's means over positions. Shapes: total, squares `[o]`."""

    count: int
    total: Tensor
    squares: Tensor

    @classmethod
    def of(cls, reader: Reader, y: Tensor) -> _Sums:
        mean = reader.mean(y)
        variance = reader.mean_square(y - reader.along(mean, y))
        return cls(len(y), len(y) * mean, len(y) * (variance + mean**2))

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(
            self.count + other.count, self.total + other.total, self.squares + other.squares
        )

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance. Shapes: both `[o]`."""
        mean = self.total / self.count
        return mean, (self.squares / self.count - mean**2).clamp(min=0)


@dataclass(frozen=True)
class _Observed:
    """What the unpruned net does on batches of samples, each of one fold.

    `keep` is what holds a tensor for later, in memory or in a file.
    Shapes: of each reader and batch, its inputs `rows` `[C, M]` and the sums of its outputs.
    """

    batches: Sequence[npt.NDArray[Any]]
    folds: Sequence[int]
    wide: int
    keep: Callable[[Tensor], Tensor]
    rows: Mapping[str, Sequence[Tensor]]
    outputs: Mapping[str, Sequence[_Sums]]

    def without(self, fold: int | None) -> _Observed:
        """Return what is left without the samples of a fold."""
        if fold is None:
            return self
        chosen = [k for k, of in enumerate(self.folds) if of != fold]

        def some(values: Sequence[Any]) -> list[Any]:
            return [values[k] for k in chosen]

        return _Observed(
            some(self.batches),
            some(self.folds),
            self.wide,
            self.keep,
            {key: some(rows) for key, rows in self.rows.items()},
            {key: some(sums) for key, sums in self.outputs.items()},
        )


class LeastSquares:
    """Corrects pruned models: see the module. `ridge` None chooses one for each layer.

    Factors that restore a variance are raised to the power `variance`. What is kept of all samples
    lies in a file where it takes more than `allowed` bytes.
    """

    def __init__(
        self,
        reference: Reference,
        ridge: float | None = None,
        variance: float = 1.0,
        allowed: int | None = None,
    ) -> None:
        self._reference = reference
        self._ridge = ridge
        self._variance = variance
        self._allowed = allowed

    @property
    def folds(self) -> IntArray:
        """The fold of each sample. Shapes: `[n]`."""
        return np.arange(len(self._reference.data)) % FOLDS

    def __call__(
        self, model: ModelProto, dead: BoolArray, *, without: int | None = None
    ) -> ModelProto:
        """Return the corrected model, fitted without the samples of a fold."""
        losing = {one.reader.key: one for one in self._reference.narrowed(dead)}
        observed = self._observed.without(without)
        if not losing or not observed.batches:
            return model
        with torch.no_grad():
            mirror = self._reference.mirror(model)
            writer = Writer(mirror.graph)
            envs = [mirror.start(x) for x in observed.batches]
            for step in mirror.walk(*envs):
                one = losing.pop(step.node.outputs[0], None)
                refitted = one is not None and self._refit(mirror, envs, one, observed, writer)
                for env in envs:
                    mirror.execute(step, env)
                    env |= {
                        name: observed.keep(env[name]) for name in step.node.outputs if name in env
                    }
                if one is not None and one.reader.bias is not None:
                    power = self._variance if refitted else 0.0
                    _restore(envs, one, observed, writer, power)
                if not losing:
                    break
        return writer.model

    def _refit(
        self,
        mirror: Mirror,
        envs: Sequence[Tensors],
        one: Narrowed,
        observed: _Observed,
        writer: Writer,
    ) -> bool:
        """Give a reader the weights that read the kept channels as it read all of them.

        Whether it could.
        """
        reader = one.reader
        rows = observed.rows[reader.key]
        if len(rows[0]) > MAX_ROWS:
            return False
        products = multiply(
            rows,
            [reader.rows(env[reader.node.inputs[0]], one.read, wide=observed.wide) for env in envs],
            reader.channels(one.read),
            observed.folds,
            centre=reader.bias is not None,
        )
        weight = self._reference.graph.constant(reader.weight)
        held = torch.from_numpy(np.compress(one.written, weight, reader.axes.weight_out))
        held = held.to(products.gram.device)
        ridge = self._ridge
        if ridge is None:
            ridge = choose_ridge(products, reader.by_channel(held))
        channel_map = products.solve(ridge)
        changed = reader.remap(held, channel_map.to(held.dtype), one.read).contiguous()
        mirror.constants[reader.weight] = changed.to(mirror.dtype)
        writer.constants.set(reader.weight, changed.cpu().numpy())
        return True

    @cached_property
    def _observed(self) -> _Observed:
        reference = self._reference
        rows: dict[str, list[Tensor]] = {}
        outputs: dict[str, list[_Sums]] = {}
        with torch.no_grad():
            mirror = reference.mirror()
            every, wide, needed = self._affordable(mirror)
            crowded = self._allowed is not None and needed > self._allowed
            keep = on_disk if crowded and mirror.device.type == "cpu" else _as_it_is

            def note(reader: Reader, given: Tensor, made: Tensor) -> None:
                rows.setdefault(reader.key, []).append(keep(reader.rows(given, wide=wide)))
                outputs.setdefault(reader.key, []).append(_Sums.of(reader, made))

            batches = list(self._batches(mirror, every))
            for _, x in batches:
                reference.watch(mirror, x, note)
        inputs, folds = [x for _, x in batches], [k for k, _ in batches]
        return _Observed(inputs, folds, wide, keep, rows, outputs)

    def _batches(self, mirror: Mirror, every: int) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        """Yield one sample in `every`, in batches of one fold each."""
        for fold in np.unique(self.folds).tolist():
            chosen = np.flatnonzero(self.folds == fold)[::every]
            for x in self._reference.batches(mirror, chosen):
                yield fold, x

    def _affordable(self, mirror: Mirror) -> tuple[int, int, int]:
        """Return the stride over samples, the width of maps, and how many bytes they come to.

        Positions are given up first.
        """
        reference, held = self._reference, dict.fromkeys((WIDE, WIDE // 2, WIDE // 4), 0)

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


def _restore(
    envs: Sequence[Tensors], one: Narrowed, observed: _Observed, writer: Writer, power: float
) -> None:
    """Give a reader's outputs the means of the unpruned net, and all together its variance.

    The factor that does that is raised to a power.
    """
    reader = one.reader
    outputs = [env[reader.key] for env in envs]
    count = sum(map(len, outputs))
    was = [values[one.written] for values in reduce(add, observed.outputs[reader.key]).moments()]
    mean = reduce(add, (len(y) * reader.mean(y) for y in outputs)) / count
    for y in outputs:
        y.sub_(reader.along(mean, y))
    variance = reduce(add, (len(y) * reader.mean_square(y) for y in outputs)) / count
    factor = _factor(float(was[1].sum()), float(variance.sum())) ** power
    for y in outputs:
        y.mul_(factor).add_(reader.along(was[0], y))
    if power:
        writer.scale(reader, factor)
    writer.move(reader, was[0] - factor * mean, factor)


def _factor(was: float, now: float) -> float:
    """What brings a variance back, within limits."""
    if not (0.0 < now < np.inf and 0.0 < was < np.inf):
        return 1.0
    return float(np.clip(np.sqrt(was / now), 1 / LARGEST, LARGEST))
