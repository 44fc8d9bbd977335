"""`--compensate least-squares`: fit the layers that lost input channels again, front to back.

One small linear map A predicts all input channels of a layer from the kept ones
(`onnxprune.compensate.ridge`), and the layer reads the prediction: `W x ~ (W A) x_k`. Here x is
what the layer read in the unpruned net, and `x_k` what the pruned net computes there, once all
layers before are corrected. `W A` replaces W at every kernel position. A map for each position of a
3 x 3 kernel would have nine times the unknowns; one map of channels needs only few samples. In a
product with a flattened map, all positions that belong to a channel are that channel.

A prediction varies less than what it predicts, so from layer to layer the signal would shrink
beside the biases. Therefore the outputs of a layer are scaled, all by one factor, to the variance
that they had in the unpruned net, and its bias moves so that each output has the mean it had.

A product without a bias input (MatMul) gets neither, and its regression is not centred.

Source: He et al. 2017 (channel pruning) and Luo et al. 2017 (ThiNet) reconstruct the output of the
next layer from the kept channels; here it is its input, once for each layer. Jordan et al. 2023
(REPAIR) restore the variance of averaged networks, filter by filter. Measured: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.compensate.observed import Observed, observe
from onnxprune.compensate.reference import Narrowed, Reference, Writer
from onnxprune.compensate.ridge import FOLDS, MAX_ROWS, choose_ridge, multiply
from onnxprune.ops._torch import torch
from onnxprune.relevance import Mirror, Tensors

LARGEST = 3.0
"""The largest factor: what keeps less than a ninth of its variance is mostly noise."""


@dataclass(frozen=True)
class Fit:
    """How least squares fits.

    `ridge` is the ridge of every layer; without one, each layer has its own, chosen by
    cross-validation. `variance` is the power of the factor that restores a variance: 1 restores all
    of it, 0 nothing.
    Units: ridge, share of the mean variance of the kept channels.
    """

    ridge: float | None = None
    variance: float = 1.0


class LeastSquares:
    """Corrects pruned models: see the module."""

    def __init__(self, reference: Reference, fit: Fit) -> None:
        self._reference = reference
        self._fit = fit

    @property
    def folds(self) -> IntArray:
        """The fold of each sample. Shapes: `[n]`."""
        return np.arange(len(self._reference.data)) % FOLDS

    def __call__(
        self, model: ModelProto, dead: BoolArray, *, without: int | None = None
    ) -> ModelProto:
        """Return the corrected model, fitted without the samples of a fold.

        Shapes: dead `[channels]`.
        """
        narrowed = {one.reader.key: one for one in self._reference.narrowed(dead)}
        observed = self._observed.without(without)
        if not narrowed or not observed.batches:
            return model
        with torch.no_grad():
            mirror = self._reference.mirror(model)
            envs = [mirror.start(x) for x in observed.batches]
            correction = _Correction(self._reference, observed, mirror, Writer(mirror.graph), envs)
            for step in mirror.walk(*envs):
                one = narrowed.pop(step.node.outputs[0], None)
                fitted = one is not None and correction.fit(one, self._fit.ridge)
                for env in envs:
                    mirror.execute(step, env)
                    made = [name for name in step.node.outputs if name in env]
                    env.update({name: observed.keep(env[name]) for name in made})
                if one is not None and one.reader.bias is not None:
                    correction.restore(one, self._fit.variance if fitted else 0.0)
                if not narrowed:
                    break
        return correction.writer.model

    @cached_property
    def _observed(self) -> Observed:
        return observe(self._reference, self.folds)


@dataclass(frozen=True)
class _Correction:
    """A pruned net while it is corrected; `envs` are its tensors, one for each batch."""

    reference: Reference
    observed: Observed
    mirror: Mirror
    writer: Writer
    envs: Sequence[Tensors]

    def fit(self, one: Narrowed, ridge: float | None) -> bool:
        """Fit the weight of a layer to what it read in the unpruned net.

        Returns False where the layer is too large, and keeps its weight.
        """
        reader = one.reader
        rows = self.observed.rows[reader.key]
        if len(rows[0]) > MAX_ROWS:
            return False
        inputs = [env[reader.node.inputs[0]] for env in self.envs]
        products = multiply(
            rows,
            [reader.rows(x, one.read, wide=self.observed.wide) for x in inputs],
            reader.channels(one.read),
            self.observed.folds,
            centre=reader.bias is not None,
        )
        whole = self.reference.graph.constant(reader.weight)
        weight = torch.from_numpy(np.compress(one.written, whole, reader.axes.weight_out))
        weight = weight.to(products.gram.device)
        if ridge is None:
            ridge = choose_ridge(products, reader.by_channel(weight))
        channel_map = products.solve(ridge).to(weight.dtype)
        fitted = reader.remap(weight, channel_map, one.read).contiguous()
        self.mirror.constants[reader.weight] = fitted.to(self.mirror.dtype)
        self.writer.constants.set(reader.weight, fitted.cpu().numpy())
        return True

    def restore(self, one: Narrowed, power: float) -> None:
        """Give the outputs of a layer the means and, together, the variance of the unpruned net.

        The factor that restores the variance is raised to `power`; with 0 only the means change.
        """
        reader = one.reader
        outputs = [env[reader.key] for env in self.envs]
        count = sum(map(len, outputs))
        mean, variance = (values[one.written] for values in self.observed.moments(reader))
        now = reduce(add, (len(y) * reader.mean(y) for y in outputs)) / count
        for y in outputs:
            y.sub_(reader.along(now, y))
        spread = reduce(add, (len(y) * reader.mean_square(y) for y in outputs)) / count
        factor = _factor(float(variance.sum()), float(spread.sum())) ** power
        for y in outputs:
            y.mul_(factor).add_(reader.along(mean, y))
        if power:
            self.writer.scale(reader, factor)
        self.writer.move(reader, mean - factor * now, factor)


def _factor(wanted: float, found: float) -> float:
    """The factor that turns one variance into another, within limits."""
    if not (0.0 < found < np.inf and 0.0 < wanted < np.inf):
        return 1.0
    return float(np.clip(np.sqrt(wanted / found), 1 / LARGEST, LARGEST))
