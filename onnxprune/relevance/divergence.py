"""The divergence from the unpruned net, to second order, in a few directions of the outputs.

Let p be the class probabilities of a net with logits z, and p0 those of the unpruned net. A change
Δz of the logits changes the divergence KL(p0 || p) by

    (p - p0)' Δz + 1/2 Δz' F Δz,        F = diag(p) - p p'

Relevance tells the part of Δz along one direction of the logits with one walk back, and there are
as many directions as classes. The few that hold most of F and of p - p0 are enough.

Of an output that holds other numbers than class scores it is half the mean square of their change,
each in units of its deviation over samples: F is diagonal, as if they were normal. Of a detector
the units are those of `onnxprune.detection.units`, and it is half the sum. What several outputs
diverge by adds up.

Source: F is the Fisher information of the logits, as in Theis et al. 2018 (Faster gaze prediction
with dense networks and Fisher pruning).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.data import IGNORED, Head
from onnxprune.ops._torch import torch
from onnxprune.relevance.lrp import (
    as_logits,
    by_class,
    deviation_of,
    is_labelled,
    random_signs,
)
from onnxprune.relevance.mirror import Tensors

if TYPE_CHECKING:
    from torch import Tensor

DIRECTIONS = 3
"""For each sample, at most; each costs a walk back. Of ten classes, nine gained no more than three
(docs/benchmarks.md)."""
CLASSES_EACH = 3
"""For each direction of a sample: of three classes, a second direction gained nothing."""
PLACES = 2
"""For each pixel, or place of scores; they share two walks back."""
DRAWS = 4
"""Of random signs for a sample whose outputs have no labels; each costs a walk back."""
CLASSES = 32
"""Of each sample or pixel: those that are most probable, in the unpruned net or now."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Where relevance starts, and how the divergence follows from the effects that it finds.

    With effects T `[n, channels, d]` of d starts, the curvature of a set of channels is the squared
    norm of `T @ curvature`, summed over the set; its slope is the sum of `-T @ slope`.
    Shapes: starts d times as the ends, by name, curvature `[n, d, m]`, slope `[n, d]`.
    """

    starts: list[Tensors]
    curvature: Tensor
    slope: Tensor


def outputs_of(ends: Tensors, heads: Mapping[str, Head], y: IntArray) -> Tensors:
    """Return what the divergence compares: class probabilities, or numbers as they are.

    The copies that fill a batch are left out.
    Shapes: ends by name, each `[N, ...]`, y `[n]` or maps -> each `[n, ...]`.
    """
    return {
        name: _compared(ends[name][: len(y)], head, y, labelled=is_labelled(ends[name], heads, y))
        for name, head in heads.items()
    }


def _compared(end: Tensor, head: Head, y: IntArray, *, labelled: bool) -> Tensor:
    if labelled:
        return probabilities(end, y)
    return _shares(end, head) if head.is_scores else end.double()


def _shares(end: Tensor, head: Head) -> Tensor:
    """The probabilities of class scores, classes last. Shapes: `[n, .., K, ..]` -> `[n, .., K]`."""
    z = end.movedim(head.axis, -1).double()
    return z.sigmoid() if z.shape[-1] == 1 else z.softmax(-1)


def find_directions(
    ends: Tensors,
    heads: Mapping[str, Head],
    y: IntArray,
    before: Tensors,
    rng: np.random.Generator,
    most: int | None = None,
) -> Directions:
    """Return the directions of each sample; the copies that fill a batch have none.

    Of labelled classes there are at most `most`, by default as many as `directions_of` says.
    Shapes: ends by name, each `[N, ...]`; y `[n]` or maps; `before`, what `outputs_of` returns of
    the unpruned net, and beside it what its numbers are multiplied by, where that is known.
    """
    name = next(iter(heads))
    if is_labelled(ends[name], heads, y):
        found = of_classes(ends[name], y, before[name], rng, most)
        return Directions([{name: start} for start in found[0]], *found[1:])
    columns = [
        _columns(ends[name], head, len(y), before[name], rng, before.get(units_of(name)))
        for name, head in heads.items()
    ]
    apart = [(*bent.unbind(1), moved) for bent, moved in columns]
    starts = [
        {name: _filled(u, ends[name]) * ends[name] for name, u in zip(heads, each, strict=True)}
        for each in zip(*apart, strict=True)
    ]
    return Directions(starts, *_apart(len(starts), len(y), ends[name].device))


def units_of(name: str) -> str:
    """Return the name under which the units of an output stand beside it."""
    return f"{name} units"


def skip_signs(
    ends: Tensors, heads: Mapping[str, Head], y: IntArray, samples: int, rng: np.random.Generator
) -> None:
    """Draw the random signs that `find_directions` draws for other samples of the same outputs.

    Shapes: ends by name, each `[N, ...]`; y `[n]` or maps.
    """
    name = next(iter(heads))
    if is_labelled(ends[name], heads, y):
        if y.ndim > 1:
            positions = by_class(ends[name][:1], torch.from_numpy(y[:1]))[1].shape[1:]
            rng.choice([-1.0, 1.0], (samples, *positions, 1, 1))
        return
    for name, head in heads.items():
        z = ends[name][:1].expand(samples, *ends[name].shape[1:])
        if head.is_scores:
            places = z.movedim(head.axis, -1)[..., :1]
            z = places.expand(*places.shape[:-1], _count(z.shape[head.axis], PLACES))[..., None, :]
        random_signs(_drawn(z), rng)


def _drawn(z: Tensor) -> Tensor:
    """The same for each draw of signs. Shapes: `[n, ...]` -> `[n, DRAWS, ...]`."""
    return z[:, None].expand(len(z), DRAWS, *z.shape[1:])


def directions_of(classes: int) -> int:
    """Return how many directions a sample has whose label is one of so many classes."""
    return _count(classes, min(DIRECTIONS, classes // CLASSES_EACH))


def _count(classes: int, most: int) -> int:
    """How many directions there are: a shift of all logits changes no probability."""
    return max(min(most, classes - 1), 1)


def _columns(
    end: Tensor,
    head: Head,
    samples: int,
    before: Tensor,
    rng: np.random.Generator,
    units: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Directions with random signs whose squares sum to the curvature, and that of the slope.

    Shapes: end `[N, ...]`; before, units `[n, ...]` -> `[n, DRAWS, ...]`, `[n, ...]`.
    """
    z = end[:samples].double()
    if head.is_scores:
        p = _shares(z, head)
        vectors, curvature, slope = _basis(p, before, PLACES)
        positions = max(math.prod(p.shape[1:-1]), 1)
        bent = vectors @ curvature
        signs = random_signs(_drawn(bent[..., :1, :]), rng)
        each = (bent[:, None] * signs).sum(-1) / (positions * DRAWS) ** 0.5
        moved = (vectors @ slope[..., None])[..., 0] / positions
        return each.movedim(-1, head.axis + 1), moved.movedim(-1, head.axis)
    if units is None:
        units = 1 / deviation_of(head, z).expand_as(z)
        units = units / max(int((units[:1] > 0).sum()), 1) ** 0.5
    each = random_signs(_drawn(z), rng) * units[:, None] / DRAWS**0.5
    return each, (z - before) * units**2


def _apart(columns: int, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The curvature of columns that are one for themselves, and of which the last is the slope.

    Shapes: -> `[n, d, d - 1]`, `[n, d]`.
    """
    each = torch.eye(columns, dtype=torch.float64, device=device).expand(samples, -1, -1)
    return each[..., :-1], each[..., -1]


def probabilities(logits: Tensor, y: IntArray) -> Tensor:
    """Return the class probabilities; for a single logit, that of class 1.

    Shapes: as `by_class` takes them -> `[N, K]` or `[N, K, H, W]`.
    """
    z, _ = by_class(logits, torch.from_numpy(y))
    return z.double().sigmoid() if z.shape[1] == 1 else z.double().softmax(1)


def of_classes(
    logits: Tensor, y: IntArray, before: Tensor, rng: np.random.Generator, most: int | None = None
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the starts, the curvature and the slope of an output that is class scores.

    Shapes: as `by_class` takes them; `before`, the probabilities of the unpruned net, as
    `probabilities` returns them.
    """
    now = probabilities(logits[: len(y)], y)
    most = (most or directions_of(now.shape[1])) if y.ndim == 1 else PLACES
    vectors, curvature, slope = _basis(now.movedim(1, -1), before.movedim(1, -1), most)
    if y.ndim == 1:
        return [_start(v, logits, y) for v in vectors.unbind(-1)], curvature, slope
    bent, moved = _over_pixels(vectors @ curvature, vectors @ slope[..., None], logits, y, rng)
    starts = [_start(column, logits, y) for column in (*bent, moved)]
    return starts, *_apart(len(starts), len(y), logits.device)


def _over_pixels(
    bent: Tensor, moved: Tensor, logits: Tensor, y: IntArray, rng: np.random.Generator
) -> tuple[list[Tensor], Tensor]:
    """Weigh the directions of pixels so that one walk back serves all pixels of a sample.

    The divergence of a sample is the mean over its pixels that count. The slope is linear, so the
    pixels add up. The curvature is a sum of squares, one of each pixel: the effects t_i of the
    pixels get random signs s_i, and the square of their sum has the sum of squares as its mean,

        E (sum_i s_i t_i)^2 = sum_i t_i^2,        as E s_i s_j = 0 for two pixels i and j

    Shapes: bent `[n, H, W, K, d]`, moved `[n, H, W, K, 1]` -> each `[n, H, W, K]`.
    Source: Hutchinson 1990 (A stochastic estimator of the trace of the influence matrix).
    """
    labels = by_class(logits[: len(y)], torch.from_numpy(y).to(logits.device))[1]
    weights = (labels != IGNORED).double()[..., None, None]
    weights /= weights.sum((1, 2), keepdim=True).clamp(min=1)
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], (*labels.shape, 1, 1))).to(logits.device)
    columns = (bent * weights.sqrt() * signs).unbind(-1)
    return list(columns[1 - PLACES :]), (moved * weights)[..., 0]


def _start(direction: Tensor, logits: Tensor, y: IntArray) -> Tensor:
    """The relevance `u_k z_k` of the logits. Shapes: direction `[n, ..., K]` -> as logits."""
    filled = _filled(direction.movedim(-1, 1), logits)
    return as_logits(filled, logits, torch.from_numpy(y)) * logits


def _filled(direction: Tensor, end: Tensor) -> Tensor:
    """A direction with zeros for the copies that fill a batch, in the type of the output."""
    filled = direction.to(end.dtype)
    missing = len(end) - len(filled)
    if missing:
        filled = torch.cat([filled, torch.zeros_like(filled[:1]).repeat_interleave(missing, 0)])
    return filled


def _basis(p: Tensor, before: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The directions V, a square root of `V' F V`, and `V' (p - p0)`.

    V are the leading eigenvectors of `F + g g'` with `g = p - p0`, among the probable classes, at
    most `count`.
    Shapes: both `[..., K]` -> `[..., K, d]`, `[..., d, d]`, `[..., d]`.
    """
    classes = p.shape[-1]
    most = torch.topk(p + before, min(CLASSES, classes), -1).indices
    near, slope = p.gather(-1, most), (p - before).gather(-1, most)
    fisher = torch.diag_embed(near) - near[..., :, None] * near[..., None, :]
    if classes == 1:
        fisher = (near * (1 - near))[..., None]
    vectors = torch.linalg.eigh(fisher + slope[..., :, None] * slope[..., None, :]).eigenvectors
    vectors = vectors[..., -_count(classes, count) :]
    values, turned = torch.linalg.eigh(vectors.mT @ fisher @ vectors)
    whole = torch.zeros((*p.shape, vectors.shape[-1]), dtype=p.dtype, device=p.device)
    whole.scatter_(-2, most[..., None].expand(vectors.shape), vectors)
    return (
        whole,
        turned * values.clamp(min=0).sqrt()[..., None, :],
        (vectors.mT @ slope[..., None])[..., 0],
    )
