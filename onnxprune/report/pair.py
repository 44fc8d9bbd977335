"""Two models on one page: what `compare` found of them, also of files for other runtimes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxprune.evaluation import FIDELITY, caption
from onnxprune.files import write_whole
from onnxprune.report.figures import percent, rows, ruined, slower, timed_on
from onnxprune.report.page import more_classes, what_changed
from onnxprune.report.record import Record
from onnxprune.report.rendering import as_json, render
from onnxprune.report.verdict import judged, verdict_on


def write_pair(comparison: Mapping[str, Any], names: tuple[str, str], path: str | Path) -> Path:
    """Write the page of a comparison of two models of these names, and return its path.

    Raises: OutputError when the place is not writable.
    """
    return write_whole(path, pair(comparison, names))


def pair(comparison: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Return the page of a comparison as HTML."""
    run = _record(comparison, names)
    metric = comparison["metric"]
    return render(
        "pair.html",
        run=run,
        names=names,
        report=None,
        verdict=verdict_on(run, tuple(_notes(comparison))),
        figures=rows(comparison["before"], comparison["after"], metric, judged=judged(run)),
        not_on_tiles=("Filters", f"Mean {caption(metric)}"),
        promised="",
        **what_changed(run),
        sides=("first", "second"),
        data=as_json({"classes": more_classes(run)}),
        samples=comparison["samples"],
        charted=False,
    )


def _record(comparison: Mapping[str, Any], names: tuple[str, str]) -> Record:
    """The comparison as what a run came to: its classes in order in place of names."""
    sides = {}
    for side in ("before", "after"):
        accuracy = comparison[side]["accuracy"]
        per_class = list(accuracy["per_class"].values())
        sides[side] = {**comparison[side], "accuracy": {**accuracy, "per_class": per_class}}
    evidence = comparison.get("evidence", {})
    return Record(" and ".join(names), {}, [], {**comparison, **sides}, evidence=evidence)


def _notes(comparison: Mapping[str, Any]) -> Iterator[str]:
    yield from filter(None, [ruined(comparison), slower(comparison)])
    if comparison.get("agreement") is not None and comparison["metric"] != FIDELITY:
        yield f"Both give {percent(comparison['agreement'])} of the samples the same class."
    if timing := timed_on(comparison):
        yield f"{timing[:1].upper()}{timing[1:]}."
