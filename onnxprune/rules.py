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

Which rule goes where: the named rule on every weighted sum (`epsilon-plus`: z+ on convolutions,
epsilon on matrix products); epsilon on residual sums, average pooling and whatever else is linear
without weights; winner takes all at maxima; everything to the signal at gates; activations pass.

>>> find_rule("lrp").name, find_rule("lrp:zplus").name
('epsilon', 'zplus')
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UnknownName
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
    """A rule for weighted sums; no branches: epsilon. `dense` is the rule of matrix products.

    `bias` says whether biases take a share of the relevance (which is then lost).
    """

    name: str
    branches: tuple[Branch, ...] = ()
    bias: bool = True
    epsilon: float = EPSILON
    dense: Rule | None = None

    def at(self, *, filters: bool) -> Rule:
        """Return the rule of a layer, with filters (a convolution) or without."""
        return self if filters or self.dense is None else self.dense


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
) -> list[Tensor]:
    """Return the relevance of each input in proportion to its contribution: the epsilon rule.

    `outputs` were computed from `inputs` under autograd. What a constant contributed is lost.
    Shapes: relevances as outputs -> as inputs.
    Source: Bach et al. 2015, eq. 58 (epsilon).
    """
    with torch.no_grad():
        shares = [
            r.to(z.dtype).div(stabilise(z, epsilon))
            for r, z in zip(relevances, outputs, strict=True)
        ]
    return [x.detach() * g for x, g in zip(inputs, pull(inputs, outputs, shares), strict=True)]


def pull(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], values: Sequence[Tensor]
) -> list[Tensor]:
    """Return `values` of the outputs carried back to the inputs along the gradient."""
    found = torch.autograd.grad(outputs, inputs, values, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def distribute(rule: Rule, layer: Layer, output: Tensor, relevance: Tensor) -> Tensor:
    """Return the relevance of a layer's input under a rule with branches.

    Shapes: output and relevance as the layer's output -> as its input.
    Source: Montavon et al. 2019, table 10.1; for negative inputs Andéol et al. 2021, eq. 7 (gamma).
    """
    x = layer.arguments[layer.signal].detach()
    positive = bool(x.min() >= 0) if x.numel() else True
    total = torch.zeros_like(x)
    for branch in rule.branches:
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
        mine = relevance.to(z.dtype)
        if branch.outputs:
            mine = mine * ((output > 0) if branch.outputs > 0 else (output < 0))
        for received in share(signals, [z], [mine], rule.epsilon):
            total += branch.factor * received
    return total


def _gamma(gamma: float) -> tuple[Branch, ...]:
    up, down = (1.0, 1.0 + gamma), (1.0 + gamma, 1.0)
    return (
        Branch((Part(+1, *up), Part(-1, *down, bias=False)), outputs=+1),
        Branch((Part(+1, *down), Part(-1, *up, bias=False)), outputs=-1),
    )


_RISING = (Part(+1, 0.0, 1.0), Part(-1, 1.0, 0.0, bias=False))
_FALLING = (Part(+1, 1.0, 0.0), Part(-1, 0.0, 1.0, bias=False))

_EPSILON = Rule("epsilon")
_ZPLUS = Branch(_RISING)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            _EPSILON,
            Rule("zplus", (_ZPLUS,), bias=False),
            Rule("epsilon-plus", (_ZPLUS,), bias=False, dense=_EPSILON),
            Rule("gamma", _gamma(GAMMA)),
            Rule("alpha-beta", (Branch(_RISING, factor=ALPHA), Branch(_FALLING, factor=-BETA))),
        )
    }
)
"""By name. Sources: Bach et al. 2015, eq. 58 and 60 (epsilon, alpha-beta); Montavon et al. 2017,
eq. 13 (z+); Montavon et al. 2019, eq. 10.4 (gamma)."""


def find_rule(criterion: str) -> Rule:
    """Return the rule that `lrp` (epsilon) or `lrp:<rule>` names.

    Raises: UnknownName when there is none.
    """
    _, _, name = criterion.partition(":")
    if (name or "epsilon") not in RULES:
        raise UnknownName(f"LRP rule {name!r}: unknown; expected one of {', '.join(RULES)}")
    return RULES[name or "epsilon"]
