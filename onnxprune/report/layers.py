"""The layers of a run in their groups: widths, parameters, multiply-adds and milliseconds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.report.figures import MULTIPLE
from onnxprune.report.record import Record

Pair = tuple[float, float]
"""A figure before and after."""


@dataclass(frozen=True)
class Layer:
    """One layer. What is not known of it is None. Units: ms."""

    title: str
    name: str
    before: int
    after: int
    params: Pair | None = None
    macs: Pair | None = None
    ms: Pair | None = None

    @property
    def removed(self) -> float:
        """The share of its filters that went."""
        return 1 - self.after / max(self.before, 1)

    @property
    def uneven(self) -> bool:
        """Whether it lost filters and ended at a width that runtimes do not like."""
        return self.after < self.before and self.after % MULTIPLE > 0


@dataclass(frozen=True)
class Group:
    """Layers that are tied: their filters go together."""

    number: int | None
    colour: str | None
    layers: Sequence[Layer]
    reasons: Sequence[str] = ()

    def total(self, figure: str) -> Pair | None:
        """Return a figure of all its layers, None where one is not known."""
        pairs = [getattr(layer, figure) for layer in self.layers]
        if None in pairs or not pairs:
            return None
        return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)


def groups_of(run: Record) -> list[Group]:
    """Return the layers of a run, those of one group together, in the order of the network."""
    costs, network = run.evidence.get("layers", {}), run.about.get("network", {})
    group_of = {one["name"]: one["group"] for one in network.get("layers", ())}
    found: dict[Any, list[Layer]] = {}
    for one in _widths(run, network):
        number = group_of.get(one["name"])
        key = number if number is not None else one["name"]
        found.setdefault(key, []).append(_layer(one, costs.get(one["name"], {})))
    listed = []
    for key, layers in found.items():
        own = network["groups"][key] if isinstance(key, int) else {}
        reasons = [reason["text"] for reason in own.get("reasons", ())]
        number = key + 1 if isinstance(key, int) else None
        listed.append(Group(number, own.get("colour"), layers, reasons))
    return listed


def _layer(one: Mapping[str, Any], costs: Mapping[str, Any]) -> Layer:
    pairs = {key: tuple(costs[key]) for key in ("params", "macs", "ms") if costs.get(key)}
    title = one.get("title") or one["name"]
    return Layer(title, one["name"], one["filters"], one["filters"] - one["removed"], **pairs)


def _widths(run: Record, network: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The layers of the report; of an unfinished run, those of the network at its last step."""
    if run.report is not None:
        return list(run.report["layers"])
    dead = sorted(run.steps[-1].get("dead", ())) if run.steps else []
    found = []
    for layer in network.get("layers", ()):
        removed = sum(
            bisect_left(dead, first + count) - bisect_left(dead, first)
            for first, count in layer["channels"]
        )
        filters = sum(count for _, count in layer["channels"])
        found.append({**layer, "filters": filters, "removed": removed})
    return found
