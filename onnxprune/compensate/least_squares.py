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

In the end a layer is fitted again, kernel and all, to what the activation behind it lets through
(`onnxprune.compensate.activated`).

Source: He et al. 2017 (channel pruning) and Luo et al. 2017 (ThiNet) reconstruct the output of the
next layer from the kept channels; here it is its input, once for each layer. Jordan et al. 2023
(REPAIR) restore the variance of averaged networks, filter by filter. Measured: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.compensate.activated import Change, Start, laid_out, refine
from onnxprune.compensate.methods import FOLDS
from onnxprune.compensate.observed import Look, Observed, Part, observe
from onnxprune.compensate.readers import Reader
from onnxprune.compensate.reference import Narrowed, Reference, Writer
from onnxprune.compensate.refit import Refit, RowSums
from onnxprune.compensate.ridge import choose_ridge, form_of, gather, mean_of
from onnxprune.engine import Talk, each, talk
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

Edit = Callable[[Writer], None]
"""What is done to the copy of a pruned net."""

LARGEST = 3.0
"""The largest factor: what keeps less than a ninth of its variance is mostly noise."""


@dataclass(frozen=True)
class Fit:
    """How least squares fits.

    `ridge` is the ridge of every layer; without one, each layer has its own, the `ridge_share` of
    what cross-validation chooses. Noise that a small ridge lets in averages out in the layers
    behind; a signal that a large one shrinks does not come back. `variance` is the power of the
    factor that restores a variance: 1 restores all of it, 0 nothing. `checks` is how many folds
    ridges are held against, all by default. `rounds` is how often, at most, a layer is fitted again
    through the activation behind it.
    Units: ridge, share of the mean variance of the kept channels.
    """

    ridge: float | None = None
    ridge_share: float = 1.0
    variance: float = 1.0
    checks: int | None = None
    rounds: int = 0


class LeastSquares:
    """Corrects pruned models: see the module."""

    def __init__(self, reference: Reference, fit: Fit) -> None:
        self._reference = reference
        self._fit = fit
        self._looked = set[int]()

    @property
    def folds(self) -> IntArray:
        """The fold of each sample. Shapes: `[n]`."""
        given = self._reference.folds
        return np.arange(len(self._reference.data)) % FOLDS if given is None else given % FOLDS

    def __call__(
        self,
        model: ModelProto,
        dead: BoolArray,
        *,
        without: int | None = None,
        rough: bool = False,
    ) -> ModelProto:
        """Return the corrected model, fitted without the samples of a fold.

        A `rough` one is fitted to outputs alone. Of many samples it sees a part, and holds its
        ridges against one fold.
        Shapes: dead `[channels]`.
        """
        narrowed = {one.reader.key: one for one in self._reference.narrowed(dead)}
        observed, batches = self._observed
        chosen = [
            number
            for number, one in enumerate(batches)
            if not one.within(without) and (one.first or not rough)
        ]
        if not narrowed or not chosen:
            return model
        self._look(chosen)
        graph = Graph(model, input_shapes=self._reference.graph.input_shapes)
        correction = _Correction(
            self._reference, narrowed, [batches[k].fold % FOLDS for k in chosen]
        )
        how = replace(self._fit, rounds=0) if rough else self._fit
        if rough and not all(one.first for one in batches):
            how = replace(how, checks=1)
        shards = [(number, batches[number].batch) for number in chosen]
        with talk(Refit(observed, graph, dead, how.rounds > 0), shards) as batch_by_batch:
            correction.walk(batch_by_batch, how)
        del batch_by_batch  # a copy is made when no mirror is left: weights may be large
        return correction.written(graph)

    @cached_property
    def _observed(self) -> tuple[Observed, list[Part]]:
        given = self._reference.folds
        folds = self.folds if given is None else given
        return observe(self._reference, folds, activated=self._fit.rounds > 0)

    def _look(self, chosen: Sequence[int]) -> None:
        """Look at batches, by their numbers, unless they were looked at before."""
        observed, batches = self._observed
        new = [(number, batches[number].batch) for number in chosen if number not in self._looked]
        if new:
            list(each(Look(self._reference, observed), new))
        self._looked.update(chosen)


@dataclass(frozen=True)
class _Correction:
    """A pruned net while it is corrected, layer by layer; `folds` are those of its batches."""

    reference: Reference
    narrowed: Mapping[str, Narrowed]
    folds: Sequence[int]
    edits: list[Edit] = field(default_factory=list)

    def written(self, graph: Graph) -> ModelProto:
        """Return a copy of the pruned net, corrected."""
        writer = Writer(graph)
        for edit in self.edits:
            edit(writer)
        return writer.model

    def walk(self, batches: Talk, how: Fit) -> None:
        """Correct each layer that the batches come to, until they are through."""
        parts = list(batches.ask())
        while parts[0] is not None:
            one = self.narrowed[parts[0].key]
            answer: Any = None
            if parts[0].kept is not None:
                answer = self._fit(one, parts, batches, how)
            if one.reader.bias is not None:
                answer = self._restore(one, batches, answer, how.variance)
            parts = list(batches.ask(answer))
            if isinstance(parts[0], Start):
                change = self._refine(one, batches, parts, how.rounds)
                parts = list(batches.ask((change, True)))

    def _fit(
        self, one: Narrowed, sums: Sequence[RowSums], batches: Talk, how: Fit
    ) -> npt.NDArray[Any]:
        """Fit the weight of a layer to what it read in the unpruned net; return it."""
        reader, count = one.reader, sum(part.count for part in sums)
        centre = reader.bias is not None
        means = [
            mean_of([getattr(part, side) for part in sums], count, centre=centre)
            for side in ("full", "kept")
        ]
        device = self.reference.place
        alive = reader.channels(one.read)
        weight = one.weight(self.reference.graph).to(device)
        form = form_of(weight.numel() // len(alive), int(alive.sum()), count)
        parts = batches.ask((*means, form))
        products = gather(parts, alive, self.folds, device, form)
        ridge = how.ridge
        if ridge is None:
            chosen = choose_ridge(products, _by_channel(reader, weight), checks=how.checks)
            ridge = how.ridge_share * chosen
        mapping = products.mapping(ridge, weight.numel() // len(alive))
        fitted = reader.remap(weight, mapping, one.read).cpu().numpy()
        self.edits.append(lambda writer: writer.constants.set(reader.weight, fitted))
        return fitted

    def _refine(
        self, one: Narrowed, batches: Talk, starts: Sequence[Start], most: int
    ) -> Change | None:
        """Fit a layer through the activation behind it; return what is added."""
        change, reader = refine(batches, starts, most), one.reader
        if change is not None:

            def add(writer: Writer) -> None:
                weight = writer.constants.array(reader.weight)
                added = weight + laid_out(change.weight, reader, weight.shape)
                writer.constants.set(reader.weight, added.astype(weight.dtype))
                writer.move(reader, change.bias.astype(np.float64))

            self.edits.append(add)
        return change

    def _restore(
        self, one: Narrowed, batches: Talk, weight: npt.NDArray[Any] | None, power: float
    ) -> tuple[float, FloatArray]:
        """Give the outputs of a layer the means and, together, the variance of the unpruned net.

        The factor that restores the variance is raised to `power`; where the weight was not fitted
        only the means change. Returns the factor and the means.
        Shapes: means `[o]`.
        """
        totals = list(batches.ask(weight))
        count = sum(part.count for part in totals)
        before = reduce(add, (part.before for part in totals)).moments()
        mean, variance = (values[one.written] for values in before)
        now = reduce(add, (part.total for part in totals)) / count
        spread = reduce(add, batches.ask(now)) / count
        power = power if weight is not None else 0.0
        wanted, found = (float(torch.from_numpy(one).sum()) for one in (variance, spread))
        factor = _factor(wanted, found) ** power
        if power:
            self.edits.append(lambda writer: writer.scale(one.reader, factor))
        self.edits.append(lambda writer: writer.move(one.reader, mean - factor * now, factor))
        return factor, mean


def _by_channel(reader: Reader, weight: Tensor) -> Tensor:
    """Return the weights W' of each channel; of a large weight a square matrix with the same W'W.

    Shapes: `[o, C, *]` -> `[C, o * positions]` or `[C, C]`.
    """
    parts = reader.split(weight)
    if len(parts) == 1:
        return reader.by_channel(weight)
    pieces = (reader.by_channel(part).double() for part in parts)
    values, vectors = torch.linalg.eigh(reduce(add, (piece @ piece.T for piece in pieces)))
    square: Tensor = vectors * values.clamp(min=0).sqrt()
    return square


def _factor(wanted: float, found: float) -> float:
    """The factor that turns one variance into another, within limits."""
    if not (0.0 < found < np.inf and 0.0 < wanted < np.inf):
        return 1.0
    return float(np.clip(np.sqrt(wanted / found), 1 / LARGEST, LARGEST))
