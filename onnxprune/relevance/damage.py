"""The damage of removing channels together: how far the outputs diverge.

The divergence from the unpruned net is known to second order in a change Δz of the logits
(`onnxprune.relevance.divergence`). Without the channels S the change is `-sum_{c in S} T_c`, where
T_c is the relevance of channel c for each logit, with its sign. So the damage of a set is not the
sum of the damages of its channels: two channels that cancel each other can go together, and a
channel that speaks against the unpruned answer should go.

Source: Theis et al. 2018 (Faster gaze prediction with dense networks and Fisher pruning) remove
single channels by the Fisher information. Choosing sets by their joint effect, with relevance as
the effect of a channel, is ours: docs/method.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.channels import ChannelGroups, Choices
from onnxprune.data import Data, Samples, part_of
from onnxprune.engine import each
from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.advice import advise
from onnxprune.relevance.batches import LOOKING, Batch, OnSamples, by_filter, cut
from onnxprune.relevance.criteria import score
from onnxprune.relevance.divergence import (
    Directions,
    find_directions,
    outputs_of,
    skip_signs,
    units_of,
)
from onnxprune.relevance.finite import check_finite
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import explain, with_batch
from onnxprune.relevance.memory import batch_in_cache
from onnxprune.relevance.mirror import Mirror, Tensors
from onnxprune.relevance.routes import find_ends
from onnxprune.relevance.rules import Composite

if TYPE_CHECKING:
    from torch import Tensor

SAMPLES = 100
"""How many samples a step looks at, at least. Of twice as many or more it looks at a part and the
next step at another, so what it costs grows neither with them nor with the number of classes."""


@dataclass(frozen=True, eq=False)
class Damage:
    """The damage of any set of channels.

    It is the sum of their slopes, plus half the squared norm of the sum of their effects.
    Shapes: slope `[channels]`, effects `[channels, m]`. Units: nats, mean over samples.
    """

    slope: FloatArray
    effects: npt.NDArray[np.float32]

    def order(
        self, worth: FloatArray, choices: Choices, most: float, own_squares: float
    ) -> IntArray:
        """Return all channels in the order in which they should go.

        The next are those that add the least damage to what is gone, for what they are worth, until
        `most` is gone: one channel, or a block of a group where widths are rounded. The rest follow
        by the damage that each would then add.

        Cross terms estimated from few samples are noisy, so the diagonal is up-weighted: the square
        of a channel's own effects counts `own_squares` times.
        Shapes: worth, what removing each channel saves, `[channels]` -> `[channels]`.
        """
        own = self.slope + 0.5 * own_squares * (self.effects.astype(np.float64) ** 2).sum(1)
        together = np.zeros(self.effects.shape[1], np.float32)
        chosen: list[int] = []
        gone = 0.0
        while True:
            rise = own + self.effects @ together
            best = [] if gone >= most else self._cheapest(rise, worth, choices)
            if not best:
                price = rise / worth
                price[chosen] = -np.inf
                return np.concatenate([chosen, np.argsort(price, kind="stable")[len(chosen) :]])
            chosen += best
            for channel in best:
                together += self.effects[channel]
                gone += worth[channel]
                choices.take(channel)

    def _cheapest(self, rise: FloatArray, worth: FloatArray, choices: Choices) -> list[int]:
        """The block with the least rise of damage for what it is worth; none if nothing may go."""
        free, size = choices.free(), choices.blocks()
        if not free.any():
            return []
        if size.max() == 1:
            return [int(np.where(free, rise / worth, np.inf).argmin())]
        blocks = np.flatnonzero(free)
        blocks = blocks[np.lexsort((rise[blocks], choices.group[blocks]))]
        group = choices.group[blocks]
        first = np.flatnonzero(np.diff(group, prepend=-1))
        place = np.arange(len(blocks)) - np.repeat(first, np.diff(first, append=len(blocks)))
        whole = np.bincount(group, minlength=choices.group.max() + 1)[group] >= size[blocks]
        blocks = blocks[whole & (place < size[blocks])]
        if not blocks.size:
            return []
        first = np.flatnonzero(np.diff(choices.group[blocks], prepend=-1))
        effects = self.effects[blocks]
        squares = np.add.reduceat((effects**2).sum(1), first)
        cross = 0.5 * ((np.add.reduceat(effects, first) ** 2).sum(1) - squares)
        price = (np.add.reduceat(rise[blocks], first) + cross) / np.add.reduceat(
            worth[blocks], first
        )
        best = int(price.argmin())
        end = first[best + 1] if best + 1 < len(first) else len(blocks)
        return [int(channel) for channel in blocks[first[best] : end]]


@dataclass
class Meter:
    """Measures what removing channels from a net does to its divergence from the unpruned one.

    `among`: the samples that it looks at, all by default; `directions`: along how many each, by
    default as many as the classes ask for. Shapes: among `[n]`.
    """

    unpruned: Graph
    data: Data
    composite: Composite
    device: str = "auto"
    batch_size: int = 32
    seed: int = 0
    among: IntArray | None = None
    directions: int | None = None

    def __call__(self, graph: Graph, groups: ChannelGroups) -> Damage:
        """Return the damage of the channels of a (pruned) graph.

        Of many samples it looks at a part, which depends on how many channels are left.
        Units: nats, mean over samples.
        Raises: UnsupportedOp where LRP cannot cross the graph, with a criterion that can.
        """
        try:
            found = self._measure(graph, groups)
        except UnsupportedOp as error:
            one = self.data.every(len(self.data))
            advise(error, graph, "lrp", partial(score, graph, groups, one, device=self.device))
            raise
        finite = np.isfinite(found.slope) & np.isfinite(found.effects).all(1)
        check_finite("damage", finite, graph, groups, self.data)
        return found

    def _measure(self, graph: Graph, groups: ChannelGroups) -> Damage:
        among = np.arange(len(self.data)) if self.among is None else self.among
        turns, turn = _turn(len(among), len(groups))
        rows = among[part_of(self.data.y[among], turns, turn)]
        how = self.composite, self.device, self.batch_size, self.seed, self.directions
        job = _Effects(graph, groups, self.data, *how)
        (batches,) = each(job, [rows])
        before = self._before(turn, rows)
        shards, done = [], 0
        for number, batch in enumerate(batches):
            own = slice(done, done + len(batch.rows))
            done = own.stop
            unpruned = {name: values[own] for name, values in before.items()}
            shards.append((batch, unpruned, number, len(batches[0].rows)))
        effects, slope = [], np.zeros(len(groups))
        for bent, moved in each(job, shards, LOOKING):
            effects.append((bent / len(rows) ** 0.5).astype(np.float32))
            slope -= moved
        return Damage(slope / len(rows), np.concatenate(effects, 1))

    @cached_property
    def _seen(self) -> dict[int, dict[str, npt.NDArray[Any]]]:
        """What `_before` found, by turn."""
        return {}

    def _before(self, turn: int, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
        """What the outputs of the unpruned net are compared by, for the samples of a turn."""
        if turn not in self._seen:
            job = _Unpruned(self.unpruned, self.data, self.device, self.batch_size)
            (batches,) = each(job, [rows])
            found = list(each(job, batches, LOOKING))
            whole = {n: np.concatenate([one[n] for one in found]) for n in found[0]}
            units = self.data.units(whole) if self.data.units else {}
            self._seen[turn] = whole | {units_of(n): values for n, values in units.items()}
        return self._seen[turn]


@dataclass(frozen=True, eq=False)
class _Unpruned(OnSamples):
    """What the outputs of the unpruned net are compared by."""

    graph: Graph
    data: Data
    device: str
    batch_size: int

    @cached_property
    def _mirror(self) -> Mirror:
        return folded(Mirror(self.graph, device=self.device, heads=self.data.heads))

    def run(self, shard: Batch | IntArray) -> list[Batch] | dict[str, npt.NDArray[Any]]:
        """Run a batch; of rows alone, return the batches. Shapes: rows `[n]`."""
        if not isinstance(shard, Batch):
            size = batch_in_cache(self.graph, self.batch_size, self.device)
            return cut(self._mirror, self.data, size, rows=shard)
        heads = find_ends(self._mirror)
        x, y = shard.of(self.data)
        with torch.no_grad():
            ends = with_batch(_run(self._mirror, x, heads), heads)
            return {name: found.cpu().numpy() for name, found in outputs_of(ends, heads, y).items()}


Shard = tuple[Batch, dict[str, npt.NDArray[Any]], int, int]
"""A batch, what the unpruned net gives, its number, and how many samples each before it has."""


@dataclass(frozen=True, eq=False)
class _Effects(OnSamples):
    """The effects of channels along the directions of the samples, and their slope."""

    graph: Graph
    groups: ChannelGroups
    data: Data
    composite: Composite
    device: str
    batch_size: int
    seed: int
    directions: int | None

    @cached_property
    def _mirror(self) -> Mirror:
        return folded(Mirror(self.graph, device=self.device, heads=self.data.heads))

    def run(
        self, shard: Shard | IntArray
    ) -> list[Batch] | tuple[npt.NDArray[np.float64], FloatArray]:
        """Measure a batch; of rows alone, return the batches.

        Shapes: rows `[n]`; a batch -> `[channels, n * m]`, `[channels]`.
        """
        if not isinstance(shard, tuple):
            outputs = [filters.output for filters in self.groups.filters]
            size = batch_in_cache(self.graph, self.batch_size, self.device)
            return cut(self._mirror, self.data, size, outputs, shard)
        batch, unpruned, number, size = shard
        before = {name: torch.from_numpy(values) for name, values in unpruned.items()}
        found, values = self._explain(*batch.of(self.data), before, number, size)
        bent = torch.einsum("ncd,ndm->cnm", values, found.curvature.cpu()).flatten(1)
        moved = torch.einsum("ncd,nd->c", values, found.slope.cpu())
        return bent.numpy(), moved.numpy()

    def _explain(
        self, x: Samples, y: IntArray, before: Tensors, number: int, size: int
    ) -> tuple[Directions, Tensor]:
        """The directions of a batch, and the effect of each channel. Shapes: `[n, channels, d]`."""
        mirror, found = self._mirror, list[Directions]()
        before = {name: values.to(mirror.device) for name, values in before.items()}

        def starts(ends: Tensors) -> list[Tensors]:
            heads, rng = find_ends(mirror), np.random.default_rng(self.seed)
            for _ in range(number):
                skip_signs(ends, heads, y, size, rng)
            found.append(find_directions(ends, heads, y, before, rng, self.directions))
            return found[0].starts

        tensors = {filters.output: filters.axis for filters in self.groups.filters}
        traces = explain(
            mirror,
            x,
            starts,
            self.composite,
            tensors,
            reduce=lambda name, r: by_filter(r, tensors[name], len(x)).sum(2).double(),
        )
        values = [_by_channel(self.groups, trace, len(y)) for trace in traces]
        return found[0], torch.stack(values, 2)


def _run(mirror: Mirror, x: Samples, names: Collection[str]) -> Tensors:
    """The named tensors of a batch."""
    env, found = mirror.start(x), Tensors()
    for step in mirror.walk(env):
        mirror.execute(step, env)
        found.update({name: env[name] for name in step.node.outputs if name in names})
    return found


def _turn(samples: int, left: int) -> tuple[int, int]:
    """How many parts the samples have, and which part a net with `left` channels looks at."""
    turns = max(samples // SAMPLES, 1)
    return turns, left % turns


def _by_channel(groups: ChannelGroups, trace: Tensors, samples: int) -> Tensor:
    """Sum the values of filters into their channels. Shapes: -> `[samples, channels]`."""
    total = torch.zeros((samples, len(groups)), dtype=torch.float64)
    for filters in groups.filters:
        if filters.output in trace:
            owned = np.flatnonzero(filters.channels >= 0)
            values = trace[filters.output][:samples].cpu()[:, owned]
            total.index_add_(1, torch.from_numpy(filters.channels[owned]), values)
    return total
