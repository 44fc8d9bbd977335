"""Fit a layer through the activation behind it: what passes counts, not the outputs themselves.

Where a ReLU follows, it does not matter how far below zero an output is, but a regression of the
outputs spends most of its weights on that. Let v be the outputs of the pruned net, y those of the
unpruned one, f the activation. What is made smaller is the matching loss of f,

    sum of  integral from y to v of (f(u) - f(y)) du

It is convex where f never falls, 0 where `f(v) = f(y)`, and its slope in v is `f(v) - f(y)`. As f
rises by at most 1, it curves at most as the sum of squares does. So each round is a regression of
what is missing, `r = f(y) - f(v)`, on the patches P that the kernel sees:

    change = r P' (P P' + ridge I)^-1                 P centred, ridge: a share of the mean diagonal

with momentum, and the ridge pulls towards the weights that the rounds began with. Each output keeps
the round whose `f(v)` was nearest to `f(y)`. Where f rises by more or less than 1 (a scale may
belong to it), r is divided by how much it rises.

A kernel is fitted whole, so there is a limit to the equations; larger layers stay as they are.

Source: Zhang, Zou, He and Sun 2016, arXiv 1505.06798 (fitting through a ReLU); Auer, Herbster and
Warmuth 1996 (matching loss); Nesterov 1983 (momentum).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.compensate.readers import Reader
from onnxprune.engine import Talk
from onnxprune.ops import Aligns, has_patches, patches
from onnxprune.ops._torch import torch
from onnxprune.relevance import Mirror, Step, Tensors

if TYPE_CHECKING:
    from torch import Tensor

POSITIONS = 16
"""Of each sample's map that are looked at, about, at most."""
LOOKS = 3200
"""Positions of all samples together that are looked at, about."""
MOST = 2048
"""A layer of more patch rows stays as it is: the system to solve would be too large."""
RIDGE = 0.1
"""Share of the mean variance of the patches."""
ENOUGH = 0.01
"""A round that makes what is missing smaller by a smaller share is the last one."""


@dataclass(frozen=True)
class Activation:
    """The nodes that change a layer's outputs, element by element, up to the tensor others read."""

    steps: tuple[Step, ...]
    start: str
    end: str

    def __call__(self, mirror: Mirror, y: Tensor) -> Tensor:
        """Return what becomes of outputs. Shapes: y `[N, o, *]`, the same."""
        env: Tensors = {self.start: y}
        for step in self.steps:
            mirror.execute(step, env)
        return env[self.end]


def activation_of(mirror: Mirror, name: str) -> Activation:
    """Return what follows a tensor element by element, up to the first that others read."""
    inside, steps, outside = {name: 0}, list[Step](), set(mirror.outputs)
    for step in mirror.steps:
        data = [one for one in step.node.inputs if one and one not in mirror.constants]
        if data and inside.keys() >= set(data) and _is_elementwise(mirror, step, name):
            steps.append(step)
            inside[step.node.outputs[0]] = len(steps)
        else:
            outside.update(data)
    end = min(inside.keys() & outside, key=inside.__getitem__)
    return Activation(tuple(steps[: inside[end]]), name, end)


def _is_elementwise(mirror: Mirror, step: Step, name: str) -> bool:
    node, graph = step.node, mirror.graph
    shape = graph.shape(name)
    same = shape is not None and graph.shape(node.outputs[0]) == shape
    return same and isinstance(graph.how(node), Aligns) and len(node.outputs) == 1


@dataclass(frozen=True)
class Start:
    """What one batch says before the first round.

    Shapes: gram `[D, D]`, rows `[D]`, rise `[o]`, how much f rises at most.
    """

    count: int
    gram: npt.NDArray[Any]
    rows: npt.NDArray[Any]
    rise: npt.NDArray[Any]


@dataclass(frozen=True)
class Missing:
    """What one batch says in a round: sums of r, of r P' and of r^2.

    Shapes: total, squares `[o]`, cross `[o, D]`.
    """

    total: npt.NDArray[Any]
    cross: npt.NDArray[Any]
    squares: npt.NDArray[Any]


@dataclass(frozen=True)
class Change:
    """What is added to the weight of a layer and to its bias.

    Shapes: weight `[o, D]`, bias `[o]`.
    """

    weight: npt.NDArray[Any]
    bias: npt.NDArray[Any]


# ---------------------------------------------------------------------------------- on one batch


def fits(reader: Reader, mirror: Mirror) -> bool:
    """Say whether a layer can be fitted by its patches, and would gain.

    It gains where an activation follows it, or where its kernel has several positions.
    """
    axes, weight = reader.axes, mirror.constants[reader.weight]
    placed = (axes.weight_out, axes.weight_in) == (0, 1) or weight.ndim == 2
    if reader.bias is None or not placed or (axes.output, axes.input) != (1, 1):
        return False
    kernel = tuple(weight.shape[2:])
    if not has_patches(reader.node, kernel):
        return False
    return any(size > 1 for size in kernel) or bool(activation_of(mirror, reader.key).steps)


def is_small(reader: Reader, weight: Tensor) -> bool:
    """Say whether a layer has few enough patch rows. Shapes: weight `[o, K, *]`."""
    return weight.numel() <= MOST * weight.shape[reader.axes.weight_out]


def positions_of(samples: int) -> int:
    """Return how many positions of each map are looked at, about."""
    return max(min(POSITIONS, LOOKS // samples), 1)


def apart(shape: Sequence[int], positions: int = POSITIONS) -> tuple[int, ...]:
    """Return the step between the positions that are looked at. Shapes: the sizes of a map."""
    if not shape:
        return ()
    most = max(round(positions ** (1 / len(shape))), 1)
    return tuple(-(-size // most) for size in shape)


def sample(y: Tensor, positions: int = POSITIONS) -> Tensor:
    """Return a map at the positions that are looked at. Shapes: `[N, o, *size]`."""
    steps = apart(y.shape[2:], positions)
    return y[(slice(None), slice(None), *(slice(one // 2, None, one) for one in steps))]


def look(
    reader: Reader, mirror: Mirror, x: Tensor, y: Tensor, wanted: Tensor, positions: int
) -> Generator[Any, Any, Change | None]:
    """Look at one batch round by round; return what is to be added in the end.

    Shapes: x, y what the layer reads and writes, `[N, K, *]` and `[N, o, *]`; wanted `[N, o, *]`,
    what the unpruned net wrote, at the positions that are looked at.
    """
    activation = activation_of(mirror, reader.key)
    kernel = tuple(mirror.constants[reader.weight].shape[2:])
    seen = patches(reader.node, x, kernel, apart(y.shape[2:], positions))
    now, goal = sample(y, positions).clone(), activation(mirror, wanted)
    rise = _rise(now, lambda y: activation(mirror, y))
    gram, rows = (seen @ seen.T).cpu().numpy(), seen.sum(1).cpu().numpy()
    change, ends = yield Start(seen.shape[1], gram, rows, rise.cpu().numpy())
    while not ends:
        added = torch.from_numpy(change.weight).to(seen) @ seen
        added += torch.from_numpy(change.bias).to(seen)[:, None]
        missing = _by_output(goal - activation(mirror, now + _like(added, now)))
        change, ends = yield Missing(
            missing.sum(1).cpu().numpy(),
            (missing @ seen.T).cpu().numpy(),
            missing.square().sum(1).cpu().numpy(),
        )
    return change  # type: ignore[no-any-return]


def laid_out(change: npt.NDArray[Any], reader: Reader, shape: Sequence[int]) -> npt.NDArray[Any]:
    """Return a change as the weight of a layer lies. Shapes: change `[o, D]`."""
    return (change if reader.axes.weight_out == 0 else change.T).reshape(shape)


def _by_output(y: Tensor) -> Tensor:
    """Shapes: `[N, o, *]` -> `[o, M]`."""
    return y.movedim(1, 0).flatten(1)


def _like(rows: Tensor, y: Tensor) -> Tensor:
    """Shapes: rows `[o, M]` -> as y, `[N, o, *]`."""
    return rows.reshape(y.shape[1], y.shape[0], *y.shape[2:]).movedim(0, 1)


def _rise(y: Tensor, become: Callable[[Tensor], Tensor]) -> Tensor:
    """How much outputs rise at most in what becomes of them. Shapes: y `[N, o, *]` -> `[o]`."""
    far = y.abs().mean().clamp(min=torch.finfo(y.dtype).tiny)
    made = become(y)
    slopes = torch.cat([_by_output((become(y + d) - made) / d) for d in (far, -far)], 1)
    place = slopes.abs().argmax(1, keepdim=True)
    return slopes.gather(1, place)[:, 0]


# ------------------------------------------------------------------------------- on all batches


def refine(batches: Talk, starts: Sequence[Start], most: int) -> Change | None:
    """Ask the batches for `most` rounds; return the change that leaves each output nearest."""
    count = sum(one.count for one in starts)
    gram, rows = (_sum(starts, name) for name in ("gram", "rows"))
    mean = rows / count
    gram -= count * torch.outer(mean, mean)
    ridge = RIDGE * float(gram.diagonal().mean())
    if not 0.0 < ridge < np.inf:
        return None
    gram.diagonal().add_(ridge)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    scale = _scale(starts)
    now = (scale.new_zeros(len(scale), len(mean)), torch.zeros_like(scale))
    before, best, least = now, now, torch.full_like(scale, torch.inf)
    last = np.inf
    for k in range(most + 1):
        ahead = max(k - 1, 0) / (k + 2)
        weight, bias = (torch.lerp(a, b, 1 + ahead) for a, b in zip(before, now, strict=True))
        change = Change(weight.numpy(), bias.numpy())
        parts = list(batches.ask((change, False)))
        total, cross, squares = (_sum(parts, name) for name in ("total", "cross", "squares"))
        better = squares < least
        best = (
            torch.where(better[:, None], weight, best[0]),
            torch.where(better, bias, best[1]),
        )
        least = torch.where(better, squares, least)
        if float(least.sum()) >= (1 - ENOUGH) * last:
            break
        last = float(least.sum())
        lacking = scale[:, None] * (cross - torch.outer(total, mean)) - ridge * weight
        step = lacking @ inverse
        before, now = now, (weight + step, bias + scale * total / count - step @ mean)
    return Change(best[0].numpy(), best[1].numpy())


def _sum(parts: Sequence[Any], name: str) -> Tensor:
    found: Tensor = torch.from_numpy(sum(getattr(one, name) for one in parts))
    return found


def _scale(starts: Sequence[Start]) -> Tensor:
    """One over the steepest rise of each output; 0 for one that never rises. Shapes: -> `[o]`."""
    rises = np.stack([one.rise for one in starts])
    steepest = rises[np.abs(rises).argmax(0), np.arange(rises.shape[1])]
    flat = steepest == 0
    return torch.from_numpy(np.where(flat, 0, 1 / np.where(flat, 1, steepest)).astype(rises.dtype))
