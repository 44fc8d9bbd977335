"""The steps of a run as a chart shows them: what each saves, its accuracy, and its plan.

The plan of a step is in the page as the channels that it adds to the step before, so that a page of
a large network stays small.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from onnxprune.report.record import Record

LINES = 40
"""Classes with a line of their own: those that changed most, where there are more."""
PLANS = 100_000
"""Letters that the plans of all steps may take; later ones that were taken back go without."""
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def steps_of(run: Record) -> list[dict[str, Any]]:
    """Return each step, those that were taken back behind the one they started from."""
    found: list[dict[str, Any]] = []
    known: set[int] = set()
    room, kept = PLANS, 0
    lines = [line for k, line in enumerate(run.steps) if not _repeats(run.steps, k)]
    for number, line in enumerate(lines):
        for back in line["tried"]:
            code = _plan(back, known)
            if code is not None:
                room -= len(code)
            fits = code is not None and room >= 0
            found.append(_step(run, back, number - 1, "back") | {"plan": code if fits else None})
        code = _plan(line, known)
        known |= set(line.get("dead", ()))
        found.append(_step(run, line, number, "kept") | {"plan": code})
        kept += 1
    if run.steps and run.steps[-1] not in lines:
        found += [
            _step(run, back, kept - 1, "back") | {"plan": _plan(back, known)}
            for back in run.steps[-1]["tried"]
        ]
    return _with_ends(run, found)


def _with_ends(run: Record, steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same with the accuracies of the report, of a run that measured none on the way."""
    kept = [step for step in steps if step["kind"] == "kept"]
    if run.report is not None and all(step["harmonic"] is None for step in steps):
        for step, side in zip((*kept[:1], *kept[-1:]), ("before", "after"), strict=False):
            accuracy = run.report[side]["accuracy"] or {}
            step |= {key: _rounded(accuracy.get(key)) for key in ("mean", "harmonic")}
    return steps


def _repeats(steps: Sequence[Mapping[str, Any]], k: int) -> bool:
    """Whether a line only says what ended the search: the net of the line before."""
    if not k:
        return False
    same = ("dead", "corrected", "rate")
    return all(steps[k].get(key) == steps[k - 1].get(key) for key in same) and "dead" in steps[k]


def _step(run: Record, line: Mapping[str, Any], number: int, kind: str) -> dict[str, Any]:
    accuracy = line["accuracy"] or {}
    return {
        "step": number,
        "kind": kind,
        "rate": round(line["rate"], 6),
        "params": line["params"],
        "macs": line["macs"],
        "bytes": _between(run, "size_bytes", "params", line["params"]),
        "ms": _between(run, "latency_ms", "macs", line["macs"]),
        "mean": _rounded(accuracy.get("mean")),
        "harmonic": _rounded(accuracy.get("harmonic")),
        "corrected": bool(line.get("corrected")),
        "evaluations": line.get("evaluations"),
        "seconds": _rounded(line.get("seconds"), 2),
    }


def _between(run: Record, figure: str, by: str, at: float | None) -> float | None:
    """A figure that only the first and the last net have, estimated on the way by another."""
    if run.report is None or at is None:
        return None
    before, after = run.report["before"], run.report["after"]
    values, ends = (before.get(figure), after.get(figure)), (before.get(by), after.get(by))
    if None in values or None in ends:
        return None
    done = 0.0 if ends[0] == ends[1] else (ends[0] - at) / (ends[0] - ends[1])
    value = float(values[0] + (values[1] - values[0]) * done)
    return round(value) if figure == "size_bytes" else round(value, 4)


def _rounded(value: float | None, digits: int = 5) -> float | None:
    return None if value is None else round(value, digits)


def _plan(line: Mapping[str, Any], known: set[int]) -> str | None:
    """The channels that are gone beyond the known ones, or None where some of those are back."""
    dead = line.get("dead")
    if dead is None or not known <= set(dead):
        return None
    return coded(sorted(set(dead) - known))


def coded(numbers: Iterable[int]) -> str:
    """Return ascending numbers as gaps and lengths of runs, to the base of 36.

    >>> coded([0, 1, 2, 9, 50, 51])
    '0.3,6,14.2'
    """
    end, words = 0, []
    for first, count in _runs(numbers):
        words.append(_base36(first - end) + (f".{_base36(count)}" if count > 1 else ""))
        end = first + count
    return ",".join(words)


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        found = [number for _, number in run]
        yield found[0], len(found)


def _base36(number: int) -> str:
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
        if not number:
            return text


def class_lines(run: Record) -> list[dict[str, Any]]:
    """Return the score of each class at each kept step, of at most `LINES` classes."""
    measured = [
        line["accuracy"]
        for k, line in enumerate(run.steps)
        if line["accuracy"] and not _repeats(run.steps, k)
    ]
    if len(measured) < 2 or len(measured[0]["per_class"]) < 2:
        return []
    scores = list(zip(*(one["per_class"] for one in measured), strict=True))
    seen = [k for k, values in enumerate(scores) if None not in values]
    most = sorted(seen, key=lambda k: -abs(scores[k][-1] - scores[k][0]))[:LINES]
    names = run.classes
    return [
        {"name": names[k], "values": [round(value, 4) for value in scores[k]]} for k in sorted(most)
    ]
