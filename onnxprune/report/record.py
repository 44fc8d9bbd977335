"""What the files of a run directory say, finished or not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxprune.errors import RunDirectoryError
from onnxprune.evaluation import AUTO, Accuracy


@dataclass(frozen=True)
class Record:
    """The settings and steps of a run and, once it has finished, its report."""

    name: str
    settings: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any] | None

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a run directory. A last journal line that was cut off is left out.

        Raises: RunDirectoryError when the folder holds no run, or a file cannot be read.
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
            [_step(_parse(journal, line)) for line in whole],
            _parse(report) if report.is_file() else None,
        )

    @property
    def sides(self) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
        """The model before and after (of an unfinished run, so far), or None without a step."""
        if self.report is not None:
            return self.report["before"], self.report["after"]
        return (_side(self.steps[0]), _side(self.steps[-1])) if self.steps else None

    @property
    def metric(self) -> str:
        """The name of the metric."""
        held = self.settings if self.report is None else self.report
        name = str(held.get("metric", AUTO))
        return "top-1" if name == AUTO else name

    @property
    def counted(self) -> str:
        """The filters of which the rate is a share, in words."""
        included = self.settings.get("limits", {}).get("include")
        return f"filters in {', '.join(included)}" if included else "removable filters"

    @property
    def rate(self) -> float:
        """Removed filters over those of which it is a share."""
        last = self.report or (self.steps[-1] if self.steps else {"rate": 0.0})
        return float(last["rate"])

    @property
    def points(self) -> list[dict[str, float]]:
        """Rate, mean and harmonic mean of each measured step, and of the result."""
        found = [_point(step["rate"], step["accuracy"]) for step in self.steps if step["accuracy"]]
        if self.report is not None and self.report["after"]["accuracy"]:
            if not found:
                found.append(_point(0.0, self.report["before"]["accuracy"]))
            found.append(_point(self.rate, self.report["after"]["accuracy"]))
        return list({point["rate"]: point for point in found}.values())

    @property
    def floor(self) -> float | None:
        """The lowest harmonic mean that the settings allow, or None."""
        asked = self.settings.get("floor", {})
        levels = [] if asked.get("min_accuracy") is None else [asked["min_accuracy"]]
        if asked.get("max_drop") is not None and self.points:
            levels.append(self.points[0]["harmonic"] - asked["max_drop"])
        return max((level for level in levels if level > 0), default=None)


def _parse(path: Path, text: str | None = None) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8") if text is None else text)
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"{path}: cannot be read ({error}); start a new run") from error
    return content


def _point(rate: float, accuracy: Mapping[str, float]) -> dict[str, float]:
    return {"rate": rate, "mean": accuracy["mean"], "harmonic": accuracy["harmonic"]}


def _step(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the journal, its accuracy in the form of `report.json`."""
    counts = line["accuracy"]
    return {**line, "accuracy": counts and Accuracy.from_counts(counts).to_json()}


def _side(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step in the form that `report.json` has for a model."""
    return {key: step[key] for key in ("params", "macs", "filters", "accuracy")}
