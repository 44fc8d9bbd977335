"""Estimated time: what a model takes on a usual CPU, told from the graph alone.

A node takes time to multiply, to read its inputs and weights, and to write its outputs. All are
sums over tensors, so that what a channel saves follows as it does for multiply-adds. Nothing is
measured: a graph has the same estimate on every machine. `tests.benchmarks.estimated_time` says
what measured times ask for, and how well the estimate foretells them.

Source: the roofline model (Williams et al. 2009), with the sum in place of the larger of the two.
"""

from __future__ import annotations

from onnxprune.channels import ChannelGroups
from onnxprune.graph import Graph
from onnxprune.ops import FILLS, HOLDS, SHAPES, Aligns, Node
from onnxprune.surgery.cost import Figure, figure_of, repeats, runs

MOVED, READ = 8.0, 4.0
"""What an element takes that comes in or goes out, and one of a weight, in multiply-adds."""


def estimate_time(graph: Graph, groups: ChannelGroups) -> Figure:
    """Return what a net takes as a function of the channels that are gone. Units: multiply-adds."""

    def times_of(node: Node) -> dict[str, float]:
        found = dict[str, float](repeats(graph, node))
        for name in moved(graph, node):
            each = READ if name in graph.constant_tensors else MOVED
            found[name] = found.get(name, 0.0) + each * runs(graph, node)
        return found

    return figure_of(graph, groups, times_of)


def moved(graph: Graph, node: Node) -> list[str]:
    """Return the tensors that a node reads and writes.

    What is done element by element is joined to the node before: of it only other inputs count.
    """
    how = graph.how(node)
    if how in (SHAPES, HOLDS, FILLS):
        return []
    names = node.inputs[1:] if isinstance(how, Aligns) else (*node.inputs, *node.outputs)
    return [name for name in names if name and graph.shape(name)]
