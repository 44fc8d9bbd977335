"""Inspect a model: which filters can go, what that saves, and why the others stay.

The result is a plain dictionary, the content of `inspect --json`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.channels import DENSE, ChannelGroups, find_groups
from onnxprune.graph import Graph, InputShapes, ModelSource, naming_file
from onnxprune.ops import Pins
from onnxprune.report.drawing import write_drawing
from onnxprune.surgery import Costs, find_costs, knows_macs

logger = logging.getLogger(__name__)

MOST_REASONS = 3
"""Reasons that `reason` joins for one group; it counts more. `pinned` lists all."""


def inspect(
    model: ModelSource,
    *,
    allow_inexact: Sequence[str] = (),
    also: Sequence[str] = (),
    svg: str | Path | None = None,
    input_shapes: InputShapes = (),
) -> dict[str, Any]:
    """Return what can be removed from a model, what cannot and why, and what each group costs.

    With `also=["dense"]` the units of dense layers are groups, too, and are counted in `units` and
    `removable_units`; `filters` and `coverage` are those of convolutions alone.
    With `svg`, also draw the network into that file. `input_shapes` are sizes of inputs that the
    model leaves open, by name; what is assumed without them is logged as a warning.
    Units: `coverage`, removable filters over filters; `channels` and `removable`, channels of a
    group; `params_saved` and `macs_saved`, parameters and multiply-adds that the removal of one
    channel saves on average; `.._per_filter`, the same divided by its filters. Multiply-adds that
    are not known are None, `macs_unknown` names their nodes.
    Raises: InvalidModel when the model cannot be read or has no convolution; OutputError when the
    drawing cannot be written; UnknownName for an operator that does not exist.
    """
    graph = Graph.load(model, input_shapes=input_shapes)
    graph.warn()
    with naming_file(model):
        groups = find_groups(graph, allow_inexact=allow_inexact, also=also)
    if svg is not None:
        write_drawing(graph, groups, svg, _title(model, graph))
    costs = find_costs(graph, groups)
    full = costs.of()
    if costs.caveat:
        logger.warning("%s", costs.caveat)
    members = _members(groups)
    weights = {
        name for node in graph.nodes if node.name in full.unknown for name in node.inputs if name
    }
    found = [_group(groups, costs, k, members[k], weights) for k in range(len(groups.names))]
    found += _ungrouped(graph, groups)
    filters = sum(group["filters"] for group in found) - (full.units or 0)
    removable_units = int(groups.unit_count[groups.removable].sum())
    removable = groups.removable_filters - removable_units
    return {
        **full.figures(),
        "macs_unknown": list(full.unknown),
        "filters": filters,
        "removable_filters": removable,
        "coverage": removable / max(filters, 1),
        **({} if full.units is None else {"removable_units": removable_units}),
        "inexact": list(groups.inexact),
        "groups": found,
    }


def _title(model: ModelSource, graph: Graph) -> str:
    return Path(model).stem if isinstance(model, str | Path) else graph.proto.name


def _group(
    groups: ChannelGroups,
    costs: Costs,
    number: int,
    members: list[dict[str, Any]],
    unknown: Collection[str],
) -> dict[str, Any]:
    own = groups.channels_of(number)
    convolutions = groups.filters_of(number)
    filters = int(groups.filter_count[own].sum())
    pinned = _pinned(groups, own.tolist())
    saved: dict[str, FloatArray | None] = {
        "params": costs.params_saved[own],
        "macs": costs.macs_saved[own],
    }
    if any(member["tensor"] in unknown for member in members):
        saved["macs"] = None
    return {
        "name": groups.names[number],
        "channels": int(own.size),
        "removable": int(groups.removable[own].sum()),
        "reason": _reason(pinned),
        "members": members,
        "convolutions": [found.node for found in convolutions],
        "titles": [groups.title(found.node) for found in convolutions],
        "widths": [int(found.channels.size) for found in convolutions],
        "filters": filters,
        "removable_filters": int(groups.filter_count[own[groups.removable[own]]].sum()),
        **{f"{what}_saved": _share(each, own.size) for what, each in saved.items()},
        **{f"{what}_saved_per_filter": _share(each, filters) for what, each in saved.items()},
        "pinned": pinned,
    }


def _share(saved: FloatArray | None, count: int) -> int | None:
    return None if saved is None else round(float(saved.sum()) / max(count, 1))


def _ungrouped(graph: Graph, groups: ChannelGroups) -> Iterator[dict[str, Any]]:
    """Yield a pinned group for each convolution whose filters the analysis does not follow."""
    known = {found.node for found in groups.filters}
    for node in graph.nodes:
        op, axis = node.op, graph.filter_axis(node, dense=DENSE in groups.also)
        if op is None or axis is None or node.name in known:
            continue
        how, shape = graph.how(node), graph.shape(node.outputs[0])
        weight = graph.shape(node.inputs[op.weights[0]]) or (0, 0)
        width = weight[1] * node.attributes.get("group", 1) if op.scatters else weight[0]
        width = width if shape is None else shape[axis]
        why = how.why if isinstance(how, Pins) else "whose output shape is not known"
        reason = f"{node} has one filter" if width == 1 else f"belongs to {node}, {why}"
        yield {
            "name": node.name,
            "channels": width,
            "removable": 0,
            "reason": reason,
            "members": [],
            "convolutions": [node.name],
            "titles": [groups.title(node.name)],
            "widths": [width],
            "filters": width,
            "removable_filters": 0,
            "params_saved": 0,
            "macs_saved": 0 if knows_macs(graph, node) else None,
            "params_saved_per_filter": 0,
            "macs_saved_per_filter": 0 if knows_macs(graph, node) else None,
            "pinned": [{"reason": reason, "node": node.name, "channels": width}],
        }


def _pinned(groups: ChannelGroups, channels: Sequence[int]) -> list[dict[str, Any]]:
    """Return the distinct reasons of pinned channels: text, node, and number of channels."""
    counts = Counter(groups.reasons[c] for c in channels if c in groups.reasons)
    return [
        {"reason": reason.text, "node": reason.node, "channels": count}
        for reason, count in counts.items()
    ]


def _reason(pinned: Sequence[Mapping[str, Any]]) -> str | None:
    """Join the reasons of pinned channels; None if there are none."""
    reasons = [entry["reason"] for entry in pinned]
    if len(reasons) > MOST_REASONS:
        more = f"{len(reasons) - MOST_REASONS + 1} other reasons"
        reasons = [*reasons[: MOST_REASONS - 1], more]
    return "; ".join(reasons) or None


def _members(groups: ChannelGroups) -> list[list[dict[str, Any]]]:
    """Return the tensor axes of each group."""
    found: list[list[dict[str, Any]]] = [[] for _ in groups.names]
    for tensor, axes in groups.cuts.items():
        for axis, channels in axes.items():
            for number in np.unique(groups.group[channels[channels >= 0]]).tolist():
                found[number].append({"tensor": tensor, "axis": axis})
    return found
