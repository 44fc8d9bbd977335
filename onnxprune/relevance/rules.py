"""LRP's rules for weighted sums: how the relevance of an output is shared among its inputs.

A layer `y = sum_i w_i x_i + b` with relevance `R` on `y` gives its input i

    R_i = x_i * dz/dx_i * R / stabilise(z),        z = layer(x', w', b')

where a rule says which modified inputs, weights and biases `z` is made of. So a rule is data: a sum
of branches, each a factor, a denominator `z` and the outputs it is responsible for. The mechanism
is one for all rules and all layers: run the layer's own forward on the modified tensors, divide,
and let autograd do the transpose. No rule knows a convolution from a matrix product.

* epsilon: `z = y`; costs no second forward.
* z+: positive contributions only, `x+ w+ + x- w-`; without bias, so each layer conserves the sum.
* gamma: positive contributions weigh 1 + γ; for outputs below zero the negative ones do.
* alpha-beta: α times the positive share less β times the negative one, α - β = 1.

Which rule goes where is a composite. Filters of convolutions and matrices may have different rules,
and rules may change with depth; residual sums, average pooling and whatever else is linear without
weights share by epsilon; winner takes all at maxima; everything to the signal at gates; activations
pass. The depth of layer k of n, in the order in which they run, is `(k + 1/2) / n`.

>>> find_composite("epsilon-plus").at(0.9, filters=False).name
'epsilon'
>>> find_composite("zplus@0-0.5,epsilon@0.5-1").at(0.2, filters=True).name
'zplus'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UnknownName, check_name
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

EPSILON = 1e-6
"""Keeps denominators from zero; the default of zennit, so that the two can be compared."""
GAMMA = 0.25
ALPHA, BETA = 2.0, 1.0
"""Montavon et al. 2019, table 10.1."""


@dataclass(frozen=True)
class Part:
    """One run of a layer: on the `input` above (+1) or below zero (-1), with modified weights.

    Weights become `negative * w-  +  positive * w+`; biases the same, or nothing without `bias`.
    """

    input: int
    negative: float
    positive: float
    bias: bool = True

    def modify(self, weight: Tensor) -> Tensor:
        """Return the modified weight."""
        if self.negative == 0.0:
            return weight.clamp(min=0).mul_(self.positive)
        if self.positive == 0.0:
            return weight.clamp(max=0).mul_(self.negative)
        low, high = weight.clamp(max=0), weight.clamp(min=0)
        return low.mul_(self.negative).add_(high, alpha=self.positive)

    def select(self, x: Tensor) -> Tensor:
        """Return the part of the input that takes part."""
        return x.clamp(min=0) if self.input > 0 else x.clamp(max=0)


@dataclass(frozen=True)
class Branch:
    """Parts with one denominator, for outputs of the sign `outputs` (0: all), times `factor`."""

    parts: tuple[Part, ...]
    outputs: int = 0
    factor: float = 1.0


@dataclass(frozen=True)
class Rule:
    """A rule for weighted sums; no branches: epsilon.

    `bias` says whether biases take a share of the relevance (which is then lost).
    """

    name: str
    branches: tuple[Branch, ...] = ()
    bias: bool = True
    epsilon: float = EPSILON


@dataclass(frozen=True)
class Span:
    """The rules of layers down to depth `end`: of those with filters, and of matrix products."""

    end: float
    filters: Rule
    dense: Rule


@dataclass(frozen=True)
class Composite:
    """Which rule goes where: spans from the image (depth 0) to the logits (1)."""

    name: str
    spans: tuple[Span, ...]

    def at(self, depth: float, *, filters: bool) -> Rule:
        """Return the rule of the layer at a depth, with filters (a convolution) or without."""
        span = next(span for span in self.spans if depth < span.end)
        return span.filters if filters else span.dense


@dataclass(frozen=True)
class Layer:
    """A weighted sum as the forward pass met it: `run(arguments)` is its output.

    `signal`, `weights` and `biases` are positions in `arguments`.
    """

    run: Callable[[Sequence[Any]], Tensor]
    arguments: Sequence[Any]
    signal: int
    weights: tuple[int, ...]
    biases: tuple[int, ...]

    def modified(self, part: Part, x: Tensor, *, bias: bool) -> Tensor:
        """Return the output on `x` with weights and biases as `part` has them."""
        changed = list(self.arguments)
        changed[self.signal] = x
        for k in self.weights:
            changed[k] = part.modify(changed[k])
        for k in self.biases:
            keep = bias and part.bias
            changed[k] = part.modify(changed[k]) if keep else torch.zeros_like(changed[k])
        return self.run(changed)


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
    """Return the relevance of each input in proportion to its contribution: the epsilon rule.

    `outputs` were computed from `inputs` under autograd, which `again` leaves as it is. What a
    constant contributed is lost.
    Shapes: relevances as outputs -> as inputs.
    Source: Bach et al. 2015, eq. 58 (epsilon).
    """
    with torch.no_grad():
        shares = [
            _divide(r.to(z.dtype), stabilise(z, epsilon))
            for r, z in zip(relevances, outputs, strict=True)
        ]
    pulled = pull(inputs, outputs, shares, again=again)
    return [x.detach() * g for x, g in zip(inputs, pulled, strict=True)]


def _divide(a: Tensor, b: Tensor) -> Tensor:
    """`a / b`, in the place of `b`."""
    return torch.div(a, b, out=b)


def pull(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    values: Sequence[Tensor],
    *,
    again: bool = False,
) -> list[Tensor]:
    """Return `values` of the outputs carried back to the inputs along the gradient.

    `again` keeps what autograd holds, for another walk.
    """
    found = torch.autograd.grad(outputs, inputs, values, allow_unused=True, retain_graph=again)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def distribute(rule: Rule, layer: Layer, output: Tensor, relevance: Tensor) -> Tensor:
    """Return the relevance of a layer's input under a rule with branches.

    A branch whose outputs have no relevance costs nothing: behind an activation that cuts below
    zero, none arrives there.
    Shapes: output and relevance as the layer's output -> as its input.
    Source: Montavon et al. 2019, table 10.1; for negative inputs Andéol et al. 2021, eq. 7 (gamma).
    """
    x = layer.arguments[layer.signal].detach()
    positive = bool(x.amin() >= 0) if x.numel() else True
    total: Tensor | None = None
    for branch in rule.branches:
        mine = relevance
        if branch.outputs:
            mine = mine * ((output > 0) if branch.outputs > 0 else (output < 0))
            if not mine.any():
                continue
        parts = [part for part in branch.parts if part.input > 0 or not positive]
        with torch.enable_grad():
            signals = [(x if positive else part.select(x)).detach() for part in parts]
            for signal in signals:
                signal.requires_grad_()
            z = reduce(
                torch.add,
                [
                    layer.modified(part, signal, bias=rule.bias)
                    for part, signal in zip(parts, signals, strict=True)
                ],
            )
        for received in share(signals, [z], [mine], rule.epsilon):
            received.mul_(branch.factor)
            total = received if total is None else total.add_(received)
    return torch.zeros_like(x) if total is None else total


def _gamma(gamma: float) -> tuple[Branch, ...]:
    up, down = (1.0, 1.0 + gamma), (1.0 + gamma, 1.0)
    return (
        Branch((Part(+1, *up), Part(-1, *down, bias=False)), outputs=+1),
        Branch((Part(+1, *down), Part(-1, *up, bias=False)), outputs=-1),
    )


_RISING = (Part(+1, 0.0, 1.0), Part(-1, 1.0, 0.0, bias=False))
_FALLING = (Part(+1, 1.0, 0.0), Part(-1, 0.0, 1.0, bias=False))

_EPSILON = Rule("epsilon")
_ZPLUS = Rule("zplus", (Branch(_RISING),), bias=False)
_GAMMA = Rule("gamma", _gamma(GAMMA))
_ALPHA_BETA = Rule("alpha-beta", (Branch(_RISING, factor=ALPHA), Branch(_FALLING, factor=-BETA)))


def _everywhere(name: str, filters: Rule, dense: Rule) -> Composite:
    return Composite(name, (Span(1.0, filters, dense),))


RULES: Mapping[str, Composite] = MappingProxyType(
    {
        name: _everywhere(name, filters, dense)
        for name, filters, dense in (
            ("epsilon", _EPSILON, _EPSILON),
            ("zplus", _ZPLUS, _ZPLUS),
            ("gamma", _GAMMA, _GAMMA),
            ("alpha-beta", _ALPHA_BETA, _ALPHA_BETA),
            ("epsilon-plus", _ZPLUS, _EPSILON),
            ("epsilon-alpha2-beta1", _ALPHA_BETA, _EPSILON),
            ("epsilon-gamma-box", _GAMMA, _EPSILON),
        )
    }
)
"""By name: one rule for all layers, or one for filters and one for matrices. The box rule that the
last is named for shares relevance among pixels, which have no filters: it is left out.
Sources: Bach et al. 2015, eq. 58 and 60 (epsilon, alpha-beta); Montavon et al. 2017, eq. 13 (z+);
Montavon et al. 2019, eq. 10.4 (gamma)."""

_TERM = re.compile(r"([a-z][a-z0-9-]*)@(\d*\.?\d+)-(\d*\.?\d+)")


def find_composite(text: str) -> Composite:
    """Return the composite of a name, or of `rule@from-to,...`: rules over depth.

    The spans follow each other from 0, the image, to 1, the logits.
    Raises: UnknownName for a rule that does not exist, or spans that leave a gap or overlap.
    """
    if "@" not in text:
        return _known(text)
    spans: list[Span] = []
    reached = 0.0
    for term in text.split(","):
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise UnknownName(f"LRP rule {term!r}: expected rule@from-to, such as zplus@0-0.5")
        name, begin, end = match[1], float(match[2]), float(match[3])
        if begin != reached or not begin < end <= 1:
            raise UnknownName(
                f"LRP rule {term!r}: expected to begin at {reached:g} and to end after it, at most "
                f"at 1; spans follow each other from the image (0) to the logits (1)"
            )
        reached = end
        spans += [Span(end, span.filters, span.dense) for span in _known(name).spans]
    if reached != 1:
        raise UnknownName(f"LRP rules {text!r}: end at {reached:g}; expected 1, the logits")
    return Composite(text, tuple(spans))


def _known(name: str) -> Composite:
    check_name("LRP rule", name, RULES)
    return RULES[name]
