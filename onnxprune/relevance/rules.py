"""LRP's rules for weighted sums: how the relevance of an output is shared among its inputs.

A layer `y = sum_i w_i x_i + b` with relevance `R` on `y` gives its input i

    R_i = x_i * dz/dx_i * R / stabilise(z),        z = layer(x', w', b')

where the rule says how inputs, weights and biases are modified. So a rule is data: a sum of
branches, each with a factor, a denominator `z` and the outputs that it applies to. All rules and
all layers share one mechanism: run the layer's own forward on the modified tensors, divide, and
let autograd transpose. No rule knows a convolution from a matrix product.

* epsilon: `z = y`; needs no second forward.
* z+: only positive contributions, `x+ w+ + x- w-`, and no bias, so each layer conserves the sum.
* gamma: positive contributions weigh 1 + γ; for outputs below zero, the negative ones do.
* alpha-beta: α times the positive share minus β times the negative one, α - β = 1.

A composite says which rule each layer has. Convolutions and matrices may have different rules, and
rules may change with depth: layer k of n, in the order in which they run, is at `(k + 1/2) / n`.
Other operators have no choice: what is linear without weights (residual sums, average pooling)
shares by epsilon, a maximum gives all to the winner, a gate all to the signal, an activation passes
relevance on.

>>> find_composite("epsilon-plus").at(0.9, filters=False).name
'epsilon'
>>> find_composite("zplus@0-0.5,epsilon@0.5-1").at(0.2, filters=True).name
'zplus'
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnxprune.errors import UnknownName, check_name
from onnxprune.ops import space
from onnxprune.ops._torch import torch
from onnxprune.plugins import find_function, users_code
from onnxprune.relevance.sharing import EPSILON, share

if TYPE_CHECKING:
    from torch import Tensor

GAMMA = 0.25
KEPT = 2**26
"""Bytes of a modified weight that a thread keeps memory for."""
ALPHA, BETA = 2.0, 1.0
"""Montavon et al. 2019, table 10.1."""


@dataclass(frozen=True)
class Term:
    """A term of a denominator: the layer on a part of its input, with modified weights.

    The part is what is above zero where `input` is +1, and what is below where it is -1. Weights
    become `negative * w-  +  positive * w+`, and so do biases, which are zero without `bias`.
    """

    input: int
    negative: float
    positive: float
    bias: bool = True

    def modify(self, weight: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the modified weight, in `out` where that is given. Shapes: as the weight."""
        if self.negative == 0.0:
            return _times(torch.clamp(weight, min=0, out=out), self.positive)
        if self.positive == 0.0:
            return _times(torch.clamp(weight, max=0, out=out), self.negative)
        high = torch.clamp(weight, min=0, out=out).mul_(self.positive - self.negative)
        return high.add_(weight, alpha=self.negative)

    def select(self, x: Tensor) -> Tensor:
        """Return the input above or below zero, with zeros in place of the rest.

        Shapes: as the input.
        """
        return x.clamp(min=0) if self.input > 0 else x.clamp(max=0)


@dataclass(frozen=True)
class Branch:
    """Terms that add up to one denominator, and the factor that its shares are multiplied by.

    It applies to the outputs above zero (`outputs` is +1), below zero (-1) or to all (0).
    """

    terms: tuple[Term, ...]
    outputs: int = 0
    factor: float = 1.0


@dataclass(frozen=True)
class Rule:
    """A rule for weighted sums; without branches it is epsilon.

    `bias` says whether biases take a share of the relevance, which is then lost.
    """

    name: str
    branches: tuple[Branch, ...] = ()
    bias: bool = True
    epsilon: float = EPSILON

    @property
    def is_whole(self) -> bool:
        """Whether the denominators add up to the layer's output."""
        if not self.bias or any(one.outputs for one in self.branches):
            return False
        terms = [term for one in self.branches for term in one.terms]
        above, below = ([one for one in terms if one.input == sign] for sign in (1, -1))
        weights = {
            sum(getattr(one, part) for one in side)
            for part in ("negative", "positive")
            for side in (above, below)
        }
        biases = {one.bias for one in above}, {one.bias for one in below}
        return weights == {1.0} and biases == ({True}, {False})


@dataclass(frozen=True)
class Span:
    """The rules of the layers up to depth `end`, for convolutions and for matrix products."""

    end: float
    filters: Rule
    dense: Rule


@dataclass(frozen=True)
class Composite:
    """Which rule goes where: spans from the image (depth 0) to the logits (1)."""

    name: str
    spans: tuple[Span, ...]

    @classmethod
    def of(cls, filters: Rule, dense: Rule | None = None, *, name: str = "") -> Composite:
        """Return one rule for all layers, or one for convolutions and one for matrix products."""
        return cls(name or filters.name, (Span(1.0, filters, dense or filters),))

    def at(self, depth: float, *, filters: bool) -> Rule:
        """Return the rule of a convolution (`filters`) or a matrix product at a depth."""
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

    @cached_property
    def is_positive(self) -> bool:
        """Whether no element of the input is below zero."""
        x = self.arguments[self.signal]
        return bool(x.amin() >= 0) if x.numel() else True

    def modified(self, term: Term, x: Tensor, *, bias: bool, briefly: bool = False) -> Tensor:
        """Return the output on `x` with the weights and biases of a term.

        Where that is needed `briefly`, the next such weight is written over this one.
        """
        changed = list(self.arguments)
        changed[self.signal] = x
        for k in self.weights:
            room = _room(k, changed[k]) if briefly else None
            changed[k] = term.modify(changed[k], room)
        for k in self.biases:
            keep = bias and term.bias
            changed[k] = term.modify(changed[k]) if keep else torch.zeros_like(changed[k])
        return self.run(changed)


def _room(place: int, weight: Tensor) -> Tensor | None:
    """Memory for a modified weight, that a thread keeps, unless it is too large to be kept."""
    if weight.requires_grad or weight.nbytes > KEPT or not weight.is_contiguous():
        return None
    return space(("modified", place), weight, weight.numel()).view(weight.shape)


def _times(values: Tensor, factor: float) -> Tensor:
    """The values times a factor, in their place."""
    return values if factor == 1.0 else values.mul_(factor)


@dataclass(frozen=True)
class Denominator:
    """A branch of a rule on a layer: z, computed from signals under autograd.

    Shapes: z as the layer's output, signals as its input.
    """

    branch: Branch
    signals: Sequence[Tensor]
    z: Tensor


def denominator(rule: Rule, branch: Branch, layer: Layer, *, briefly: bool = False) -> Denominator:
    """Compute the denominator of a branch.

    Where it is needed `briefly`, the weights of the next one are written over those of this one.
    """
    x = layer.arguments[layer.signal].detach()
    positive = layer.is_positive
    terms = [term for term in branch.terms if term.input > 0 or not positive]
    with torch.enable_grad():
        signals = [(x if positive else term.select(x)).detach() for term in terms]
        for signal in signals:
            signal.requires_grad_()
        z = reduce(
            torch.add,
            [
                layer.modified(term, signal, bias=rule.bias, briefly=briefly and term is terms[0])
                for term, signal in zip(terms, signals, strict=True)
            ],
        )
    return Denominator(branch, signals, z)


def whole_of(denominators: Sequence[Denominator]) -> Tensor:
    """Return the output of a layer from the denominators of a rule that is whole."""
    return reduce(torch.add, [one.z.detach() for one in denominators])


def distribute(
    rule: Rule,
    layer: Layer,
    output: Tensor,
    relevance: Tensor,
    known: Sequence[Denominator] = (),
    *,
    again: bool = False,
) -> Tensor:
    """Return the relevance of a layer's input under a rule with branches.

    A branch whose outputs have no relevance is skipped; behind a ReLU that is every branch for
    outputs below zero. Denominators that are `known` are not computed; `again` keeps their graphs.
    Shapes: output and relevance as the layer's output -> as its input.
    Source: Montavon et al. 2019, table 10.1; for negative inputs Andéol et al. 2021, eq. 7 (gamma).
    """
    total: Tensor | None = None
    for k, branch in enumerate(rule.branches):
        mine = relevance
        if branch.outputs:
            mine = mine * ((output > 0) if branch.outputs > 0 else (output < 0))
            if not mine.any():
                continue
        one = known[k] if known else denominator(rule, branch, layer, briefly=True)
        for received in share(one.signals, [one.z], [mine], rule.epsilon, again=again):
            received = _times(received, branch.factor)
            total = received if total is None else total.add_(received)
    return torch.zeros_like(layer.arguments[layer.signal]) if total is None else total


def _gamma(gamma: float) -> tuple[Branch, ...]:
    up, down = (1.0, 1.0 + gamma), (1.0 + gamma, 1.0)
    return (
        Branch((Term(+1, *up), Term(-1, *down, bias=False)), outputs=+1),
        Branch((Term(+1, *down), Term(-1, *up, bias=False)), outputs=-1),
    )


_RISING = (Term(+1, 0.0, 1.0), Term(-1, 1.0, 0.0, bias=False))
_FALLING = (Term(+1, 1.0, 0.0), Term(-1, 0.0, 1.0, bias=False))

_EPSILON = Rule("epsilon")
_ZPLUS = Rule("zplus", (Branch(_RISING),), bias=False)
_GAMMA = Rule("gamma", _gamma(GAMMA))
_ALPHA_BETA = Rule("alpha-beta", (Branch(_RISING, factor=ALPHA), Branch(_FALLING, factor=-BETA)))


RULES: Mapping[str, Composite] = MappingProxyType(
    {
        name: Composite.of(filters, dense, name=name)
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
"""By name: one rule for all layers, or one for convolutions and one for matrices. The box rule in
the name of the last one distributes relevance among pixels, which have no filters: it is left out.
Source: Bach et al. 2015, eq. 58 and 60 (epsilon, alpha-beta); Montavon et al. 2017, eq. 13 (z+);
Montavon et al. 2019, eq. 10.4 (gamma)."""

USER_FUNCTION = "a function without arguments that returns a Composite"

_SPAN = re.compile(r"([a-z][a-z0-9-]*)@(\d*\.?\d+)-(\d*\.?\d+)")


def find_composite(text: str) -> Composite:
    """Return the composite of a name, or of rules over depth, `rule@from-to,...`.

    The spans follow each other from 0, the image, to 1, the logits. `module:function` or
    `file.py:function` is a user's function without arguments that returns a composite.
    Raises: UnknownName for a rule that does not exist, and for spans that leave a gap or overlap.
    """
    if ":" in text:
        return _of_function(text)
    if "@" not in text:
        return _known(text)
    spans: list[Span] = []
    reached = 0.0
    for term in text.split(","):
        match = _SPAN.fullmatch(term.strip())
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


def _of_function(name: str) -> Composite:
    make = find_function(name, USER_FUNCTION)
    with users_code(f"LRP rule '{name}'", USER_FUNCTION):
        made = make()
    if not isinstance(made, Composite):
        raise UnknownName(
            f"LRP rule '{name}': returns {type(made).__name__}; expected {USER_FUNCTION}"
        )
    return made


def _known(name: str) -> Composite:
    check_name("LRP rule", name, RULES)
    return RULES[name]
