"""The tables that the command line prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnxprune.report import percent, rows

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 4
"""Tied convolutions named in a row; more are counted."""


def before_after_table(report: Mapping[str, Any]) -> Table:
    """Return the figures before and after of a report or a comparison."""
    table = _table("", "before", "after", "change")
    for row in rows(report["before"], report["after"]):
        table.add_row(row.label, row.before, row.after, row.change)
    if "agreement" in report:
        table.add_row("Same class given", "", "", percent(report["agreement"]))
    return table


def class_table(comparison: Mapping[str, Any]) -> Table:
    """Return the accuracy of every class that has samples, before and after."""
    table = _table("class", "before", "after", "change")
    sides = (comparison[side]["accuracy"]["per_class"] for side in ("before", "after"))
    for number, (one, other) in enumerate(zip(*sides, strict=True)):
        if one is None or other is None:
            continue
        names = comparison["classes"]
        name = names[number] if number < len(names) else str(number)
        change = f"{100 * (other - one):+.1f} points".replace("-", "\u2212")
        table.add_row(name, percent(one), percent(other), change)
    return table


def group_table(inspection: Mapping[str, Any]) -> Table:
    """Return what can go, what each channel saves, and why the rest stays."""
    table = _table("convolutions", "channels\nto remove", "params\neach", "MACs\neach")
    explained = any(group["reason"] for group in inspection["groups"])
    if explained:
        table.add_column("why the rest stays", overflow="fold")
    for group in inspection["groups"]:
        names = group["convolutions"]
        more = [f"and {len(names) - SHOWN + 1} more"] if len(names) > SHOWN else []
        shown = [*names[: SHOWN - 1], *more] if more else names
        table.add_row(
            "\n".join(shown),
            f"{group['removable']:,} of {group['channels']:,}",
            f"{group['params_saved']:,}",
            f"{group['macs_saved']:,}",
            *([group["reason"] or ""] if explained else []),
        )
    return table


def totals(inspection: Mapping[str, Any]) -> str:
    """Return one line: size, cost, and how much of the model may go."""
    filters, removable = inspection["filters"], inspection["removable_filters"]
    return (
        f"{inspection['params']:,} parameters, {inspection['macs']:,} MACs, {filters:,} filters, "
        f"of which {removable:,} ({percent(removable / max(filters, 1))}) may go"
    )


def step_line(figures: Mapping[str, Any]) -> str:
    """Return one line about a step of a run: what is gone, what is left, what it cost."""
    parts = [
        f"{percent(figures['rate'])} removed",
        f"{figures['params']:,} parameters",
        f"{figures['macs']:,} MACs",
    ]
    if "harmonic" in figures:
        parts.append(f"harmonic mean {figures['harmonic']:.4f}")
    return ", ".join(parts)


def curve_table(methods: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the area under each curve and what it took to draw it."""
    table = _table("method", "AUC mean", "AUC harmonic", "evaluations", "seconds")
    for name, curve in methods.items():
        table.add_row(
            name,
            f"{curve['auc_mean']:.4f}",
            f"{curve['auc_harmonic']:.4f}",
            f"{curve['evaluations']:,}",
            f"{curve['seconds']:.1f}",
        )
    return table


def _table(first: str, *others: str) -> Table:
    """Return an empty table with names on the left and figures on the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column(first, overflow="fold")
    for heading in others:
        table.add_column(heading, justify="right", no_wrap=True)
    return table
