"""What changed for classes and for single samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxprune.report.figures import SHOWN
from onnxprune.report.record import Record


@dataclass(frozen=True)
class ClassRow:
    """One class, before and after. `low` and `high` are the interval of the change, if known."""

    name: str
    before: float
    after: float
    samples: int | None = None
    low: float | None = None
    high: float | None = None

    @property
    def change(self) -> float:
        """After less before."""
        return self.after - self.before

    @property
    def lost(self) -> bool:
        """Whether a change that is seen lies below 0, with its whole interval if that is known."""
        return self.change <= -SHOWN and (self.high is None or self.high < 0)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a page holds them."""
        return asdict(self)


def class_rows(run: Record) -> list[ClassRow]:
    """Return the classes that have samples, those that lost most first."""
    sides = run.sides
    if not sides or not all(side.get("accuracy") for side in sides):
        return []
    known = {one["class"]: one for one in run.evidence.get("classes", ())}
    scores = zip(*(side["accuracy"]["per_class"] for side in sides), strict=True)
    found = [
        _row(name, before, after, known.get(number, {}))
        for number, (name, (before, after)) in enumerate(zip(run.classes, scores, strict=False))
        if before is not None and after is not None
    ]
    return sorted(found, key=lambda one: one.change)


def _row(name: str, before: float, after: float, known: Mapping[str, Any]) -> ClassRow:
    return ClassRow(name, before, after, known.get("samples"), known.get("low"), known.get("high"))


def move_rows(run: Record) -> list[dict[str, Any]]:
    """Return what changed into what, with names for numbers."""
    names = run.evidence.get("names", ())
    return [
        {
            **{key: _name(names, one[key]) for key in ("label", "before", "after")},
            "samples": one["samples"],
            "kind": _kind(one),
        }
        for one in run.evidence.get("moves", ())
    ]


def _kind(one: Mapping[str, int]) -> str:
    """What a change of an answer means."""
    if one["before"] == one["label"]:
        return "lost"
    return "gained" if one["after"] == one["label"] else "still wrong"


def shown_samples(run: Record) -> list[dict[str, Any]]:
    """Return the samples of which the page has pictures, with names for numbers."""
    names, labelled = run.evidence.get("names", ()), run.evidence.get("labelled", True)
    found = []
    for one in run.evidence.get("shown", ()):
        named = {key: _name(names, one[key]) for key in ("label", "before", "after") if key in one}
        kind = _kind(one) if "label" in one and labelled else ""
        found.append({**one, **named, "kind": kind})
    return found


def _name(names: Any, number: int) -> str:
    return str(names[number]) if 0 <= number < len(names) else str(number)
