"""The tables and lines that the command line prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from onnxprune.evaluation import FIDELITY
from onnxprune.report import (
    amount,
    classes,
    count,
    percent,
    promised,
    rows,
    ruined,
    samples_of,
    slower,
    timed_on,
    why_stopped,
)

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 4
"""Convolutions, and reasons, that the tables name for one group; more are counted."""


def outcome(report: Mapping[str, Any]) -> list[Any]:
    """Return the figures of a report or a comparison, with what is to say of its latency."""
    words = filter(None, [ruined(report), slower(report)])
    said = filter(None, [timed_on(report), promised(report)])
    return [*words, before_after_table(report), *said]


def before_after_table(report: Mapping[str, Any]) -> Table:
    """Return the figures of a report or a comparison, before and after."""
    table = empty_table("", "before", "after", "change")
    sides = report["before"], report["after"]
    metric, held_out = report.get("metric", "top-1"), report.get("held_out")
    for row in rows(*sides, metric, held_out, report.get("decisive", "")):
        table.add_row(row.label, row.before, row.after, row.change)
    if report.get("agreement") is not None and not is_fidelity(report):
        table.add_row("Same class given", "", "", percent(report["agreement"]))
    return table


def is_fidelity(report: Mapping[str, Any]) -> bool:
    """Whether agreement with the unpruned model was measured, in place of labels."""
    return bool(report.get("metric") == FIDELITY)


def worst_line(comparison: Mapping[str, Any]) -> str:
    """Return the samples on which the models agree least, the worst first."""
    found = [f"{one['sample']} ({percent(one['score'])})" for one in comparison["worst"]]
    return f"least alike: {', '.join(found)}"


def class_table(comparison: Mapping[str, Any]) -> Table:
    """Return the score of each class that has samples, before and after."""
    first = "part of the outputs" if is_fidelity(comparison) else "class"
    table = empty_table(first, "before", "after", "change")
    for line in classes(comparison):
        table.add_row(*line)
    return table


def group_table(inspection: Mapping[str, Any]) -> Table:
    """Return the groups: convolutions, widths, the share that may go, what each filter saves."""
    first = "layers" if "units" in inspection else "convolutions"
    table = empty_table(first, "width", "may go", "params\neach", "MACs\neach", numbered=True)
    for number, group in enumerate(inspection["groups"], 1):
        names, widths = group["titles"], group["widths"]
        figures = (
            f"{100 * group['removable_filters'] // max(group['filters'], 1)} %",
            amount(group["params_saved_per_filter"]),
            amount(group["macs_saved_per_filter"]),
        )
        shown = SHOWN if len(names) <= SHOWN else SHOWN - 1
        for k, (name, width) in enumerate(zip(names[:shown], widths, strict=False)):
            own = (f"{number}", figures) if k == 0 else ("", ("", "", ""))
            table.add_row(own[0], name, f"{width:,}", *own[1])
        if len(names) > shown:
            table.add_row("", f"and {len(names) - shown} more", "", "", "", "")
    return table


def pinned_table(inspection: Mapping[str, Any]) -> list[Table]:
    """Return why channels stay, group by group; no table if all may go."""
    table = empty_table("why channels stay", "channels", numbered=True)
    for number, group in enumerate(inspection["groups"], 1):
        pinned = sorted(group["pinned"], key=lambda entry: -entry["channels"])
        for k, entry in enumerate(pinned[:SHOWN]):
            label = f"{number}" if k == 0 else ""
            table.add_row(label, entry["reason"], f"{entry['channels']:,}")
        if len(pinned) > SHOWN:
            rest = sum(entry["channels"] for entry in pinned[SHOWN:])
            table.add_row("", f"and {len(pinned) - SHOWN} other reasons", f"{rest:,}")
    return [table] if table.row_count else []


def totals(inspection: Mapping[str, Any]) -> str:
    """Return one line: parameters, multiply-adds, filters, and how many of them may go."""
    filters, removable = inspection["filters"], inspection["removable_filters"]
    line = (
        f"{inspection['params']:,} parameters, {count(inspection['macs'])} MACs, "
        f"{filters:,} filters, of which {removable:,} "
        f"({percent(removable / max(filters, 1))}) may go"
    )
    if "units" not in inspection:
        return line
    units, removable = inspection["units"], inspection["removable_units"]
    return (
        f"{line}; {units:,} dense units, of which {removable:,} "
        f"({percent(removable / max(units, 1))}) may go"
    )


def step_line(figures: Mapping[str, Any], harmonic: float | None, *, included: bool = False) -> str:
    """Return one line about a step: what is removed, what is left, and how well that does.

    The rate is a share of all removable filters, or of those that are `included`.
    """
    parts = [
        f"{percent(figures['rate']):>7} {'of the included filters ' if included else ''}removed",
        f"{amount(figures['params']):>7} parameters",
        f"{amount(figures['macs']):>7} MACs",
    ]
    if harmonic is not None:
        parts.append(f"harmonic mean {percent(harmonic)}")
    return ", ".join(parts)


def remarks(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what there is to say under the table of a run."""
    if report["generated"]:
        yield f"measured on {samples_of(report)}: images may tell otherwise"
    yield f"stopped: {why_stopped(report)}"
    if report["inexact"]:
        yield f"pruned through, as allowed: {', '.join(report['inexact'])}"


def curve_line(method: str, saved: float, mean: float) -> str:
    """Return one line about a point of a curve."""
    return f"{method}: {percent(saved)} saved, mean {percent(mean)}"


def curve_table(methods: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the area under each curve (AUC), and the work to draw it."""
    table = empty_table("method", "AUC mean", "AUC harmonic", "evaluations", "seconds")
    for name, curve in methods.items():
        table.add_row(
            name,
            f"{curve['auc_mean']:.4f}",
            f"{curve['auc_harmonic']:.4f}",
            f"{curve['evaluations']:,}",
            f"{curve['seconds']:.1f}",
        )
    return table


def empty_table(first: str, *others: str, numbered: bool = False) -> Table:
    """Return an empty table: names on the left, figures on the right, a number before if asked."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    if numbered:
        table.padding = (0, 0, 0, 1)
        table.add_column("#", justify="right", no_wrap=True)
    table.add_column(first, overflow="fold")
    for heading in map(Text, others):
        table.add_column(heading, justify="right", no_wrap=True)
    return table
