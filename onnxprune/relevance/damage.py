"""What removing channels together does to the outputs, to second order.

Let z be the logits of the net as it is, p their probabilities and p0 those of the unpruned net. A
change Δz moves the divergence KL(p0 || p) by

    (p - p0)' Δz + 1/2 Δz' F Δz,        F = diag(p) - p p'

and without the channels S, Δz = -sum_{c in S} T_c, where T_c is the relevance of channel c for each
logit, with its sign. So the damage of a set is not the sum of the damages of its channels: what one
adds and another takes away can go together, and what speaks against the unpruned answer should go.
Relevance starts at the few directions of z that hold most of F and of p - p0, one walk back each.

Source: F is the Fisher information of the logits, as in Theis et al. 2018 (Faster gaze prediction
with dense networks and Fisher pruning), where channels go one by one. That sets are chosen by what
they do together, with relevance for the effect of a channel, is ours: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.channels import ChannelGroups
from onnxprune.data import IGNORED, Data
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.batches import batches_of
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import as_logits, by_class, explain
from onnxprune.relevance.mirror import Mirror, Trace
from onnxprune.relevance.routes import find_logits
from onnxprune.relevance.rules import Composite

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES, PER_CLASS = 100, 10
"""Of more samples than this, in all and of each class, a step looks at a part, and the next step at
another: what a step needs to know does not grow with them."""
OWN = 10.0
"""How many times a channel's own square counts: what few samples say of pairs is half noise."""


@dataclass(frozen=True, eq=False)
class Damage:
    """The damage of every set of channels: their `slope` summed, plus half the square of `effects`.

    Shapes: slope `[channels]`, effects `[channels, m]`. Units: nats, mean over samples.
    """

    slope: FloatArray
    effects: npt.NDArray[np.float32]

    def order(
        self,
        count: IntArray,
        free: Callable[[], BoolArray],
        take: Callable[[int], None],
        most: float,
    ) -> IntArray:
        """Return all channels: those that go one after another, then the others by what they do.

        Each time the one that adds least damage per filter to those before it, until `most` filters
        went. `free()` says which may still go, `take(c)` is told of each that does.
        Shapes: count (filters of each channel) and what `free` gives `[channels]` -> `[channels]`.
        """
        own = self.slope + 0.5 * OWN * (self.effects.astype(np.float64) ** 2).sum(1)
        together = np.zeros(self.effects.shape[1], np.float32)
        filters = np.maximum(count, 1)
        chosen: list[int] = []
        gone = 0.0
        while True:
            rise = (own + self.effects @ together) / filters
            may_go = free()
            if gone >= most or not may_go.any():
                rise[chosen] = -np.inf
                return np.concatenate([chosen, np.argsort(rise, kind="stable")[len(chosen) :]])
            best = int(np.where(may_go, rise, np.inf).argmin())
            together += self.effects[best]
            chosen.append(best)
            gone += filters[best]
            take(best)


@dataclass
class Meter:
    """Measures the damage that channels do to a net, against the outputs of the unpruned one."""

    unpruned: Graph
    data: Data
    composite: Composite
    device: str = "auto"
    batch_size: int = 32
    seed: int = 0

    def __call__(self, graph: Graph, groups: ChannelGroups) -> Damage:
        """Return the damage of the channels of a (pruned) graph.

        Of many samples a part is looked at; which one depends on how many channels are left.
        Raises: UnsupportedOp when LRP cannot cross it; DataError for labels it does not have.
        """
        mirror = folded(Mirror(graph, device=self.device))
        rng = np.random.default_rng(self.seed)
        turns, turn = _turn(self.data, len(groups))
        data = self.data.every(turns, turn)
        before = iter(self._before[turn::turns])
        effects, slope = [], np.zeros(len(groups))
        for x, y in batches_of(mirror, data, self.batch_size):
            unpruned = torch.stack(list(islice(before, len(y))))
            found, values = self._explain(mirror, groups, x, y, unpruned, rng)
            bent = torch.einsum("ncd,ndm->cnm", values, found.mix.cpu()).flatten(1)
            effects.append((bent / len(data) ** 0.5).float().numpy())
            slope -= torch.einsum("ncd,nd->c", values, found.weight.cpu()).numpy()
        return Damage(slope / len(data), np.concatenate(effects, 1))

    @cached_property
    def _before(self) -> Tensor:
        """The probabilities of all samples by the unpruned net."""
        mirror = Mirror(self.unpruned, device=self.device)
        logits = find_logits(mirror)
        with torch.no_grad():
            batches = batches_of(mirror, self.data, self.batch_size)
            found = [probabilities(mirror.trace(x)[logits][: len(y)], y) for x, y in batches]
        return torch.cat(found)

    def _explain(
        self,
        mirror: Mirror,
        groups: ChannelGroups,
        x: npt.NDArray[np.float32],
        y: IntArray,
        before: Tensor,
        rng: np.random.Generator,
    ) -> tuple[Directions, Tensor]:
        """The directions of a batch, and each channel's effect on them. Shapes: `[n, C, d]`."""
        found: list[Directions] = []

        def starts(logits: Tensor) -> list[Tensor]:
            found.append(find_directions(logits, y, before, rng))
            return found[0].starts

        tensors = {filters.output: filters.axis for filters in groups.filters}
        traces = explain(
            mirror,
            x,
            starts,
            self.composite,
            tensors,
            reduce=lambda name, r: r.movedim(tensors[name], 1).flatten(2).sum(2).double(),
        )
        values = [_by_channel(groups, trace, len(y)) for trace in traces]
        return found[0], torch.stack(values, 2)


def _turn(data: Data, left: int) -> tuple[int, int]:
    """How many parts samples have, and which of them a net with so many channels looks at."""
    turns = max(len(data) // max(SAMPLES, PER_CLASS * len(data.classes)), 1)
    return turns, left % turns


def _by_channel(groups: ChannelGroups, trace: Trace, samples: int) -> Tensor:
    """Sum the values of filters into their channels. Shapes: `[samples, channels]`."""
    total = torch.zeros((samples, len(groups)), dtype=torch.float64)
    for filters in groups.filters:
        if filters.output in trace:
            owned = np.flatnonzero(filters.channels >= 0)
            values = trace[filters.output][:samples].cpu()[:, owned]
            total.index_add_(1, torch.from_numpy(filters.channels[owned]), values)
    return total


DIRECTIONS = 2
"""For each sample; each costs a walk back. With ten classes a third gained nothing measurable."""


CLASSES = 32
"""Of each sample or pixel: those with the most probability, before or now."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Where relevance starts, and what is made of the effects T `[n, channels, d]` it finds.

    `T @ mix` are the effects whose squares are the curvature, `T @ weight` the slope.
    Shapes: starts d times as the logits, mix `[n, d, m]`, weight `[n, d]`.
    """

    starts: list[Tensor]
    mix: Tensor
    weight: Tensor


def probabilities(logits: Tensor, y: IntArray) -> Tensor:
    """Return the class probabilities; of a single logit, that of class 1.

    Shapes: as `by_class` takes them -> `[N, K]` or `[N, K, H, W]`.
    """
    z, _ = by_class(logits, torch.from_numpy(y))
    return z.double().sigmoid() if z.shape[1] == 1 else z.double().softmax(1)


def find_directions(
    logits: Tensor, y: IntArray, before: Tensor, rng: np.random.Generator
) -> Directions:
    """Return the directions of each sample; copies that fill a batch have none.

    Shapes: as `by_class` takes them; `before` as `probabilities` gives it, of the unpruned net.
    """
    now = probabilities(logits[: len(y)], y)
    vectors, curvature, slope = _basis(now.movedim(1, -1), before.movedim(1, -1))
    if y.ndim == 1:
        columns = vectors.unbind(-1)
        return Directions([_start(column, logits, y) for column in columns], curvature, slope)
    labels = by_class(logits[: len(y)], torch.from_numpy(y).to(logits.device))[1]
    pixels = (labels != IGNORED).double()[..., None, None]
    pixels /= pixels.sum((1, 2), keepdim=True).clamp(min=1)
    signs = rng.choice([-1.0, 1.0], (*labels.shape, 1, 1))
    bent = vectors @ curvature * pixels.sqrt() * torch.from_numpy(signs).to(logits.device)
    moved = (vectors @ slope[..., None]) * pixels
    columns = (*bent.unbind(-1)[1 - DIRECTIONS :], moved[..., 0])
    mix = torch.eye(len(columns), dtype=torch.float64, device=logits.device)
    mix, weight = mix[:, :-1], mix[:, -1]
    starts = [_start(column, logits, y) for column in columns]
    return Directions(starts, mix.expand(len(y), -1, -1), weight.expand(len(y), -1))


def _start(direction: Tensor, logits: Tensor, y: IntArray) -> Tensor:
    """The relevance `u_k z_k` of the logits. Shapes: direction `[n, ..., K]` -> as logits."""
    filled = direction.movedim(-1, 1).to(logits.dtype)
    missing = len(logits) - len(filled)
    if missing:
        filled = torch.cat([filled, torch.zeros_like(filled[:1]).repeat_interleave(missing, 0)])
    return as_logits(filled, logits, torch.from_numpy(y)) * logits


def _basis(p: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The directions V, a square root of V'FV, and V'g. Shapes: `[..., K]` -> `[..., K, d]`, ..."""
    classes = p.shape[-1]
    most = torch.topk(p + before, min(CLASSES, classes), -1).indices
    near, slope = p.gather(-1, most), (p - before).gather(-1, most)
    fisher = torch.diag_embed(near) - near[..., :, None] * near[..., None, :]
    if classes == 1:
        fisher = (near * (1 - near))[..., None]
    vectors = torch.linalg.eigh(fisher + slope[..., :, None] * slope[..., None, :]).eigenvectors
    vectors = vectors[..., -min(DIRECTIONS, max(classes - 1, 1)) :]  # F and g have no constant part
    values, turned = torch.linalg.eigh(vectors.mT @ fisher @ vectors)
    whole = torch.zeros((*p.shape, vectors.shape[-1]), dtype=p.dtype, device=p.device)
    whole.scatter_(-2, most[..., None].expand(vectors.shape), vectors)
    return (
        whole,
        turned * values.clamp(min=0).sqrt()[..., None, :],
        (vectors.mT @ slope[..., None])[..., 0],
    )
