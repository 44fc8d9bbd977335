"""The description of an operator: its forward in torch, and how channels cross it.

The forward's signature is the ONNX schema. Positional parameters are inputs; keyword-only ones are
attributes with ONNX's defaults. An input annotated `Ints` is a parameter (a shape, axes, bounds),
which callers pass as a tuple of integers. An input annotated `Indices` is a parameter as well, an
array whose rank matters. Every other input is data. The keyword `output_count` is no attribute: it
receives the number of outputs that the node has.

How channels cross an operator is one of

* `MOVES`: every output element is a copy of an input element (or padding). The forward uses only
  the functions of `onnxprune.ops.array`, so it runs on channel labels as it runs on values.
* `ALIGNS`: numpy broadcasting; equal positions are equal channels, axes of size 1 are not.
* `Axes("n i *, o i *, o -> n o *")`: axes with the same letter have the same channels. Lower case
  may shrink, CAPITALS never; `*` is the rest and never shrinks; `(G o)` is an axis of G times o
  positions.
* `Writes(places)`: the output is the first input with the last written over it at known places.
* `SHAPES`: only the shape of the input is read.
* `HOLDS`: the output is a constant, which the node itself holds.
* `FILLS`: every element of the output is the same; the input is its shape.
* `Pins(why)`: channels that the node reads stay.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.errors import InvalidOp, UnsupportedAttribute, UnsupportedOp
from onnxprune.ops.channels import Aligns, How, Moves, Pins
from onnxprune.ops.fit import fitting
from onnxprune.ops.site import CutSite, Edit, Ints, PrunedSite, Site

if TYPE_CHECKING:
    from onnxprune.ops.node import Node

Indices = npt.NDArray[np.int64]
Kind = Any
"""An input of which only the element type is read; None where the tensor is not known."""
Forward = TypeVar("Forward", bound=Callable[..., Any])


class Relevance(Enum):
    """How relevance crosses an operator, from its output back to its inputs.

    Source: Montavon et al. 2019, section 10.2; Arras et al. 2017 for gates.
    """

    COPY = auto()
    """Along the gradient: exact for a copy, winner-takes-all for a maximum."""
    LINEAR = auto()
    """A weighted sum: the rule (epsilon, gamma, z+, ...) distributes it."""
    PASS = auto()
    """Unchanged to the only input: activations."""
    SHARE = auto()
    """In proportion to each input's contribution: sums of activations."""
    GATE = auto()
    """All to the signal, nothing to the factor: products."""
    SLOPE = auto()
    """To first order: input times gradient. What is not 0 at 0, and what mixes its inputs."""
    REAL = auto()
    """Of the real numbers that integers stand for, not of integers: `onnxprune.relevance.real`."""
    NONE = auto()
    """Not defined: LRP refuses the operator by name."""


@dataclass(frozen=True)
class Op:
    """One operator, for the ONNX versions in `since` (each a version that changed its schema).

    `how` says how channels cross a node. `pins` is asked once they have crossed it, and says why
    they stay all the same: the node states sizes that could not be corrected. `restate` corrects
    the number of channels that a node of the pruned model states.
    `relevance` may depend on the attribute `reduction`.
    `weights` and `biases` are the input positions that LRP's rules modify and silence. `filters`
    says that its output channels are filters, `columns_along` finds the output axis along which the
    columns of a matrix write, the filters of a 1x1 convolution or the units of a dense layer,
    `scatters` that the weight is applied once for each position of the input, not of the output.
    `quick` is a forward that takes less time, and whose outputs are exact up to rounding relative
    to the largest of those near; `quick_back` is one that is exact, and whose way back is quick.
    `zero_points` gives, for an input that is quantised, the position of the input that holds the
    integer standing for 0, None where that is 0; `scales` that of the input that holds its scale.
    `quantises` are the inputs that hold the scale and the zero point of a quantised output.
    `keeps_shape` says that ONNX infers nothing for it, and that its output is shaped like its first
    input.
    """

    name: str
    domain: str
    since: Ints
    forward: Callable[..., Any]
    how: How | Callable[[Site], How]
    relevance: Relevance | Mapping[str, Relevance]
    restate: Callable[[PrunedSite], Edit | None] | None
    pins: Callable[[CutSite], Pins | None] | None
    weights: Ints
    biases: Ints
    filters: bool
    columns_along: Callable[[Site], int | None] | None
    scatters: bool
    quick: Callable[..., Any] | None
    quick_back: Callable[..., Any] | None
    zero_points: Mapping[int, int | None]
    scales: Mapping[int, int]
    quantises: tuple[int, int] | None
    keeps_shape: bool

    def channels(self, site: Site) -> How:
        """Return how channels cross this node."""
        if not callable(self.how):
            return self.how
        with fitting(site.node, site.shapes):
            return self.how(site)

    def asked_again(self, site: CutSite) -> Pins | None:
        """Return why channels stay at a node that they have crossed, or None."""
        if self.pins is None:
            return None
        with fitting(site.node, site.shapes):
            return self.pins(site)

    def restated(self, site: PrunedSite) -> Edit | None:
        """Return what a node of the pruned model states anew, or None."""
        if self.restate is None:
            return None
        with fitting(site.node, site.shapes):
            return self.restate(site)

    def relevance_at(self, node: Node) -> Relevance:
        """Return how relevance crosses this node."""
        if isinstance(self.relevance, Relevance):
            return self.relevance
        return self.relevance[str(node.attributes.get("reduction", "none"))]

    @property
    def ways_of_relevance(self) -> tuple[Relevance, ...]:
        """How relevance crosses nodes of this operator, whatever their attributes."""
        by = self.relevance
        return (by,) if isinstance(by, Relevance) else tuple(dict.fromkeys(by.values()))

    def filter_axis(self, site: Site, *, dense: bool = False) -> int | None:
        """Return the axis of the output along which the node's filters lie, None without any.

        With `dense` the units of a dense layer are filters, too.
        """
        if self.columns_along is None:
            return 1 if self.filters else None
        with fitting(site.node, site.shapes):
            return self.columns_along(site) if dense or not self.is_dense(site) else None

    def is_dense(self, site: Site) -> bool:
        """Say whether a product of matrices is a dense layer: it has one position, not several."""
        return self.columns_along is not None and len(site.output_shapes[0] or ()) <= 2

    def channels_read(self, weight: Ints, groups: int) -> int:
        """Return how many channels an operator with filters reads, by the shape of its weight."""
        return weight[0] if self.scatters else weight[1] * groups

    def parameter(self, index: int, value: npt.NDArray[Any] | None) -> Any:
        """Return the known value of a parameter as the forward takes it.

        Shapes: any -> the same, or a tuple of all its integers.
        """
        if value is None or not self.takes_ints(index):
            return value
        return tuple(int(v) for v in np.ravel(value))

    def is_parameter(self, index: int) -> bool:
        """Say whether input `index` is a parameter, not data: see `Ints`, `Indices`, `Kind`."""
        return self.annotation(index).startswith(("Ints", "Indices", "Kind"))

    def takes_ints(self, index: int) -> bool:
        """Say whether input `index` is passed as a tuple of integers (annotated `Ints`)."""
        return self.annotation(index).startswith("Ints")

    def annotation(self, index: int) -> str:
        """Return how the forward annotates input `index`."""
        if index >= len(self.inputs):
            return ""
        return str(self._signature.parameters[self.inputs[index]].annotation)

    @cached_property
    def quickly(self) -> Op:
        """The operator with its quick forward, or as it is where it has none."""
        return self if self.quick is None else replace(self, forward=self.quick)

    @cached_property
    def quickly_back(self) -> Op:
        """The operator with a forward whose way back is quick, or as it is where it has none."""
        return self if self.quick_back is None else replace(self, forward=self.quick_back)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the positional parameters."""
        return _names(self._signature, positional=True)

    @cached_property
    def attributes(self) -> tuple[str, ...]:
        """Names of the keyword-only parameters that are attributes."""
        names = _names(self._signature, positional=False)
        return tuple(name for name in names if name != "output_count")

    @cached_property
    def _counts_outputs(self) -> bool:
        return "output_count" in self._signature.parameters

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.forward)

    def __call__(self, node: Node, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Run the forward on torch tensors (or, for `MOVES`, on labels); return all outputs.

        Raises: UnsupportedAttribute for an attribute that the forward does not take.
        """
        unknown = set(node.attributes) - set(self.attributes)
        if unknown:
            raise UnsupportedAttribute(
                f"{node}: attribute {sorted(unknown)[0]!r} is not supported; "
                f"supported are {', '.join(self.attributes) or 'none'}"
            )
        try:
            told = {"output_count": len(node.outputs)} if self._counts_outputs else {}
            result = self.forward(*inputs, **node.attributes, **told)
        except UnsupportedAttribute as error:
            raise UnsupportedAttribute(f"{node}: {error}") from error
        results = result if isinstance(result, tuple) else (result,)
        if any(node.outputs[len(results) :]):
            raise UnsupportedAttribute(
                f"{node}: output '{node.outputs[-1]}' is one that is not supported; "
                f"only the first {len(results)} of {len(node.outputs)} outputs are"
            )
        return results


OPS: dict[tuple[str, str], list[Op]] = {}


def op(
    name: str,
    how: How | Callable[[Site], How],
    *,
    since: Ints,
    relevance: Relevance | Mapping[str, Relevance] | None = None,
    restate: Callable[[PrunedSite], Edit | None] | None = None,
    pins: Callable[[CutSite], Pins | None] | None = None,
    weights: Ints = (),
    biases: Ints = (),
    filters: bool = False,
    columns_along: Callable[[Site], int | None] | None = None,
    scatters: bool = False,
    quick: Callable[..., Any] | None = None,
    quick_back: Callable[..., Any] | None = None,
    zero_points: Mapping[int, int | None] | None = None,
    scales: Mapping[int, int] | None = None,
    quantises: tuple[int, int] | None = None,
    keeps_shape: bool = False,
    domain: str = "",
) -> Callable[[Forward], Forward]:
    """Register a forward as ONNX operator `name`.

    Raises: InvalidOp when another description claims the same version.
    """

    def register(forward: Forward) -> Forward:
        family = OPS.setdefault((domain, name), [])
        for other in family:
            if set(other.since) & set(since):
                raise InvalidOp(f"{name}: version {since} is described twice; keep one")
        described = Op(
            name=name,
            domain=domain,
            since=since,
            forward=forward,
            how=how,
            relevance=relevance or _default_relevance(how),
            restate=restate,
            pins=pins,
            weights=weights,
            biases=biases,
            filters=filters,
            columns_along=columns_along,
            scatters=scatters,
            quick=quick,
            quick_back=quick_back,
            zero_points=zero_points or {},
            scales=scales or {},
            quantises=quantises,
            keeps_shape=keeps_shape,
        )
        family.append(described)
        return forward

    return register


def find_op(domain: str, name: str, version: int) -> Op | None:
    """Return the description that covers a version of an operator, or None."""
    found = (op for op in OPS.get((domain, name), ()) if version in op.since)
    return next(found, None)


def require_op(node: Node) -> Op:
    """Return the description that covers this node.

    Raises: UnsupportedOp naming the node.
    """
    if node.op is None:
        domain = f"{node.domain}." if node.domain else ""
        raise UnsupportedOp(
            f"{node}: the torch mirror does not know {domain}{node.op_type} (version "
            f"{node.version}); add the operator (docs/how-to/add-an-operator.md)"
        )
    return node.op


def _default_relevance(how: How | Callable[[Site], How]) -> Relevance:
    if isinstance(how, Moves):
        return Relevance.COPY
    if isinstance(how, Aligns):
        return Relevance.PASS
    return Relevance.NONE


def _names(signature: inspect.Signature, *, positional: bool) -> tuple[str, ...]:
    kinds = (
        (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if positional
        else (inspect.Parameter.KEYWORD_ONLY,)
    )
    return tuple(p.name for p in signature.parameters.values() if p.kind in kinds)


def without(forward: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """Return a forward as it was in versions that did not have the attributes `names` yet."""
    signature = inspect.signature(forward)
    left = [p for p in signature.parameters.values() if p.name not in names]

    def run(*inputs: Any, **attributes: Any) -> Any:
        return forward(*inputs, **attributes)

    run.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
    run.__doc__, run.__module__ = forward.__doc__, forward.__module__
    return run
