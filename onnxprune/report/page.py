"""The page of a run: one HTML file without requests, to read, print and pass on.

`templates/page.html` shows what this file prepares; all of it comes from the files of a run
directory. What charts and drawings need is one JSON in the page. The page of a run that has not
finished shows the steps so far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onnxprune.evaluation import FIDELITY, caption
from onnxprune.files import write_whole
from onnxprune.report.changes import class_rows, move_rows, shown_samples
from onnxprune.report.figures import HELD_OUT, promised, rows, samples_of, why_stopped
from onnxprune.report.layers import groups_of
from onnxprune.report.opportunities import opportunities
from onnxprune.report.record import Record
from onnxprune.report.rendering import as_json, render
from onnxprune.report.steps import class_lines, steps_of
from onnxprune.report.verdict import judged, verdict

SHOWN_CLASSES = 40
"""Of more classes, the page shows those that changed most, and folds the others away."""
DOWNLOADS = {
    "pruned.onnx": "the pruned model",
    "plan.json": "its plan",
    "report.json": "all figures",
    "journal.jsonl": "all steps",
    "config.json": "all settings",
}


def write_page(path: str | Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises: RunDirectoryError when the folder holds no run; OutputError when it is not writable.
    """
    path = Path(path)
    return write_whole(path / "report.html", page(Record.read(path)))


def page(run: Record) -> str:
    """Return the page of a run as HTML."""
    report, held_out = run.report, (run.report or {}).get("held_out")
    steps = steps_of(run)
    data = {
        "metric": caption(run.metric),
        "floor": run.floor if run.decisive == "harmonic" else None,
        "steps": steps,
        "lines": class_lines(run),
        "classes": more_classes(run),
        "plan": {key: run.settings.get(key) or [] for key in ("allow_inexact", "also")},
        "model": run.about.get("model", {}).get("path") or "MODEL",
        "shapes": [
            f"{n}:{','.join(map(str, s))}" for n, s in run.settings.get("input_shapes") or ()
        ],
        "network": run.about.get("network"),
        "layers": run.evidence.get("layers", {}),
    }
    return render(
        "page.html",
        run=run,
        report=report,
        verdict=verdict(run),
        figures=[]
        if run.sides is None
        else rows(*run.sides, run.metric, held_out, run.decisive, judged(run)),
        not_on_tiles=("Filters", f"Mean {caption(run.metric)}", HELD_OUT),
        samples=samples_of(report) if report is not None else None,
        why=why_stopped(report) if report is not None else None,
        promised=promised(report or {}),
        opportunities=opportunities(run),
        **what_changed(run),
        steps=steps,
        sides=("unpruned", "pruned"),
        groups=groups_of(run),
        settings=dict(settings_of(run)),
        downloads={name: what for name, what in DOWNLOADS.items() if name in run.files},
        data=as_json(data),
        charted=any(step["harmonic"] is not None for step in steps),
    )


def what_changed(run: Record) -> dict[str, Any]:
    """Return what a page shows of classes and samples."""
    classes = class_rows(run)
    return {
        "metric": caption(run.metric),
        "parts": "Part" if run.metric == FIDELITY else "Class",
        "classes": classes[:SHOWN_CLASSES],
        "more_classes": len(classes[SHOWN_CLASSES:]),
        "moves": move_rows(run),
        "shown": shown_samples(run),
    }


def more_classes(run: Record) -> list[dict[str, Any]]:
    """Return the classes that a page folds away, those that lost most first."""
    return [one.to_json() for one in class_rows(run)[SHOWN_CLASSES:]]


def settings_of(run: Record) -> Iterator[tuple[str, str]]:
    """Yield the settings that have a value, those of target, floor and limits among them."""
    for key, value in run.settings.items():
        for name, one in value.items() if isinstance(value, Mapping) else [(key, value)]:
            if one is not None and one != []:
                texts = map(_plain, one if isinstance(one, list) else [one])
                yield name.replace("_", " "), ", ".join(texts)


def _plain(one: Any) -> str:
    """A value, a name, or a name with a shape or a share."""
    if isinstance(one, float):
        return f"{one:.6g}"
    if not isinstance(one, list) or len(one) != 2:
        return str(one)
    name, value = one
    return f"{name} {tuple(value) if isinstance(value, list) else value}"
