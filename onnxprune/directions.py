"""The directions of the logits along which a small change moves the probabilities most.

For a sample with logits z, probabilities p and those of the unpruned net p0, the divergence
KL(p0 || p) has the slope g = p - p0 and the curvature F = diag(p) - p p' (the Fisher information of
the logits). Both are kept on the eigenvectors of F + g g' with the largest eigenvalues. Of many
classes only those with the most probability are looked at.

Where labels are maps every pixel has its own directions, and a sample has one of each: pixels are
added up with random signs, so that the mean of the square is the sum of squares (Hutchinson 1990).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.label_maps import IGNORED
from onnxprune.labels import IntArray
from onnxprune.ops._torch import torch
from onnxprune.relevance import as_logits, by_class

if TYPE_CHECKING:
    from torch import Tensor

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
