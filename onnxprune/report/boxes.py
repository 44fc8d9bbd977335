"""What is written into each box of a drawing: its name, its filters, and its facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from onnxprune.channels import ChannelGroups, Filters
from onnxprune.graph import Graph
from onnxprune.ops import Node
from onnxprune.report.figures import amount
from onnxprune.report.skeleton import Vertex, find_vertices
from onnxprune.surgery import knows_macs, node_macs


@dataclass(frozen=True)
class Box:
    """A vertex and its texts.

    `group` is the group that all its channels are of, or None. `filters` and `removable` count the
    filters of a convolution. `facts` are the lines of the tooltip.
    """

    vertex: Vertex
    title: str
    group: int | None = None
    filters: int = 0
    removable: int = 0
    facts: tuple[str, ...] = ()

    @property
    def is_convolution(self) -> bool:
        """Whether the box has filters."""
        return self.vertex.kind == "filters"


def find_boxes(graph: Graph, groups: ChannelGroups) -> list[Box]:
    """Return the boxes of a network, each after those that it reads."""
    filters = {found.node: found for found in groups.filters}
    return [
        _convolution(graph, groups, vertex, node, filters.get(node.name))
        if (node := vertex.node) is not None and vertex.kind == "filters"
        else _other(groups, vertex)
        for vertex in find_vertices(graph, groups)
    ]


def _other(groups: ChannelGroups, vertex: Vertex) -> Box:
    if vertex.node is None:
        return Box(vertex, vertex.tensor, facts=(f"{vertex.kind} {vertex.tensor}",))
    group = _group_of(groups, vertex.tensor)
    facts = (f"{vertex.node}", *_group_fact(groups, group))
    return Box(vertex, vertex.node.op_type, group, facts=facts)


def _convolution(
    graph: Graph, groups: ChannelGroups, vertex: Vertex, node: Node, filters: Filters | None
) -> Box:
    title, facts = groups.title(node.name), [f"{node}", *_kernel(graph, node)]
    facts.append(f"{amount(node_macs(graph, node) if knows_macs(graph, node) else None)} MACs")
    if filters is None:
        return Box(vertex, title, facts=(*facts, "stays: its filters are not known"))
    channels = filters.channels
    owned = channels[channels >= 0]
    group = Counter(groups.group[owned].tolist()).most_common(1)[0][0] if owned.size else None
    removable = int(groups.removable[owned].sum())
    reasons = dict.fromkeys(groups.reasons[c].text for c in owned.tolist() if c in groups.reasons)
    kind = "units" if filters.dense else "filters"
    facts += [f"{removable:,} of {channels.size:,} {kind} may go", *_group_fact(groups, group)]
    facts += [f"stays: {'; '.join(reasons)}"] if reasons else []
    return Box(vertex, title, group, channels.size, removable, tuple(facts))


def _group_of(groups: ChannelGroups, tensor: str) -> int | None:
    """The only group with channels in a tensor, or None."""
    found = {
        int(group)
        for channels in groups.cuts.get(tensor, {}).values()
        for group in groups.group[channels[channels >= 0]]
    }
    return found.pop() if len(found) == 1 else None


def _group_fact(groups: ChannelGroups, group: int | None) -> Iterator[str]:
    if group is not None:
        yield f"group #{group + 1}, {groups.title(groups.names[group])}"


def _kernel(graph: Graph, node: Node) -> Iterator[str]:
    """The size of a kernel, and its stride where it is not 1."""
    op = node.op
    weight = graph.shape(node.inputs[op.weights[0]]) if op is not None and op.weights else None
    sizes = node.attributes.get("kernel_shape") or (weight or ())[2:]
    strides = node.attributes.get("strides", ())
    if sizes:
        kernel = f"{'×'.join(map(str, sizes))} kernel"
        stride = "×".join(map(str, dict.fromkeys(strides)))
        yield kernel if stride in ("", "1") else f"{kernel}, stride {stride}"
