"""What may go on request only: the rules of the options, and what to say where no filter may."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.checks import Names
from onnxprune.errors import check_name
from onnxprune.graph import Graph, inner_nodes
from onnxprune.ops import check_operators

DENSE = "dense"
"""Units of dense layers, and the inner widths of attention."""

BRANCHES = "branches"
"""The last filters of a branch, and the branch with them."""

KINDS = (DENSE, BRANCHES)


def check_kinds(names: Sequence[str]) -> None:
    """Refuse what cannot go on request.

    Raises: UnknownName for the first such name.
    """
    for name in names:
        check_name("also", name, KINDS)


ALSO = Names(
    of=f"what may go beside filters: {', '.join(KINDS)}",
    commas=True,
    also=check_kinds,
    metavar="KINDS",
    help="Let more than filters go; dense: the units of hidden dense layers and the inner widths "
    "of attention, which count as filters in --rate; branches: the last filters of a branch.",
)

ALLOW_INEXACT = Names(
    of="operators, or of the beginnings of their names",
    commas=True,
    also=check_operators,
    metavar="OPERATORS",
    help="Prune through these operators although they mix channels, such as layernorm,groupnorm; "
    "the report names each node.",
)


def why_no_filters(graph: Graph, *, dense: bool) -> str:
    """What to say of a graph without convolutions of its own; `dense` was asked for or not."""
    for node in graph.nodes:
        if any(inner.op and inner.op.filters for inner in inner_nodes(node, graph.opsets)):
            return (
                f"{node}: holds the convolutions of graph '{graph.proto.name}' in a graph of its "
                f"own, where onnxprune does not follow them; expected them in the main graph, in "
                f"branches of an If or the body of a Loop or Scan; export that graph as a model"
            )
    weighs = any(graph.filter_axis(node, dense=True) is not None for node in graph.nodes)
    others = "its dense layers are pruned with --also dense; " if weighs and not dense else ""
    return (
        f"graph '{graph.proto.name}': has no convolutions, so there are no filters to prune; "
        f"{others}onnxprune is made for CNNs"
    )
