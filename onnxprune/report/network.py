"""A network as a page draws it: its boxes and lines, its groups, and whose filters are whose.

What is gone is not here: a page fills it in, for any step of a run.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from onnxprune.channels import ChannelGroups
from onnxprune.errors import NOTICE, OutputError
from onnxprune.graph import Graph
from onnxprune.report.boxes import Box, find_boxes
from onnxprune.report.drawing import box_label, box_size, edges_of, group_colours, line_path
from onnxprune.report.layout import Point, lay_out
from onnxprune.report.skeleton import pinning

logger = logging.getLogger(__name__)


def network_of(graph: Graph, groups: ChannelGroups) -> dict[str, Any]:
    """Return the drawing of a network, its groups and its layers, as JSON holds them.

    `layers` have the channel of each filter, as runs `[first, count]`. A group of several
    layers has a `colour`, unless too many neighbour it. A network that is too large to be drawn
    has no boxes and no lines, and a notice says so.
    """
    boxes = find_boxes(graph, groups)
    try:
        layout = lay_out([box_size(box) for box in boxes], edges_of(boxes))
    except OutputError:
        logger.log(NOTICE, "the network is too large to be drawn: the page has no drawing")
        boxes, layout = [], lay_out([], [])
    colours = group_colours(groups, boxes, layout)
    pins = pinning(groups)
    return {
        "channels": len(groups),
        "width": round(layout.width, 1),
        "height": round(layout.height, 1),
        "boxes": [
            _box(box, centre, pins) for box, centre in zip(boxes, layout.centres, strict=True)
        ],
        "lines": [line_path(points) for points in layout.lines],
        "groups": [_group(groups, number, colours) for number in range(len(groups.names))],
        "layers": [
            {
                "name": found.node,
                "title": groups.title(found.node),
                "group": _most(groups.group[found.channels[found.channels >= 0]].tolist()),
                "kind": "dense" if found.dense else "convolution",
                "channels": list(_runs(found.channels.tolist())),
            }
            for found in groups.filters
        ],
        "dense": list(_dense(graph, groups)),
    }


def _box(box: Box, centre: Point, pins: frozenset[str]) -> dict[str, Any]:
    width, height = box_size(box)
    node = box.vertex.node
    return {
        "x": round(centre[0] - width / 2, 1),
        "y": round(centre[1] - height / 2, 1),
        "w": round(width, 1),
        "h": height,
        "label": box_label(box),
        "name": box.title,
        "node": "" if node is None else node.name,
        "layer": box.is_convolution,
        "filters": box.filters,
        "removable": box.removable,
        "group": box.group,
        "pins": node is not None and node.name in pins,
        "facts": list(box.facts),
    }


def _group(groups: ChannelGroups, number: int, colours: Mapping[int, str]) -> dict[str, Any]:
    own = groups.channels_of(number)
    stays = own[~groups.removable[own]]
    counts = Counter(groups.reasons[c] for c in stays.tolist() if c in groups.reasons)
    return {
        "title": groups.title(groups.names[number]),
        "channels": int(own.size),
        "removable": int(groups.removable[own].sum()),
        "colour": colours.get(number),
        "reasons": [
            {"text": reason.text, "lift": reason.lift, "channels": count}
            for reason, count in counts.items()
        ],
    }


def _most(numbers: Sequence[int]) -> int | None:
    return Counter(numbers).most_common(1)[0][0] if numbers else None


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ascending runs of numbers as first and count.

    >>> list(_runs([4, 5, 6, 2, 3]))
    [(4, 3), (2, 2)]
    """
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        yield found[0], len(found)


def _dense(graph: Graph, groups: ChannelGroups) -> Iterator[dict[str, Any]]:
    """The dense layers whose units stay because nobody asked for them: all but the last."""
    if "dense" in groups.also:
        return
    found = []
    for node in graph.nodes:
        op = node.op
        if op is None or graph.filter_axis(node) is not None or not op.weights:
            continue
        shape = graph.shape(node.inputs[op.weights[0]])
        if shape is not None and len(shape) == 2:
            found.append({"name": groups.title(node.name), "params": int(np.prod(shape))})
    yield from found[:-1]
