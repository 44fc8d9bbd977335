"""Several runs side by side on one page: verdicts, figures, curves, what was asked otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.evaluation import caption
from onnxprune.files import write_whole
from onnxprune.report.figures import HELD_OUT, Row, rows
from onnxprune.report.page import settings_of
from onnxprune.report.record import Record
from onnxprune.report.rendering import as_json, render
from onnxprune.report.steps import steps_of
from onnxprune.report.verdict import judged, verdict

ALIKE = "\u2013"
"""In place of a figure that a run does not have."""


def write_comparison(folders: Sequence[str | Path], path: str | Path) -> Path:
    """Write one page of several run directories and return its path.

    Raises: RunDirectoryError when a folder holds no run; OutputError when the place is not
    writable.
    """
    runs = [Record.read(Path(folder)) for folder in folders]
    links = [_link(Path(folder) / "report.html", Path(path).parent) for folder in folders]
    return write_whole(path, comparison(runs, links))


def comparison(runs: Sequence[Record], links: Sequence[str]) -> str:
    """Return the page of several runs as HTML; `links` lead to the page of each, "" to none."""
    names = _names(runs)
    metrics = {run.metric for run in runs}
    steps = [[one for one in steps_of(run) if one["kind"] == "kept"] for run in runs]
    measured = [any(one["harmonic"] is not None for one in each) for each in steps]
    keys = ("rate", "macs", "params", "bytes", "ms", "mean", "harmonic")
    data = {
        "metric": " / ".join(sorted(caption(metric) for metric in metrics)),
        "runs": [
            {"name": name, "steps": [{key: one[key] for key in keys} for one in each]}
            for name, each in zip(names, steps, strict=True)
        ],
    }
    return render(
        "compare.html",
        runs=[
            {"name": name, "link": link, "verdict": verdict(run), "run": run}
            for name, link, run in zip(names, links, runs, strict=True)
        ],
        figures=_figures(runs),
        differ=_differ(runs),
        one_model=len({run.digests.get("model_sha256") for run in runs}) == 1,
        one_data=len({run.digests.get("data_sha256") for run in runs}) == 1,
        one_metric=len(metrics) == 1,
        data=as_json(data),
        charted=any(measured),
    )


def _link(page: Path, folder: Path) -> str:
    """The way from a folder to a page, if there is one."""
    if not page.is_file():
        return ""
    return Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix()


def _names(runs: Sequence[Record]) -> list[str]:
    """The names of the folders, numbered where two are alike."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({number})"
        for number, name in enumerate(names, 1)
    ]


def _figures(runs: Sequence[Record]) -> list[tuple[str, list[Row | None]]]:
    """Each figure that a run has, with its row of every run."""
    found: dict[str, dict[int, Row]] = {}
    for number, run in enumerate(runs):
        if run.sides is not None:
            held_out = (run.report or {}).get("held_out")
            for row in rows(*run.sides, run.metric, held_out, run.decisive, judged(run)):
                found.setdefault(row.label, {})[number] = row
    labels = sorted(found, key=lambda label: label == HELD_OUT)
    return [(label, [found[label].get(number) for number in range(len(runs))]) for label in labels]


def _differ(runs: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """The settings that are not the same in all runs."""
    settings: list[Mapping[str, Any]] = [dict(settings_of(run)) for run in runs]
    names = dict.fromkeys(name for one in settings for name in one)
    found = [(name, [str(one.get(name, ALIKE)) for one in settings]) for name in names]
    return [(name, values) for name, values in found if len(set(values)) > 1]
