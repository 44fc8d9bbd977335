"""Numbers that are none are refused, with the node where they begin."""

from __future__ import annotations

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.data import Data, by_name
from onnxprune.errors import InvalidModel
from onnxprune.evaluation import first_not_finite
from onnxprune.graph import Graph

BATCH = 8
"""Samples that are looked at together."""


def check_finite(
    what: str, finite: BoolArray, graph: Graph, groups: ChannelGroups, data: Data | None
) -> None:
    """Refuse values of channels that are not all `finite`.

    They begin where the model computes such a number from a sample, or else on the way back: at the
    last layer that has one.
    Shapes: finite `[channels]`.
    Raises: InvalidModel naming the node.
    """
    if finite.all():
        return
    x = None if data is None else by_name(data.x, graph.inputs[0])
    step = 1 if x is not None and x.apart else BATCH
    for start in range(0, 0 if x is None else len(x), step):
        assert x is not None
        place = first_not_finite(graph.model, x[start : start + step].feeds)
        if place is not None:
            raise InvalidModel(
                f"{what} is not a number, which begins at {place}, on samples from {start} on; "
                "look at the samples and at the weights"
            )
    last = [filters for filters in groups.filters if not finite[filters.channels].all()][-1]
    raise InvalidModel(
        f"{what} is not a number, which begins at Conv '{last.node}', while all that the model "
        "computes is one; try another criterion, as lrp:zplus"
    )
