"""What the files of a run directory say, finished or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import RunDirectoryError
from onnxprune.evaluation import AUTO, Accuracy
from onnxprune.records import Kind, parse_record, read_record, read_text


@dataclass(frozen=True)
class Record:
    """The settings and steps of a run and, once it has finished, its report.

    `about` tells of the model, the machine and the network, `evidence` of samples and layers; both
    are empty for a run of an earlier version. `digests` are those of the model and the samples.
    """

    name: str
    settings: Mapping[str, Any]
    steps: Sequence[Mapping[str, Any]]
    report: Mapping[str, Any] | None
    about: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, Any] = field(default_factory=dict)
    files: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read a run directory. A last journal line that was cut off is left out.

        Raises: RunDirectoryError when the folder holds no run, or a file cannot be read.
        """
        if not (path / "config.json").is_file():
            raise RunDirectoryError(f"{path}: {_no_run(path)}")
        journal, report = path / "journal.jsonl", path / "report.json"
        written = read_text(journal, _failed) if journal.is_file() else ""
        whole = written[: written.rfind("\n") + 1].split("\n")[:-1]
        config = read_record(path / "config.json", "config", _failed)
        return cls(
            path.resolve().name,
            config["settings"],
            [
                _step(parse_record(line, "step", f"{journal}: line {number}", _failed))
                for number, line in enumerate(whole, 1)
            ],
            _if_there(report, "report") or None,
            _if_there(path / "about.json", "about"),
            _if_there(path / "evidence.json", "evidence") if report.is_file() else {},
            {key: value for key, value in config.items() if key.endswith("sha256") and value},
            frozenset(one.name for one in path.iterdir() if one.is_file()),
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
    def title(self) -> str:
        """The name of the model, or of the folder."""
        return str(self.about.get("model", {}).get("name") or self.name)

    @property
    def decisive(self) -> str:
        """The figure that a floor looks at: shrunk with few samples, or a class never right."""
        before = (self.sides[0]["accuracy"] if self.sides else None) or {}
        void = before.get("harmonic") == 0 and "shrunk_harmonic" in before
        usual = "shrunk_harmonic" if void else "harmonic"
        asked = str((self.report or {}).get("decisive") or usual)
        return asked if asked in before else usual

    @property
    def floor(self) -> float | None:
        """The lowest `decisive` mean that the settings allow, or None."""
        asked = self.settings.get("floor", {})
        levels = [] if asked.get("min_accuracy") is None else [asked["min_accuracy"]]
        before = self.sides[0]["accuracy"] if self.sides else None
        if asked.get("max_drop") is not None and before:
            levels.append(before[self.decisive] - asked["max_drop"])
        return max((level for level in levels if level > 0), default=None)

    @property
    def classes(self) -> Sequence[str]:
        """The names of what has a score: classes, or parts of outputs; numbers without names."""
        names = list(self.report["classes"]) if self.report is not None else []
        sides = self.sides
        count = len(sides[1]["accuracy"]["per_class"]) if sides and sides[1]["accuracy"] else 0
        return names + [str(number) for number in range(len(names), count)]


def _no_run(path: Path) -> str:
    """What a path is that is no run directory, and what to do with it."""
    pages = "the page of two models is made by: onnxprune report A B --data TEST"
    if path.is_file():
        return f"is a file, no run; {pages}"
    if (path / "deploy.json").is_file():
        return f"holds deployed files, no run; {pages}"
    return "holds no run (no config.json); give the --run-dir of a run"


def _failed(line: str) -> RunDirectoryError:
    return RunDirectoryError(f"{line}; bring back the file as the run wrote it, or start a new run")


def _if_there(path: Path, kind: Kind) -> dict[str, Any]:
    return read_record(path, kind, _failed) if path.exists() else {}


def _step(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the journal, its accuracies in the form of `report.json`."""
    return {**_measured(line), "tried": [_measured(one) for one in line.get("tried", ())]}


def _measured(line: Mapping[str, Any]) -> dict[str, Any]:
    counts = line["accuracy"]
    return {**line, "accuracy": counts and Accuracy.from_counts(counts).to_json()}


def _side(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step in the form that `report.json` has for a model."""
    return {key: step[key] for key in ("params", "macs", "filters", "accuracy")}
