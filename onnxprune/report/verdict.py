"""The verdict on a run: what got better or worse, what was not measured, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onnxprune.evaluation import caption
from onnxprune.report.figures import (
    SHOWN,
    SLOWER,
    half_gone,
    percent,
    points,
    ruined,
    samples_of,
    slower,
)
from onnxprune.report.record import Record

Standing = Literal["good", "same", "unknown", "bad"]
"""From best to worst, where the worst of several counts."""
NOTICED = 0.01
"""A drop that counts as one where no interval is known and no floor was asked for."""
WORST: Mapping[Standing, int] = {"bad": 0, "unknown": 1}
"""What is said first."""
WORDS: Mapping[Standing, str] = {
    "good": "Better",
    "same": "About the same",
    "unknown": "Not all measured",
    "bad": "Worse",
}


@dataclass(frozen=True)
class Clause:
    """One thing that a verdict says."""

    text: str
    standing: Standing


@dataclass(frozen=True)
class Verdict:
    """All that it says, and what to know beside it."""

    clauses: tuple[Clause, ...]
    notes: tuple[str, ...]

    @property
    def standing(self) -> Standing:
        """The worst of what it says; good where one thing is and the others stay."""
        found = {clause.standing for clause in self.clauses}
        for worst in WORST:
            if worst in found:
                return worst
        return "good" if "good" in found else "same"

    @property
    def word(self) -> str:
        """The same in words, for whom colours tell nothing."""
        return WORDS[self.standing]

    @property
    def text(self) -> str:
        """The sentence."""
        said = ", ".join(clause.text for clause in self.clauses)
        return said[:1].upper() + said[1:]


def verdict(run: Record) -> Verdict:
    """Return the verdict on a run: first what got worse, then what nobody measured."""
    if run.sides is None:
        nothing = Clause("nothing to compare yet: no step has been journalled", "unknown")
        return Verdict((nothing,), ())
    before, after = run.sides
    clauses = [_speed(before, after), _size(before, after), _accuracy(run), *_held_out(run)]
    if not run.rate:
        clauses.insert(0, Clause("nothing was removed", "same"))
    clauses.sort(key=_gravity)
    return Verdict(tuple(clauses), tuple(_notes(run)))


def verdict_on(run: Record, notes: tuple[str, ...]) -> Verdict:
    """Return the verdict on two models that were measured side by side, with these notes."""
    assert run.sides is not None
    before, after = run.sides
    clauses = [_speed(before, after), _size(before, after), _accuracy(run)]
    return Verdict(tuple(sorted(clauses, key=_gravity)), notes)


def judged(run: Record) -> tuple[Standing, Standing]:
    """Return how the accuracy of a run stands, and that held out: bad where it was lost."""
    accuracy = _accuracy(run).standing
    held_out = next((clause.standing for clause in _held_out(run)), accuracy)
    return accuracy, held_out


def _gravity(clause: Clause) -> int:
    return WORST.get(clause.standing, len(WORST))


def _speed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Clause:
    one, other = before.get("latency_ms"), after.get("latency_ms")
    if not one or not other:
        return Clause("latency not measured", "unknown")
    if other > SLOWER * one:
        return Clause(f"{other / one:.3g}× slower", "bad")
    if one > SLOWER * other:
        return Clause(f"{one / other:.3g}× faster", "good")
    return Clause("as fast as before", "same")


def _size(before: Mapping[str, Any], after: Mapping[str, Any]) -> Clause:
    key = "size_bytes" if before.get("size_bytes") and after.get("size_bytes") else "params"
    what = "" if key == "size_bytes" else " in parameters"
    saved = 1 - after[key] / max(before[key], 1)
    if saved < -0.005:
        return Clause(f"{-100 * saved:.0f} % larger{what}", "bad")
    if saved < 0.005:
        return Clause(f"as large as before{what}", "same")
    return Clause(f"{100 * saved:.0f} % smaller{what}", "good")


def _accuracy(run: Record) -> Clause:
    what = caption(run.metric)
    change = change_of(run)
    if change is None:
        return Clause("accuracy not measured", "unknown")
    text = f"{what} {points(0.0, change)}"
    interval = run.evidence.get("interval")
    if interval:
        low, high = (
            f"{100 * interval[end]:+.1f}".replace("-", "\u2212") for end in ("low", "high")
        )
        text += f" (95 % interval {low} to {high} on {interval['samples']:,} samples)"
    elif run.report is not None:
        text += f" (on {samples_of(run.report)}, interval not known)"
    lost = _is_lost(run) if interval else change < -NOTICED and run.floor is None
    gone = run.report is not None and half_gone(run.report) == "seen"
    lost = lost or gone or below_floor(run)
    won = bool(interval and interval["low"] > 0 and change >= SHOWN)
    return Clause(text, "bad" if lost else "good" if won else "same")


def _is_lost(run: Record) -> bool:
    """Say whether the whole interval of a change that is seen lies below 0."""
    interval, change = run.evidence.get("interval"), change_of(run)
    return bool(interval and interval["high"] < 0 and change is not None and change <= -SHOWN)


def _held_out(run: Record) -> Iterator[Clause]:
    """Where the samples that corrected the weights hold the floor, and those held out do not.

    Without a floor, where less than half of the accuracy is left on these alone.
    """
    held = (run.report or {}).get("held_out")
    if not held or run.report is None or below_floor(run):
        return
    level = held.get(run.decisive, held["harmonic"])
    if run.floor is not None and level < run.floor - 1e-9:
        yield Clause(
            f"held out, {percent(level)} is below the floor of {percent(run.floor)}", "bad"
        )
    elif run.floor is None and half_gone(run.report) == "held out":
        yield Clause(f"held out, {percent(level)} is less than half of what it was", "bad")


def change_of(run: Record) -> float | None:
    """Return the change of the mean over classes, or None without one."""
    if run.sides is None or not all(side.get("accuracy") for side in run.sides):
        return None
    before, after = run.sides
    return float(after["accuracy"]["mean"] - before["accuracy"]["mean"])


def below_floor(run: Record) -> bool:
    """Say whether the result does not hold the floor that was asked for."""
    accuracy = run.sides[1].get("accuracy") if run.sides else None
    if run.floor is None or not accuracy:
        return False
    return bool(accuracy.get(run.decisive, accuracy["harmonic"]) < run.floor - 1e-9)


def _notes(run: Record) -> Iterator[str]:
    """What to know beside the verdict."""
    report, interval = run.report, run.evidence.get("interval")
    if report is not None:
        yield from filter(None, [ruined(report), slower(report)])
    if below_floor(run):
        yield f"The accuracy is below the floor of {percent(run.floor)} that was asked for."
    if _is_lost(run):
        yield "The whole interval lies below 0: accuracy was lost, and not by chance."
    if change_of(run) is None:
        yield (
            "Without samples nobody knows whether the model still works: give some as --data, or "
            "compare both models on some (onnxprune compare)."
        )
        return
    if interval:
        yield f"Interval: {interval['method']}."
    if report is not None and report.get("held_out"):
        yield (
            "The weights were corrected on the samples that accuracy is measured on: held out, the "
            f"harmonic mean is {percent(report['held_out']['harmonic'])}."
        )
    elif report is not None:
        yield "Measured on samples that the search has seen: test on others (onnxprune compare)."
