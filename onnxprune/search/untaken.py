"""Branches of an If that no sample takes: nothing says what their filters are worth."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, ValueInfoProto

from onnxprune.channels import ChannelGroups, Reason
from onnxprune.data import Data, Inputs, by_name
from onnxprune.evaluation import session
from onnxprune.graph import Graph, copied, open_branches
from onnxprune.ops import Held


def hold_untaken(graph: Graph, groups: ChannelGroups, data: Data | None) -> ChannelGroups:
    """Return the groups, in which channels stay that only branches without a sample hold.

    Their multiply-adds do not count either. Without samples no branch is worth more than another.
    """
    ifs = [node for node in graph.proto.node if open_branches(graph.model, node)]
    if data is None or not ifs:
        return groups
    taken = _taken(graph, data, {node.input[0] for node in ifs})
    reasons, untaken = dict(groups.reasons), set[Held]()
    for node in ifs:
        branches = open_branches(graph.model, node)
        for branch, way in zip(branches, (True, False), strict=True):
            if way not in taken[node.input[0]]:
                reason = Reason(f"stands in a branch of If '{node.output[0]}' that no sample takes")
                first = next(filter(None, node.output))
                untaken.add(Held(first, 0 if way else 1, is_branch=True))
                inside = set(_written(graph.model, branch))
                reasons |= dict.fromkeys(_only_in(groups, inside) - reasons.keys(), reason)
    held = dict(sorted(reasons.items()))
    return replace(groups, reasons=held, untaken=frozenset(untaken))


def _taken(graph: Graph, data: Data, conditions: Collection[str]) -> dict[str, set[bool]]:
    """The values that conditions have on the samples, run one by one."""
    model = copied(graph.model)
    del model.graph.output[:]
    names = sorted(conditions)
    model.graph.output.extend(ValueInfoProto(name=n, type=graph.facts.types[n]) for n in names)
    run = session(model, device="cpu").run
    found: dict[str, set[bool]] = {name: set() for name in names}
    batch = (graph.shape(graph.inputs[0]) or (1,))[0]
    for x, _ in data.batches(1):
        alone = isinstance(x, Inputs) and x.apart
        feeds = by_name(x if alone else x[np.zeros(batch, int)], graph.inputs[0]).feeds
        for name, value in zip(names, run(names, feeds), strict=True):
            found[name].add(bool(value.all()))
    return found


def _written(model: ModelProto, branch: GraphProto) -> Iterator[str]:
    """The tensors that the nodes of a branch write, and those of the branches in it."""
    nodes: list[NodeProto] = [*branch.node]
    for node in nodes:
        yield from node.output
        for inner in open_branches(model, node):
            nodes += inner.node


def _only_in(groups: ChannelGroups, tensors: Collection[str]) -> set[int]:
    """The channels all of whose convolutions write one of the tensors."""
    sides: tuple[set[int], set[int]] = (set(), set())
    for filters in groups.filters:
        sides[filters.output in tensors].update(filters.channels[filters.channels >= 0].tolist())
    return sides[1] - sides[0]
