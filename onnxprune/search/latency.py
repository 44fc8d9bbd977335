"""Latency as a figure: what each layer's widths cost on the runtime, measured and interpolated.

A few models with other widths are timed node by node. For each node that the runtime computes, a
line is laid through its times: a constant, plus a share of its multiply-adds, plus a share of the
elements that it reads and writes. The sum of these lines is the latency of any net, and what a
channel saves follows from it without another measurement.

Source: latency tables in the manner of NetAdapt (Yang et al. 2018), with lines for interpolation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxprune.arrays import BoolArray, FloatArray
from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.ops import Node
from onnxprune.search.picker import Picker
from onnxprune.search.protocols import Profile
from onnxprune.surgery import Costs, Figure, remove_channels, repeats

logger = logging.getLogger(__name__)

SHARES = (0.25, 0.5, 0.75)
"""What is removed of every layer in models that are timed, one after another."""
MIXED = 4
"""How many more have a share of their own for each layer; the last one checks the others."""


@dataclass(frozen=True)
class Latency:
    """What each element of a tensor adds to the latency, and what is there without any.

    Units: times, ms for each element; constant, ms. `error`: how far the latency of a model that
    was not used for it is from what was measured, as a share of that.
    """

    times: Mapping[str, float]
    constant: float
    error: float

    def figure(self, graph: Graph, groups: ChannelGroups) -> Figure:
        """Return the latency of a net as a function of the channels that are gone. Units: ms."""
        shapes = {name: graph.shape(name) or () for name in self.times}
        return Figure(groups, shapes, self.times, self.constant)

    def to_json(self) -> dict[str, Any]:
        """Return what a run directory keeps."""
        return {"times": dict(self.times), "constant": self.constant, "error": self.error}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Latency:
        """Read it back."""
        return cls(content["times"], content["constant"], content["error"])


def measure_latency(
    graph: Graph, costs: Costs, picker: Picker, profile: Profile, seed: int = 0
) -> Latency:
    """Time a few models of other widths, and lay lines through the times of their nodes."""
    plans = list(_plans(picker, np.random.default_rng(seed)))
    times = [profile(remove_channels(graph, costs.groups, dead)) for dead in plans]
    parts = timed_nodes(graph, times[0].keys())
    lines = _Lines(graph, costs, plans[:-1])
    for name, nodes in parts.items():
        lines.fit(nodes, np.array([one.get(name, np.nan) for one in times[:-1]]))
    rest = [sum(ms for name, ms in one.items() if name not in parts) for one in times[:-1]]
    found = Latency(lines.times, lines.constant + float(np.median(rest)), 0.0)
    measured, said = sum(times[-1].values()), found.figure(graph, costs.groups).of(plans[-1])
    error = abs(said - measured) / max(measured, 1e-12)
    logger.info("a latency of %.3g ms is estimated as %.3g ms", measured, said)
    return Latency(found.times, found.constant, error)


def _plans(picker: Picker, rng: np.random.Generator) -> Iterator[BoolArray]:
    """Which channels are gone in each model that is timed: first none, last the check."""
    groups = range(len(picker.groups.names))
    shares = [dict.fromkeys(groups, share) for share in (0.0, *SHARES)]
    levels = (0.0, *SHARES)
    shares += [{group: rng.choice(levels) for group in groups} for _ in range(MIXED)]
    for each in shares:
        yield picker.thinned(each)


def timed_nodes(graph: Graph, names: Iterable[str]) -> dict[str, list[Node]]:
    """Return the nodes whose time each of the runtime's names stands for.

    The runtime names what it joined after the last of the nodes or their last tensor, so the nodes
    before it that have no name of their own belong to it.
    """
    by_name = {node.name: node for node in graph.nodes}
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    ends = {name: found for name in names if (found := makers.get(name, by_name.get(name)))}
    last = {node.name for node in ends.values()}
    parts: dict[str, list[Node]] = {}
    for name, node in ends.items():
        joined, unread = {node.name: node}, [node]
        while unread:
            for source in unread.pop().inputs:
                before = makers.get(source)
                if before and before.name not in last and before.name not in joined:
                    joined[before.name] = before
                    unread.append(before)
        parts[name] = list(joined.values())
    return parts


@dataclass
class _Lines:
    """The lines through the times of all nodes, added up by tensor."""

    graph: Graph
    costs: Costs
    plans: list[BoolArray]
    times: dict[str, float] = field(default_factory=dict)
    constant: float = 0.0

    def fit(self, nodes: list[Node], measured: FloatArray) -> None:
        """Add the line of nodes that took so long together. Shapes: measured `[plans]`."""
        from scipy.optimize import nnls

        known = np.flatnonzero(measured > 0)
        if not known.size:
            return
        products = self._products(nodes)
        moved = dict.fromkeys(self._moved(nodes), 1.0)
        columns = [np.ones(known.size), self._values(products, known), self._values(moved, known)]
        # Nothing gets faster by computing more; each time counts by its relative error.
        matrix = np.stack(columns, 1) / measured[known, None]
        scale = np.maximum(matrix.max(0), 1e-30)
        constant, product, element = nnls(matrix / scale, np.ones(known.size))[0] / scale
        self.constant += float(constant)
        for times, factor in ((products, product), (moved, element)):
            for name, count in times.items():
                self.times[name] = self.times.get(name, 0.0) + count * float(factor)

    def _values(self, times: Mapping[str, float], known: Any) -> FloatArray:
        shapes = {name: self.graph.shape(name) or () for name in times}
        figure = Figure(self.costs.groups, shapes, times)
        return np.array([figure.of(self.plans[number]) for number in known])

    def _products(self, nodes: list[Node]) -> dict[str, float]:
        """How often each element of a weight is multiplied."""
        found: dict[str, float] = {}
        for node in nodes:
            for name, count in repeats(self.graph, node).items():
                found[name] = found.get(name, 0.0) + count
        return found

    def _moved(self, nodes: list[Node]) -> list[str]:
        """The tensors that come in from outside and go out."""
        made = {name for node in nodes for name in node.outputs}
        read = {name for node in nodes for name in node.inputs if name} - made
        names = (*sorted(read - self.graph.constant_tensors.keys()), nodes[0].outputs[0])
        return [name for name in names if self.graph.shape(name)]
