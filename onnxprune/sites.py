"""What the analysis knows at a node, as descriptions of operators see it."""

from __future__ import annotations

from collections.abc import Collection

from onnxprune.graph import Graph
from onnxprune.node import Node
from onnxprune.ops import Site


def site_of(graph: Graph, node: Node, constant: Collection[str] | None = None) -> Site:
    """Return what the analysis knows at a node; `constant` in place of all constant tensors."""
    constant = graph.constant_names if constant is None else constant
    return Site(
        node,
        [graph.shape(name) if name else None for name in node.inputs],
        [graph.facts.values.get(name) for name in node.inputs],
        [graph.shape(name) if name else None for name in node.outputs],
        [name in constant for name in node.inputs],
        dynamic=graph.dynamic,
        open=graph.open_elements,
    )
