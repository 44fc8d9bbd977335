"""The divergence from the unpruned net, to second order, in a few directions of the logits.

Let p be the class probabilities of a net with logits z, and p0 those of the unpruned net. A change
Δz of the logits changes the divergence KL(p0 || p) by

    (p - p0)' Δz + 1/2 Δz' F Δz,        F = diag(p) - p p'

Relevance tells the part of Δz along one direction of the logits with one walk back, and there are
as many directions as classes. The few that hold most of F and of p - p0 are enough.

Source: F is the Fisher information of the logits, as in Theis et al. 2018 (Faster gaze prediction
with dense networks and Fisher pruning).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import IntArray
from onnxprune.data import IGNORED
from onnxprune.ops._torch import torch
from onnxprune.relevance.lrp import as_logits, by_class

if TYPE_CHECKING:
    from torch import Tensor

DIRECTIONS = 2
"""For each sample; each costs a walk back. With ten classes a third gained nothing measurable."""
CLASSES = 32
"""Of each sample or pixel: those that are most probable, in the unpruned net or now."""


@dataclass(frozen=True, eq=False)
class Directions:
    """Where relevance starts, and how the divergence follows from the effects that it finds.

    With effects T `[n, channels, d]` of d starts, the curvature of a set of channels is the squared
    norm of `T @ curvature`, summed over the set; its slope is the sum of `-T @ slope`.
    Shapes: starts d times as the logits, curvature `[n, d, m]`, slope `[n, d]`.
    """

    starts: list[Tensor]
    curvature: Tensor
    slope: Tensor


def probabilities(logits: Tensor, y: IntArray) -> Tensor:
    """Return the class probabilities; for a single logit, that of class 1.

    Shapes: as `by_class` takes them -> `[N, K]` or `[N, K, H, W]`.
    """
    z, _ = by_class(logits, torch.from_numpy(y))
    return z.double().sigmoid() if z.shape[1] == 1 else z.double().softmax(1)


def find_directions(
    logits: Tensor, y: IntArray, before: Tensor, rng: np.random.Generator
) -> Directions:
    """Return the directions of each sample; the copies that fill a batch have none.

    Shapes: as `by_class` takes them; `before`, the probabilities of the unpruned net, as
    `probabilities` returns them.
    """
    now = probabilities(logits[: len(y)], y)
    vectors, curvature, slope = _basis(now.movedim(1, -1), before.movedim(1, -1))
    if y.ndim == 1:
        return Directions([_start(v, logits, y) for v in vectors.unbind(-1)], curvature, slope)
    bent, moved = _over_pixels(vectors @ curvature, vectors @ slope[..., None], logits, y, rng)
    starts = [_start(column, logits, y) for column in (*bent, moved)]
    each = torch.eye(len(starts), dtype=torch.float64, device=logits.device)
    each = each.expand(len(y), -1, -1)
    return Directions(starts, each[..., :-1], each[..., -1])


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
    return list(columns[1 - DIRECTIONS :]), (moved * weights)[..., 0]


def _start(direction: Tensor, logits: Tensor, y: IntArray) -> Tensor:
    """The relevance `u_k z_k` of the logits. Shapes: direction `[n, ..., K]` -> as logits."""
    filled = direction.movedim(-1, 1).to(logits.dtype)
    missing = len(logits) - len(filled)
    if missing:
        filled = torch.cat([filled, torch.zeros_like(filled[:1]).repeat_interleave(missing, 0)])
    return as_logits(filled, logits, torch.from_numpy(y)) * logits


def _basis(p: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The directions V, a square root of `V' F V`, and `V' (p - p0)`.

    V are the leading eigenvectors of `F + g g'` with `g = p - p0`, among the probable classes.
    Shapes: both `[..., K]` -> `[..., K, d]`, `[..., d, d]`, `[..., d]`.
    """
    classes = p.shape[-1]
    most = torch.topk(p + before, min(CLASSES, classes), -1).indices
    near, slope = p.gather(-1, most), (p - before).gather(-1, most)
    fisher = torch.diag_embed(near) - near[..., :, None] * near[..., None, :]
    if classes == 1:
        fisher = (near * (1 - near))[..., None]
    vectors = torch.linalg.eigh(fisher + slope[..., :, None] * slope[..., None, :]).eigenvectors
    # A shift of all logits changes no probability, so there is one direction less than classes.
    vectors = vectors[..., -min(DIRECTIONS, max(classes - 1, 1)) :]
    values, turned = torch.linalg.eigh(vectors.mT @ fisher @ vectors)
    whole = torch.zeros((*p.shape, vectors.shape[-1]), dtype=p.dtype, device=p.device)
    whole.scatter_(-2, most[..., None].expand(vectors.shape), vectors)
    return (
        whole,
        turned * values.clamp(min=0).sqrt()[..., None, :],
        (vectors.mT @ slope[..., None])[..., 0],
    )
