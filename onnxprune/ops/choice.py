"""If, seen as a choice between what its branches make, whose nodes stand before it.

It is no entry of the registry: only the view of a graph says which If is seen so (`Node.choice`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.ops._op import Op, Relevance
from onnxprune.ops.channels import ALIGNS, Axes, How, Pins
from onnxprune.ops.site import Site, follows_open

if TYPE_CHECKING:
    from torch import Tensor


def _chosen(site: Site) -> How:
    """One branch alone where shapes say which is taken, else both, which have to be alike."""
    _, *branches = site.shapes
    condition = site.values[0]
    if condition is not None and None not in branches and not follows_open(site, 0):
        read = [" ".join(f"{name}{k}" for k in range(site.rank(j))) for j, name in enumerate("cte")]
        return Axes(f"{', '.join(read)} -> {read[1 if condition.all() else 2]}")
    if branches[0] is not None and branches == [site.output_shapes[0]] * 2:
        return ALIGNS
    return Pins("whose branches return different shapes")


def choose(condition: Tensor, one: Tensor, other: Tensor, /) -> Tensor:
    """Return what one of two branches makes. Shapes: condition of one element.

    Source: ONNX operator If-25.
    """
    return one if bool(condition.all()) else other


CHOICE = Op(
    name="If",
    domain="",
    since=(),
    forward=choose,
    how=_chosen,
    relevance=Relevance.COPY,
    restate=None,
    pins=None,
    weights=(),
    biases=(),
    filters=False,
    columns_along=None,
    scatters=False,
    quick=None,
    quick_back=None,
    zero_points={},
    scales={},
    quantises=None,
    keeps_shape=False,
)
"""What `Node.op` is of a choice."""
