"""What there is to see: what of a model could go and why the rest stays; how two models differ.

Both are plain dictionaries, the content of `inspect --json` and `compare --json`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.cost import Costs, find_costs
from onnxprune.data import Source
from onnxprune.evaluate import Accuracy, Evaluator, agreement
from onnxprune.graph import Graph, load_model
from onnxprune.graph import Source as ModelSource
from onnxprune.run import describe, open_model
from onnxprune.settings import Settings

MOST_REASONS = 3
"""More different reasons for one group are counted, not listed."""


def inspect(model: ModelSource) -> dict[str, Any]:
    """Return what can be removed from a model, what cannot and why, and what each group costs.

    Units: `channels` and `removable` count the channels of a group; `params_saved` and `macs_saved`
    are what the removal of one of them saves, on average.
    Raises: InvalidModel when the model cannot be read or has no convolution.
    """
    graph = Graph.load(model)
    groups = find_groups(graph)
    costs = find_costs(graph, groups)
    full = costs.of()
    members = _members(groups)
    return {
        "params": full.params,
        "macs": full.macs,
        "filters": full.filters,
        "removable_filters": groups.removable_filters,
        "groups": [_group(groups, costs, k, members[k]) for k in range(len(groups.names))],
    }


def _group(
    groups: ChannelGroups, costs: Costs, number: int, members: list[dict[str, Any]]
) -> dict[str, Any]:
    own = np.flatnonzero(groups.group == number)
    return {
        "name": groups.names[number],
        "channels": int(own.size),
        "removable": int(groups.removable[own].sum()),
        "reason": _reason(groups, own.tolist()),
        "members": members,
        "convolutions": [f.node for f in groups.filters_of(number)],
        "filters": int(groups.filter_count[own].sum()),
        "params_saved": round(float(costs.params_saved[own].mean())),
        "macs_saved": round(float(costs.macs_saved[own].mean())),
    }


def _reason(groups: ChannelGroups, channels: list[int]) -> str | None:
    """Join the different reasons of the channels that stay."""
    reasons = list(dict.fromkeys(groups.reasons[c] for c in channels if c in groups.reasons))
    if len(reasons) > MOST_REASONS:
        more = f"{len(reasons) - MOST_REASONS + 1} other reasons"
        reasons = [*reasons[: MOST_REASONS - 1], more]
    return "; ".join(reasons) or None


def _members(groups: ChannelGroups) -> list[list[dict[str, Any]]]:
    """The tensor axes that each group is on."""
    found: list[list[dict[str, Any]]] = [[] for _ in groups.names]
    for tensor, axes in groups.cuts.items():
        for axis, channels in axes.items():
            for number in np.unique(groups.group[channels[channels >= 0]]).tolist():
                found[number].append({"tensor": tensor, "axis": axis})
    return found


def compare(
    before: ModelSource, after: ModelSource, data: Source, settings: Settings
) -> dict[str, Any]:
    """Return cost, latency and accuracy of two models on the same samples, and their agreement.

    Units: `agreement`, share of the samples that both put into the same class.
    Raises: OnnxPruneError for whatever is wrong with a model or the samples.
    """
    models = (load_model(before), load_model(after))
    _, samples = open_model(models[0], data, settings)
    assert samples is not None
    judge = Evaluator(
        samples,
        device=settings.device,
        threads=settings.threads,
        batch_size=settings.batch_size,
    )
    sides, rows = [], []
    for model in models:
        rows.append(judge.logits(model))
        graph = Graph(model)
        cost = find_costs(graph, find_groups(graph)).of()
        accuracy = Accuracy.from_logits(rows[-1], samples.y)
        sides.append(describe(model, cost, samples, settings, accuracy=accuracy))
    return {
        "before": sides[0],
        "after": sides[1],
        "agreement": agreement(rows[0], rows[1]),
        "samples": len(samples),
        "classes": list(samples.classes),
    }
