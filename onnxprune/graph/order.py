"""The order of nodes: ONNX wants each to stand behind what it reads.

onnxruntime runs nodes in whatever order they stand, and its own float16 converter puts Casts last.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush

from onnx import FunctionProto, GraphProto, ModelProto

from onnxprune.errors import InvalidModel
from onnxprune.ops import captures, subgraphs

Body = GraphProto | FunctionProto

MOST_NAMED = 4
"""Nodes of a circle that a message names."""


def is_sorted(model: ModelProto) -> bool:
    """Say whether each node of a model stands behind what it reads.

    Raises: InvalidModel naming the nodes of a circle.
    """
    return all(_order(body) is None for body in with_subgraphs(model.graph, *model.functions))


def sort_nodes(model: ModelProto) -> ModelProto:
    """Put each node behind what it reads, in subgraphs and functions too; return the model.

    A node moves only where it must, and then as little as it can.
    Raises: InvalidModel naming the nodes of a circle.
    """
    for body in with_subgraphs(model.graph, *model.functions):
        order = _order(body)
        if order is not None:
            places = dict(zip(order, range(len(order)), strict=True))
            numbers = iter(range(len(order)))
            body.node.sort(key=lambda _: places[next(numbers)])
    return model


def with_subgraphs(*bodies: Body) -> Iterator[Body]:
    """Yield bodies of nodes, and those of the graphs that their nodes hold, at any depth."""
    left = [*bodies]
    while left:
        body = left.pop()
        yield body
        left += [graph for node in body.node for graph in subgraphs(node)]


def _order(body: Body) -> list[int] | None:
    """The numbers of the nodes in an order in which they run, None where they are in one."""
    makers = {name: k for k, node in enumerate(body.node) for name in node.output if name}
    read = {
        k: {makers[name] for name in (*node.input, *captures(node)) if name in makers}
        for k, node in enumerate(body.node)
    }
    if all(max(before, default=-1) < k for k, before in read.items()):
        return None
    sorter = TopologicalSorter(read)
    try:
        sorter.prepare()
    except CycleError as error:
        circle = [body.node[k] for k in dict.fromkeys(error.args[1])]
        names = [f"'{node.name or ', '.join(node.output)}'" for node in circle]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        raise InvalidModel(
            f"graph '{body.name}': nodes {', '.join(names[:MOST_NAMED])}{more} read what is "
            f"computed from their own outputs; expected a graph without circles; export it again"
        ) from error
    ready: list[int] = []
    order: list[int] = []
    while sorter.is_active():
        for k in sorter.get_ready():
            heappush(ready, k)
        order.append(heappop(ready))
        sorter.done(order[-1])
    return order
