"""How relevance over an output is carried back to inputs: in proportion to their contributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6
"""Keeps denominators away from zero; zennit's default, so that the two can be compared."""


def stabilise(z: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return `z` moved away from zero by `epsilon`, so that dividing by it is safe."""
    return torch.copysign(torch.full((), epsilon, dtype=z.dtype, device=z.device), z).add_(z)


def share(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    relevances: Sequence[Tensor],
    epsilon: float = EPSILON,
    *,
    again: bool = False,
) -> list[Tensor]:
    """Return the relevance of each input, in proportion to its contribution: the epsilon rule.

    `outputs` were computed from `inputs` under autograd, whose graph is kept for another call where
    there is one (`again`). The share of a constant is lost.
    Shapes: relevances as outputs -> as inputs.
    Source: Bach et al. 2015, eq. 58 (epsilon).
    """
    with torch.no_grad():
        over = [
            _divide(r.to(z.dtype), stabilise(z, epsilon))
            for r, z in zip(relevances, outputs, strict=True)
        ]
    return contributions(inputs, outputs, over, again=again)


def contributions(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    over: Sequence[Tensor],
    *,
    again: bool = False,
) -> list[Tensor]:
    """Return the relevance of each input, where `over` is that of the outputs over their values.

    What the last input gets is multiplied where its gradient lies, which takes a third of the time
    that new memory takes. The others may share that tensor, as those of a sum do, or `over` be it.
    `again` keeps the graph of autograd for another call. Shapes: over as outputs -> as inputs.
    """
    *others, last = pull(inputs, outputs, over, again=again)
    found = [x.detach() * g for x, g in zip(inputs[:-1], others, strict=True)]
    x = inputs[-1].detach()
    return [*found, last.mul_(x) if _is_dense(last) else last * x]


def _is_dense(tensor: Tensor) -> bool:
    """Whether each element has a place of its own, unlike those of an expanded tensor."""
    last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return last or tensor.is_contiguous()


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """Return `a / b`, written over `b`."""
    return torch.div(a, b, out=b)


def pull(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    again: bool = False,
) -> list[Tensor]:
    """Return `values` of the outputs, carried back to the inputs along the gradient.

    `again` keeps the graph of autograd for another call.
    """
    found = torch.autograd.grad(outputs, inputs, values, allow_unused=True, retain_graph=again)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
