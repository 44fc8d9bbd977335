"""The page of a run: one HTML file without requests, to read, print and pass on.

`page.html` is its template; this file prepares what the template shows. All of it comes from the
files of a run directory. The page of a run that has not finished shows the steps so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.evaluation import caption
from onnxprune.files import write_whole
from onnxprune.report.figures import (
    HELD_OUT,
    count,
    duration,
    percent,
    rows,
    samples_of,
    slower,
    why_stopped,
)
from onnxprune.report.plots import run_plot
from onnxprune.report.record import Record

if TYPE_CHECKING:
    from jinja2 import Template

SHOWN_CLASSES = 40
"""Of more classes, the page shows those that changed most, and folds the others away."""


def write_page(path: str | Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises: RunDirectoryError when the folder holds no run; OutputError when it is not writable.
    """
    path = Path(path)
    return write_whole(path / "report.html", page(Record.read(path)))


def page(run: Record) -> str:
    """Return the page of a run as HTML."""
    held_out = (run.report or {}).get("held_out")
    classes = list(_classes(run))
    lost_most = classes
    if len(classes) > SHOWN_CLASSES:
        lost_most = sorted(classes, key=lambda one: one["after"] - one["before"])[:SHOWN_CLASSES]
    return _template().render(
        run=run,
        report=run.report,
        figures=[] if run.sides is None else rows(*run.sides, run.metric, held_out),
        not_on_tiles=("Filters", f"Mean {caption(run.metric)}", HELD_OUT),
        slower=slower(run.report) if run.report is not None else "",
        samples=samples_of(run.report) if run.report is not None else None,
        why=why_stopped(run.report) if run.report is not None else None,
        held_out=held_out,
        plot=run_plot(run.points, run.floor, run.metric) if run.points else None,
        metric=caption(run.metric),
        classes=lost_most,
        other_classes=[one for one in classes if one not in lost_most],
        settings=dict(_settings(run)),
    )


def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("onnxprune.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "count": count}
    return environment.get_template("page.html")


def _classes(run: Record) -> Iterator[Mapping[str, Any]]:
    """Number, name, score before and score after of each class that has samples."""
    sides = run.sides or ()
    if not sides or not all(side.get("accuracy") for side in sides):
        return
    names = run.report["classes"] if run.report is not None else []
    scores = zip(*(side["accuracy"]["per_class"] for side in sides), strict=True)
    for number, (before, after) in enumerate(scores):
        if before is not None and after is not None:
            name = names[number] if number < len(names) else str(number)
            yield {"number": number, "name": name, "before": before, "after": after}


def _settings(run: Record) -> Iterator[tuple[str, str]]:
    """The settings that have a value, those of target, floor and limits among them."""
    for key, value in run.settings.items():
        for name, one in value.items() if isinstance(value, dict) else [(key, value)]:
            if one is not None and one != []:
                texts = map(_plain, one) if isinstance(one, list) else [str(one)]
                yield name.replace("_", " "), ", ".join(texts)


def _plain(one: Any) -> str:
    """A name, or a name with a shape or a share."""
    if isinstance(one, str):
        return one
    name, value = one
    return f"{name} {tuple(value) if isinstance(value, list) else value}"
