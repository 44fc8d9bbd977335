"""The figures of a report as people read them, for its page and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxprune.evaluation import caption

HELD_OUT = "Harmonic mean, held out"
"""Of each part of the samples, with weights that were corrected on the others."""

STOPPED = {
    "target": "the target was reached",
    "floor": "every further step would have fallen under the accuracy floor",
    "limits": "nothing more may go within the limits",
}


@dataclass(frozen=True)
class Row:
    """One figure before and after, and the change, as people read them."""

    label: str
    before: str
    after: str
    change: str


def rows(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    metric: str = "top-1",
    held_out: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Return the figures that both sides have, as a report holds them, to put in a table."""
    found = []
    for key, label in (("params", "Parameters"), ("macs", "MACs"), ("filters", "Filters")):
        one, other = before[key], after[key]
        found.append(Row(label, f"{one:,}", f"{other:,}", _relative(one, other)))
    for key, label, scale, unit in (
        ("size_bytes", "File size", 1e-6, "MB"),
        ("latency_ms", "Latency", 1.0, "ms"),
    ):
        one, other = before.get(key), after.get(key)
        if one and other:
            one, other = one * scale, other * scale
            texts = (f"{one:,.3g} {unit}", f"{other:,.3g} {unit}")
            found.append(Row(label, *texts, _relative(one, other)))
    if before.get("accuracy") and after.get("accuracy"):
        measured = [
            (f"Mean {caption(metric)}", "mean", after["accuracy"]),
            ("Harmonic mean", "harmonic", after["accuracy"]),
            (HELD_OUT, "harmonic", held_out),
        ]
        for label, key, figures in measured:
            if figures is not None:
                one, other = before["accuracy"][key], figures[key]
                change = f"{100 * (other - one):+.1f} points".replace("-", "\u2212")
                found.append(Row(label, percent(one), percent(other), change))
    return found


def why_stopped(report: Mapping[str, Any]) -> str:
    """Say what ended a run, and which options."""
    why = STOPPED.get(report["stopped"], report["stopped"])
    names = ", ".join(name.replace("_", "-") for name in report.get("stopped_by", ()))
    return f"{why} ({names})" if names else why


def percent(share: float | None) -> str:
    """Format a share; None is a class without samples."""
    return "\u2013" if share is None else f"{100 * share:.1f} %"


def _relative(one: float, other: float) -> str:
    change = 100 * (other / one - 1) if one else 0.0
    return f"{change:+.1f} %".replace("-", "\u2212")
