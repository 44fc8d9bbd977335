"""Half of the filters of every group removed, and what may be asked of the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups
from onnxprune.graph.graph import Graph
from onnxprune.ops import SHAPES
from onnxprune.relevance.criteria import score
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery.cost import Costs
from tests.support.models import images, relative_error, run

EXACT = 1e-5
"""Relative to the largest output; sums over fewer channels are ordered differently."""

ORDERS = ("magnitude", "random")

MIXES = (
    "whose statistics span these channels",
    "which normalises over these channels",
    "which divides",
    "which reduces over these channels",
    "which needs all of these channels",
)
"""Reasons that name an operator in which what is left depends on what is gone."""

SOLE = "is the only filter"
GIVEN = "goes into a graph output"


def order_of(graph: Graph, groups: ChannelGroups, how: str, seed: int) -> npt.NDArray[np.int64]:
    """The channels, those to remove first."""
    if how == "random":
        return np.random.default_rng(seed).permutation(len(groups))
    return np.argsort(score(graph, groups, None, how).total(), kind="stable")


def half_of_every_group(groups: ChannelGroups, order: npt.NDArray[np.int64]) -> BoolArray:
    """Choose half of the removable channels of every group, the first of `order`."""
    dead = np.zeros(len(groups), np.bool_)
    quota = np.bincount(groups.group[groups.removable], minlength=len(groups.names)) // 2
    for channel in Picker(groups, Limits()).pick(order, dead).tolist():
        group = groups.group[channel]
        dead[channel] = quota[group] > 0
        quota[group] -= 1
    return dead


def difference(small: onnx.ModelProto, zeroed: onnx.ModelProto) -> float:
    """How far two models are apart on onnxruntime; NaN if a value is.

    Units: relative to the largest value of each output, the worst of batches of 1 and 3.
    """
    errors = []
    for batch in (1, 3):
        x = images(zeroed, batch)
        pairs = zip(run(small, x), run(zeroed, x), strict=True)
        errors += [relative_error(found, wanted) for found, wanted in pairs]
    return float(np.max(errors))


def output_convolutions(graph: Graph) -> set[str]:
    """The convolutions whose maps reach a graph output without being weighed again."""
    found: set[str] = set()
    todo, seen = list(graph.outputs), set(graph.outputs)
    while todo:
        node = graph.producers.get(todo.pop())
        op = None if node is None else node.op
        if node is None or op is None or op.how == SHAPES:
            continue
        if op.filters or op.columns_along is not None:
            found.add(node.name)
        ranks = [len(graph.shape(node.inputs[k]) or ()) for k in op.weights]
        if max(ranks, default=0) < 2:  # normalisation scales, it does not weigh
            fresh = [name for name in node.inputs if name not in seen]
            seen.update(fresh)
            todo += fresh
    return found


@dataclass(frozen=True)
class Coverage:
    """How many filters may go.

    `undefined` counts the filters whose removal is not defined: without them an output has another
    shape, or what is left of a normalised axis other values. `avoidable` counts those that stay
    although their removal would be defined. Both by reason.
    """

    filters: int
    removable: int
    undefined: Counter[str]
    avoidable: Counter[str]

    @property
    def share(self) -> float:
        """Removable filters over those whose removal is well defined; 1 where none is."""
        defined = self.filters - sum(self.undefined.values())
        return self.removable / defined if defined else 1.0


def coverage(graph: Graph, groups: ChannelGroups, costs: Costs) -> Coverage:
    """Sort the filters of a graph by what the analysis says of them."""
    undefined: Counter[str] = Counter()
    avoidable: Counter[str] = Counter()
    given = output_convolutions(graph)
    cut = {filters.node: filters.channels for filters in groups.filters}
    for node in graph.nodes:
        axis = graph.filter_axis(node)
        if axis is None:
            continue
        if node.name not in cut:
            width = (graph.shape(node.outputs[0]) or (0,) * 5)[axis]
            (undefined if width == 1 else avoidable)[SOLE if width == 1 else "is not cut"] += width
            continue
        for channel in cut[node.name][~groups.removable[cut[node.name]]].tolist():
            reason = GIVEN if node.name in given else groups.reasons[channel].text
            ill = node.name in given or any(text in reason for text in MIXES)
            (undefined if ill else avoidable)[reason] += 1
    return Coverage(costs.of().filters, groups.removable_filters, undefined, avoidable)
