"""The figures of a report as text, for the page and the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnxprune.evaluation import caption

HELD_OUT = "Harmonic mean, held out"
"""Measured on each fold of the samples, with weights corrected on the other folds."""

UNKNOWN = "unknown"

SHRUNK = "Harmonic mean, shrunk"
"""Of class accuracies that are drawn towards their mean: what a floor looks at with few samples."""
HOME = "onnxruntime"
"""Where latency is measured if nothing else is said."""
SLOWER = 1.02
"""A latency that rose by more than this is no noise of the clock."""
SHOWN = 0.0005
"""A change of less is written as 0.0 points, and counts as none."""
RUINED = 0.5
"""A model that keeps less of its accuracy than this share is not what anybody wanted."""
MULTIPLE = 8
"""Of which runtimes like widths to be multiples: their kernels compute so many channels at once."""

COUNTS = {"params": "Parameters", "macs": "MACs", "filters": "Filters", "units": "Dense units"}
"""Units are there where they may go."""

STOPPED = {
    "target": "target reached",
    "floor": "every further step breaks the accuracy floor",
    "limits": "the limits allow no more",
}


GENERATED = {
    "statistics": "inputs made to have the statistics that the model stores",
    "noise": "inputs of smooth noise",
}
"""What samples are that nobody gave, by the `generated` of a report."""


@dataclass(frozen=True)
class Row:
    """One figure before and after pruning, and the change, as text.

    `standing` is good where a cost fell, bad where one rose; that of accuracy is the verdict's.
    """

    label: str
    before: str
    after: str
    change: str
    standing: str = ""


def rows(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    metric: str = "top-1",
    held_out: Mapping[str, Any] | None = None,
    decisive: str = "",
    judged: tuple[str, str] = ("", ""),
) -> list[Row]:
    """Return a row for each figure that both sides have; `report.json` has such sides.

    `judged` is the standing of the accuracy, and that of it held out, which the verdict knows.
    """
    found = []
    for key, label in COUNTS.items():
        if key not in before:
            continue
        one, other = before[key], after[key]
        found.append(
            Row(label, count(one), count(other), _relative(one, other), _standing(one, other))
        )
    for key, label, scale, unit in (
        ("size_bytes", "File size", 1e-6, "MB"),
        ("latency_ms", "Latency", 1.0, "ms"),
    ):
        one, other = before.get(key), after.get(key)
        if one and other:
            one, other = one * scale, other * scale
            texts = (f"{one:,.3g} {unit}", f"{other:,.3g} {unit}")
            found.append(Row(label, *texts, _relative(one, other), _standing(one, other)))
    if before.get("accuracy") and after.get("accuracy"):
        measured = [
            (f"Mean {caption(metric)}", "mean", after["accuracy"]),
            ("Harmonic mean", "harmonic", after["accuracy"]),
            (HELD_OUT, "harmonic", held_out),
        ]
        void = not before["accuracy"]["harmonic"] or decisive == "shrunk_harmonic"
        if void and "shrunk_harmonic" in before["accuracy"]:
            measured.append((SHRUNK, "shrunk_harmonic", after["accuracy"]))
        for label, key, figures in measured:
            if figures is not None:
                one, other = before["accuracy"][key], figures[key]
                standing = judged[label == HELD_OUT]
                found.append(Row(label, percent(one), percent(other), points(one, other), standing))
    else:
        found.append(Row("Accuracy", percent(None), percent(None), "not measured"))
    return found


def samples_of(report: Mapping[str, Any]) -> str:
    """Return what accuracy was measured on."""
    what = GENERATED.get(report.get("generated", ""), "reference samples")
    return f"{report['samples']:,} {what}"


def slower(report: Mapping[str, Any]) -> str:
    """Return what to say, and do, where the latency rose; an empty text where it did not."""
    before, after = (report[side].get("latency_ms") for side in ("before", "after"))
    if not before or not after or after <= SLOWER * before:
        return ""
    if any(report[side].get("params", 0) is None for side in ("before", "after")):
        return ""  # a deployed file: two runtimes differ for other reasons
    left = [one["filters"] - one["removed"] for one in report.get("layers", ()) if one["removed"]]
    if not left or any(width % MULTIPLE for width in left):
        advice = f"runtimes like widths that are multiples of {MULTIPLE}: give --round-to auto"
    else:
        advice = "its widths suit runtimes already: remove more, or give --latency-ms as the target"
    return (
        f"The pruned model is slower: {before:.3g} ms before, {after:.3g} ms after "
        f"({_relative(before, after)}); {advice}."
    )


def ruined(report: Mapping[str, Any]) -> str:
    """Return what to say where most of the accuracy went; an empty text where it stayed."""
    gone = half_gone(report)
    if not gone:
        return ""
    before, after, held_out = _decisive(report)
    where, advice = "", "ask for less, or bound the loss with --max-drop"
    if gone == "held out":
        where, advice = " on samples that the correction has not seen", f"give more, {advice}"
        after = held_out
    return (
        f"More than half of the accuracy is gone{where}: the harmonic mean fell from "
        f"{percent(before)} to {percent(after)}{f'; {advice}' if 'stopped' in report else ''}."
    )


def half_gone(report: Mapping[str, Any]) -> Literal["", "seen", "held out"]:
    """Return where less than half of the accuracy is left: on the samples, or only held out."""
    before, after, held_out = _decisive(report)
    if after < RUINED * before:
        return "seen"
    return "held out" if held_out < RUINED * before else ""


def _decisive(report: Mapping[str, Any]) -> tuple[float, float, float]:
    """The mean that decides: before, after, and held out, which is that after where nothing is."""
    accuracies = [report[side].get("accuracy") for side in ("before", "after")]
    if not all(accuracies):
        return 0.0, 0.0, 0.0
    accuracies.append(report.get("held_out") or accuracies[1])
    key = report.get("decisive") or "harmonic"
    before, after, held_out = (float(one.get(key, one["harmonic"])) for one in accuracies)
    return before, after, held_out


def timed_on(report: Mapping[str, Any]) -> str:
    """Return what latency was measured on, empty where that was onnxruntime."""
    timing = report.get("latency", {})
    away = timing.get("on", HOME) != HOME
    return f"latency measured on {clock(timing)}" if away else ""


def clock(timing: Mapping[str, Any]) -> str:
    """Return where and how latency was measured, of the `latency` of a report.

    >>> clock({"on": "openvino", "threads": 1, "batch": 8})
    'openvino, 1 thread, batch of 8'
    """
    threads = timing["threads"]
    cores = f"{threads} thread{'s' * (threads > 1)}" if threads else "all cores"
    return f"{timing.get('on', HOME)}, {cores}, batch of {timing['batch']}"


def why_stopped(report: Mapping[str, Any]) -> str:
    """Return what stopped a run, and which options."""
    names = ", ".join(name.replace("_", "-") for name in report.get("stopped_by", ()))
    if report["stopped"] == "target" and not report["rate"]:
        return f"the model as it came meets the target ({names}), so nothing was removed"
    why = STOPPED.get(report["stopped"], report["stopped"])
    if report["stopped"] == "floor" and not report["rate"]:
        why += ", the first too: loosen it, give more samples, lower --confidence, or --round-to"
    return f"{why} ({names})" if names else why


def promised(report: Mapping[str, Any]) -> str:
    """Return what a floor promises of images that nobody has seen, empty where it is none."""
    found = report.get("promise")
    if not found:
        return ""
    bound, allowed = max(found["bound"], 0.0), found["allowed"]
    kept = "allowed" if found["bound"] <= allowed + 1e-9 else "allowed, which is not held"
    return (
        f"on samples like these the harmonic mean drops by {100 * max(found['expected'], 0):.1f} "
        f"points, at most {100 * bound:.1f} at {100 * found['confidence']:g} % confidence "
        f"({100 * allowed:g} {kept}), as far as {found['samples']:,} samples can tell"
    )


def percent(share: float | None) -> str:
    """Format a share; None (a class without samples) is a dash."""
    return "\u2013" if share is None else f"{100 * share:.1f} %"


def points(one: float, other: float) -> str:
    """Format the change of a share.

    >>> points(0.75, 0.5)
    '\u221225.0 points'
    """
    return f"{100 * (other - one):+.1f} points".replace("-", "\u2212")


def milliseconds(time: float) -> str:
    """Format the time of a layer, in ms without the unit.

    >>> [milliseconds(time) for time in (0.00881, 12.34, 1234.5)]
    ['0.00881', '12.3', '1,234']
    """
    return f"{time:,.0f}" if time >= 1000 else f"{time:.3g}"


def duration(seconds: float) -> str:
    """Format a time.

    >>> [duration(seconds) for seconds in (2.34, 125, 7500)]
    ['2.3 s', '2 min 5 s', '2 h 5 min']
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def amount(number: int | None) -> str:
    """Format a count with four figures and a unit: k, M or G; None is one that is not known.

    >>> [amount(n) for n in (0, 9999, 12345, 999_999, 4_653_824, 12_345_678_901)]
    ['0', '9,999', '12.3 k', '1.00 M', '4.65 M', '12.3 G']
    """
    if number is None:
        return UNKNOWN
    if number < 10_000:
        return f"{number:,}"
    value, units = float(number), iter("kMGTP")
    unit = ""
    while float(f"{value:.3g}") >= 1000:
        value, unit = value / 1000, next(units)
    digits = 2 - (value >= 10) - (value >= 100)
    return f"{value:.{digits}f} {unit}"


def count(number: int | None) -> str:
    """Format a count whole; None is one that is not known."""
    return UNKNOWN if number is None else f"{number:,}"


def _standing(one: float | None, other: float | None) -> str:
    if not one or other is None or abs(other - one) <= (SLOWER - 1) * one:
        return ""
    return "good" if other < one else "bad"


def _relative(one: float | None, other: float | None) -> str:
    if one is None or other is None:
        return "\u2013"
    change = 100 * (other / one - 1) if one else 0.0
    return f"{change:+.1f} %".replace("-", "\u2212")
