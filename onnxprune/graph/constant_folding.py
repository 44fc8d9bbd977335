"""Weights that a model computes from constants alone, as weight standardisation does.

Where labels cannot cross the nodes that compute a weight, the weight is treated as an initializer:
it is computed once, and surgery stores what is left of it in place of its makers. Where labels can
cross (moves, elementwise functions, quantisation), the makers are followed and stay in the model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
from onnx import TensorProto

from onnxprune.errors import InvalidModel
from onnxprune.graph.facts import Facts
from onnxprune.graph.reference import run_nodes
from onnxprune.ops import Aligns, Fills, Holds, How, Moves, Node, Shapes

Array = npt.NDArray[Any]

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16})

CLEAR = Moves | Aligns | Shapes | Holds | Fills
"""Labels cross nodes of these kinds without being pinned."""


@dataclass(frozen=True)
class Computed:
    """`makers[t]` are the nodes that compute the weight t, in order.

    `inside` names the makers that compute nothing else.
    """

    makers: Mapping[str, tuple[Node, ...]]
    inside: frozenset[str]

    def evaluate(
        self, name: str, opsets: Mapping[str, int], constant: Callable[[str], Array]
    ) -> Array:
        """Return a weight's value, by ONNX's reference implementation.

        Raises: InvalidModel where it has none.
        """
        makers = self.makers[name]
        made = {output for node in makers for output in node.outputs}
        read = dict.fromkeys(n for node in makers for n in node.inputs if n and n not in made)
        feeds = {n: constant(n) for n in read}
        try:
            (value,) = run_nodes([node.proto for node in makers], [name], feeds, opsets)
        except ValueError as error:
            raise InvalidModel(
                f"weight '{name}': cannot be worked out by {makers[-1]} ({error}); "
                f"export the model again"
            ) from error
        return value


def find_computed(
    nodes: Iterable[Node],
    facts: Facts,
    constants: Collection[str],
    outputs: Collection[str],
    how: Callable[[Node], How | None],
) -> Computed:
    """Return the computed weights of a graph that labels cannot follow."""
    makers: dict[str, dict[str, Node]] = {}
    opaque: set[str] = set()
    read: set[str] = set(outputs)
    for node in nodes:
        held = node.op is not None and isinstance(node.op.how, Holds)
        if node.op is None or not _is_constant(node, held, makers, constants):
            read.update((*node.inputs, *node.captures))
            continue
        above: dict[str, Node] = {}
        for name in node.inputs:
            above |= makers.get(name, {})
        for name in filter(None, node.outputs):
            makers[name] = {**above, node.name: node}
        clear = bool(node.op.zero_points) or isinstance(how(node), CLEAR)
        if not clear or not opaque.isdisjoint(node.inputs):
            opaque.update(filter(None, node.outputs))
    ends = [name for name in makers if name in read]
    weights = [n for n in ends if n in opaque and n not in outputs and _is_weight(facts, n)]
    others = {node for name in ends if name not in weights for node in makers[name]}
    return Computed(
        {name: tuple(makers[name].values()) for name in weights},
        frozenset(node for name in weights for node in makers[name]) - others,
    )


def _is_constant(
    node: Node, held: bool, makers: Mapping[str, Any], constants: Collection[str]
) -> bool:
    if node.nested or node.captures or node.schema is None:
        return False
    known = all(name in makers or name in constants for name in node.inputs if name)
    return known and (held or any(node.inputs))


def _is_weight(facts: Facts, name: str) -> bool:
    kind = facts.types.get(name)
    return (
        kind is not None
        and kind.tensor_type.elem_type in FLOATS
        and math.prod(facts.shape(name) or ()) > 1
    )
