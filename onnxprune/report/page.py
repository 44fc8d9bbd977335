"""The page of a run: one HTML file that holds all it shows, to read, to print and to pass on.

It is made of the files of a run directory alone. Of a run that has not finished it shows the steps
so far, and says what is missing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from onnxprune.errors import RunDirectoryError
from onnxprune.evaluation import caption
from onnxprune.files import write_whole
from onnxprune.report.figures import percent, rows, why_stopped

SHOWN_CLASSES = 40
"""With more classes, only those that changed most are shown at once."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1f23; --paper: #fff; --muted: #7b838c;
  --line: #e3e6e9; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e6e8; --paper: #15181b; --muted: #8d959d;
  --line: #2d3237; --accent: #56b4e9; } }
@media print { :root { color-scheme: light; --ink: #000; --paper: #fff; --muted: #666;
  --line: #ccc; --accent: #0072b2; } section, .tiles { break-inside: avoid; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 0 auto; padding: 2.5rem 1.25rem;
  max-width: 52rem; font: 1rem/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.4rem 0 .6rem; }
p { margin: .5rem 0; } .muted, footer, th { color: var(--muted); }
.notice { border-left: 3px solid var(--accent); padding: .3rem 0 .3rem .9rem; margin: 1.2rem 0; }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0; }
.tiles div { flex: 1 1 8rem; border: 1px solid var(--line); border-radius: .5rem;
  padding: .6rem .9rem; }
.tiles b { display: block; font-size: 1.2rem; font-weight: 600; white-space: nowrap; }
.tiles span { color: var(--muted); font-size: .85rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { font-weight: 500; font-size: .85rem; } td, th { text-align: right; padding: .28rem .6rem;
  border-bottom: 1px solid var(--line); vertical-align: middle; }
td:first-child, th:first-child { text-align: left; padding-left: 0; min-width: 6.5rem;
  overflow-wrap: anywhere; }
@media (max-width: 34rem) { table { font-size: .85rem; } td, th { padding: .28rem .4rem; } }
td.wide { width: 34%; } .track { display: block; height: .42rem; margin: .12rem 0;
  background: var(--line); border-radius: .2rem; overflow: hidden; }
.track i { display: block; height: 100%; background: var(--accent); }
.track.old i { background: var(--muted); } svg { width: 100%; height: auto; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--muted); }
footer { margin-top: 3rem; font-size: .85rem; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Run:
    """What a run directory holds: settings, journal and, once finished, the report."""

    name: str
    settings: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read what is there.

        Raises: RunDirectoryError when the folder holds no run, or files that cannot be read.
        """
        if not (path / "config.json").is_file():
            raise RunDirectoryError(
                f"{path}: holds no run (no config.json); give the --run-dir of a run"
            )
        journal, report = path / "journal.jsonl", path / "report.json"
        written = journal.read_text("utf-8") if journal.is_file() else ""
        whole = written[: written.rfind("\n") + 1].splitlines()
        return cls(
            path.resolve().name,
            _parse(path / "config.json").get("settings", {}),
            [_parse(journal, line) for line in whole],
            _parse(report) if report.is_file() else None,
        )

    @property
    def sides(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """The net before and after, or as the journal has it so far; None without any step."""
        if self.report is not None:
            return self.report["before"], self.report["after"]
        return (_side(self.lines[0]), _side(self.lines[-1])) if self.lines else None

    @property
    def metric(self) -> str:
        """The name of what was measured of each class."""
        return str(self.settings.get("metric", "top-1"))

    @property
    def rate(self) -> float:
        """The share of the removable filters that is gone."""
        last = self.report or (self.lines[-1] if self.lines else {"rate": 0.0})
        return float(last["rate"])

    @property
    def points(self) -> list[dict[str, float]]:
        """Rate, mean and harmonic mean of every step, and of the end."""
        found = [_point(line["rate"], line) for line in self.lines if "harmonic" in line]
        if self.report is not None and self.report["after"]["accuracy"]:
            if not found:
                found.append(_point(0.0, self.report["before"]["accuracy"]))
            found.append(_point(self.rate, self.report["after"]["accuracy"]))
        return list({point["rate"]: point for point in found}.values())

    @property
    def floor(self) -> float | None:
        """The lowest harmonic mean allowed, if one was asked for."""
        asked = self.settings.get("floor", {})
        levels = [] if asked.get("min_accuracy") is None else [asked["min_accuracy"]]
        if asked.get("max_drop") is not None and self.points:
            levels.append(self.points[0]["harmonic"] - asked["max_drop"])
        return max(levels, default=None)


def write_page(path: str | Path) -> Path:
    """Write `report.html` into a run directory and return its path.

    Raises: RunDirectoryError when the folder holds no run; OutputError when it is not writable.
    """
    path = Path(path)
    return write_whole(path / "report.html", page(Run.read(path)))


def page(run: Run) -> str:
    """Return the page of a run."""
    parts = [_head(run), _notice(run)]
    if run.sides is None:
        parts.append("<p>No step has been journalled yet: there is nothing to compare.</p>")
    else:
        parts += [_tiles(run, *run.sides), _comparison(run, *run.sides)]
        parts += [_plot(run), _classes(run, *run.sides), _layers(run), _steps(run)]
    parts += [_settings(run), _foot(run)]
    title = f"onnxprune: {escape(run.name)}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )


def _parse(path: Path, text: str | None = None) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8") if text is None else text)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); start a new run") from error
    return content


def _point(rate: float, accuracy: Mapping[str, float]) -> dict[str, float]:
    return {"rate": rate, "mean": accuracy["mean"], "harmonic": accuracy["harmonic"]}


def _side(line: Mapping[str, Any]) -> dict[str, Any]:
    """A step of the journal in the form in which a report holds a net."""
    side = {key: line[key] for key in ("params", "macs", "filters")}
    if line.get("accuracy") is None:
        return side
    counts = zip(line["accuracy"]["correct"], line["accuracy"]["total"], strict=True)
    seen = line["accuracy"].get("seen", line["accuracy"]["total"])
    shares = [
        right / total if some else None for (right, total), some in zip(counts, seen, strict=True)
    ]
    return side | {
        "accuracy": {"mean": line["mean"], "harmonic": line["harmonic"], "per_class": shares}
    }


def _head(run: Run) -> str:
    return f'<p class="muted">onnxprune report</p>\n<h1>{escape(run.name)}</h1>'


def _notice(run: Run) -> str:
    if run.report is None:
        return (
            f'<p class="notice">This run has not finished: {len(run.lines)} steps are journalled, '
            f"{percent(run.rate)} of the removable filters are gone. Size, latency and layers are "
            f"known at its end; <code>--resume</code> continues it.</p>"
        )
    report = run.report
    return (
        f'<p class="notice">{percent(run.rate)} of the removable filters were removed in '
        f"{_time(report['seconds'])} and {report['evaluations']:,} evaluations. "
        f"The run stopped because {escape(why_stopped(report))}."
        f"{_inexact(report.get('inexact', ()))}</p>"
    )


def _inexact(nodes: Sequence[str]) -> str:
    if not nodes:
        return ""
    named = ", ".join(map(escape, nodes))
    return f" As allowed, it pruned through nodes whose result changes with that: {named}."


def _tiles(run: Run, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    left_out = ("Filters", f"Mean {caption(run.metric)}")
    shown = [row for row in rows(before, after, run.metric) if row.label not in left_out]
    tiles = (f"<div><b>{row.change}</b><span>{row.label}</span></div>" for row in shown)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _comparison(run: Run, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    held_out = (run.report or {}).get("held_out")
    shown = rows(before, after, run.metric, held_out)
    body = [(row.label, row.before, row.after, row.change) for row in shown]
    note = ""
    if held_out:
        note = (
            '<p class="muted">The weights were corrected on the samples that accuracy is measured '
            "on. <i>Held out</i> is measured on each third of them with weights corrected on the "
            "other two.</p>"
        )
    return _section("Before and after", _table(("", "Before", "After", "Change"), body) + note)


def _plot(run: Run) -> str:
    if not run.points:
        return _section(
            "Accuracy over pruning rate",
            "<p>Not measured: the run had no samples, or no step to look at.</p>",
        )
    from onnxprune.report.plots import run_plot

    note = '<p class="muted">Measured on the reference samples, which the search has seen.</p>'
    return _section(
        "Accuracy over pruning rate", run_plot(run.points, run.floor, run.metric) + note
    )


def _classes(run: Run, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if not (before.get("accuracy") and after.get("accuracy")):
        return ""
    pairs = list(zip(before["accuracy"]["per_class"], after["accuracy"]["per_class"], strict=True))
    names = run.report["classes"] if run.report is not None else []
    labels = [names[k] if k < len(names) else str(k) for k in range(len(pairs))]
    seen = [(label, *pair) for label, pair in zip(labels, pairs, strict=True) if None not in pair]
    body = [
        (label, percent(one), percent(other), _Html(_bar(one, "old") + _bar(other)))
        for label, one, other in seen
    ]
    headings = ("Class", "Before", "After", "")
    title = "Class accuracies" if run.metric == "top-1" else f"Class {caption(run.metric)}"
    if len(body) <= SHOWN_CLASSES:
        return _section(title, _table(headings, body))
    order = sorted(range(len(seen)), key=lambda k: seen[k][2] - seen[k][1])
    first, rest = order[:SHOWN_CLASSES], sorted(order[SHOWN_CLASSES:])
    note = f'<p class="muted">The {len(first)} classes that lost most, of {len(seen)}.</p>'
    other = _details(f"The other {len(rest)} classes", _table(headings, [body[k] for k in rest]))
    return _section(title, note + _table(headings, [body[k] for k in first]) + other)


def _layers(run: Run) -> str:
    if run.report is None or not run.report.get("layers"):
        return ""
    body = [
        (
            one["name"],
            f"{one['filters']:,}",
            f"{one['removed']:,}",
            _bar(one["removed"] / max(one["filters"], 1)),
        )
        for one in run.report["layers"]
    ]
    return _section("Removed filters", _table(("Convolution", "Filters", "Removed", ""), body))


def _steps(run: Run) -> str:
    body = [
        (
            str(number),
            percent(line["rate"]),
            f"{line['params']:,}",
            f"{line['macs']:,}",
            percent(line.get("harmonic")),
            f"{line['evaluations']:,}",
            _time(line["seconds"]),
        )
        for number, line in enumerate(run.lines)
    ]
    headings = ("Step", "Removed", "Parameters", "MACs", "Harmonic mean", "Evaluations", "Time")
    return _details(f"All {len(body)} journalled steps", _table(headings, body)) if body else ""


def _settings(run: Run) -> str:
    flat: dict[str, Any] = {}
    for key, value in run.settings.items():
        flat |= value if isinstance(value, dict) else {key: value}
    body = [
        (key.replace("_", " "), ", ".join(value) if isinstance(value, list) else str(value))
        for key, value in flat.items()
        if value is not None and value != []
    ]
    return _section("Settings", _table(("Setting", "Value"), body)) if body else ""


def _foot(run: Run) -> str:
    samples = f" {run.report['samples']:,} reference samples." if run.report is not None else ""
    return f"<footer>Made by onnxprune from the files beside this page.{samples}</footer>"


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _details(title: str, body: str) -> str:
    return f"<details>\n<summary>{title}</summary>\n{body}\n</details>"


class _Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def _bar(share: float, kind: str = "") -> _Html:
    return _Html(f'<span class="track {kind}"><i style="width:{100 * share:.1f}%"></i></span>')


def _table(headings: Iterable[str], body: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are escaped unless they are HTML already."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    lines = "\n".join(f"<tr>{''.join(map(_cell, cells))}</tr>" for cells in body)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _cell(text: str) -> str:
    if isinstance(text, _Html):
        return f'<td class="wide">{text}</td>'
    return f"<td>{escape(text)}</td>"


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
