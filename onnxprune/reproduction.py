"""A run that is done again from its run directory, and what came out otherwise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxprune.data import SampleSource
from onnxprune.errors import RunDirectoryError
from onnxprune.files import make_folder, temporary, write_whole
from onnxprune.graph import ModelSource, digest, load_model
from onnxprune.plugins import only_given
from onnxprune.records import file_digest, parse_record, read_record, read_text
from onnxprune.run import OnState, prune
from onnxprune.search import (
    ABOUT,
    CONFIG,
    DIGESTS,
    JOURNAL,
    LATENCY,
    MODEL,
    PLAN,
    REPORT,
    Settings,
    State,
    Task,
)

STEP = {
    "dead": "what is removed",
    "corrected": "whether weights are corrected",
    "accuracy": "accuracy",
    "size": "the size of the next step",
    "stopped": "what ended the search",
    "limit": "when weights are corrected next",
    "barred": "groups that stay",
    "followed": "how far an order is followed",
    "evaluations": "evaluations",
}
"""What has to be the same in a line of the journal, and what people call it."""


@dataclass(frozen=True)
class Recorded:
    """A run directory: what made the run, and what it ended in; of the model its hash.

    A model of two files names the second one by what is in it.
    """

    path: Path
    config: Mapping[str, Any]
    about: Mapping[str, Any]
    journal: Sequence[Mapping[str, Any]]
    plan: str
    report: Mapping[str, Any]
    model_sha256: str

    @classmethod
    def read(cls, path: str | Path) -> Recorded:
        """Read the directory of a run that is finished.

        Raises: RunDirectoryError where a file is missing or cannot be read.
        """
        path = Path(path)
        if not (path / CONFIG).is_file():
            raise RunDirectoryError(
                f"{path}: holds no run (no {CONFIG}); give the --run-dir of a run"
            )
        for name in (ABOUT, JOURNAL, PLAN, MODEL, REPORT):
            if not (path / name).is_file():
                raise RunDirectoryError(
                    f"{path}: the run is not finished (no {name}); prune --resume finishes it"
                )
        lines = read_text(path / JOURNAL, RunDirectoryError).splitlines()
        return cls(
            path,
            read_record(path / CONFIG, "config", RunDirectoryError),
            read_record(path / ABOUT, "about", RunDirectoryError),
            [
                parse_record(line, "state", f"{path / JOURNAL}: line {number}", RunDirectoryError)
                for number, line in enumerate(lines, 1)
            ],
            read_text(path / PLAN, RunDirectoryError),
            read_record(path / REPORT, "report", RunDirectoryError),
            file_digest(path / MODEL, RunDirectoryError),
        )

    @property
    def settings(self) -> Settings:
        """The settings of the run, with the images without labels where they are now.

        Raises: RunDirectoryError where these are no more.
        """
        settings = Settings.from_json(self.config.get("settings", {}))
        if settings.unlabelled is None or ":" in settings.unlabelled:
            return settings
        return replace(settings, unlabelled=self._found("unlabelled", settings.unlabelled))

    def source(self, what: str) -> str | None:
        """Return where the model or the data of the run are; None for a run without data.

        Raises: RunDirectoryError where they are no more, or were given in memory.
        """
        place = self.about.get("model", {}).get("path") if what == "model" else None
        place = self.about.get("data") if what == "data" else place
        if place is None:
            if what == "data" and self.config.get("data_sha256") is None:
                return None
            raise RunDirectoryError(f"{self.path}: its {what} came from no file; give --{what}")
        return self._found(what, str(place))

    def _found(self, what: str, place: str) -> str:
        if ":" in place and not Path(place).exists():  # module:function, generated:N
            return place
        if place == "generated":
            return place
        for path in (Path(place), Path(str(self.about.get("folder", "."))) / place):
            if path.exists():
                return str(path)
        give = "put it back" if what == "unlabelled" else f"give --{what}"
        raise RunDirectoryError(f"{place}: the {what} of {self.path} is not there; {give}")


def reproduce(
    run_dir: str | Path,
    *,
    model: ModelSource | None = None,
    data: SampleSource | None = None,
    on_state: OnState | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Do a run again, in a temporary place, and return whether the result is the same.

    What the widths of layers cost in time is not measured again: the run directory has it.
    `model` and `data` say where these are now. `differs` names what came out otherwise, `step` the
    first step of the journal that did, `around` what else is not as it was: versions, the machine.
    Functions that the run names are code: they are run only if you `trust` them.
    Raises: RunDirectoryError where the run is not finished, the model or the samples are others, or
    code is not trusted; what `prune` raises.
    """
    run = Recorded.read(run_dir)
    given = {one for one in (model, data) if isinstance(one, str)}
    with nullcontext() if trust else only_given(str(run.path), given):
        return _reproduced(run, model, data, on_state)


def _reproduced(
    run: Recorded, model: ModelSource | None, data: SampleSource | None, on_state: OnState | None
) -> dict[str, Any]:
    """Do a run again, and compare."""
    model = run.source("model") if model is None else model
    data = run.source("data") if data is None else data
    assert model is not None
    proto = load_model(model)
    _same(run, "model_sha256", digest(proto), model)
    with temporary() as folder:
        again = make_folder(folder / "run")
        if (run.path / LATENCY).exists():
            times = read_record(run.path / LATENCY, "latency", RunDirectoryError)
            write_whole(again / LATENCY, json.dumps(times))

        def check(task: Task, state: State) -> None:
            now = read_record(again / CONFIG, "config", RunDirectoryError)
            for key in DIGESTS:
                _same(run, key, now[key], data if key == "data_sha256" else run.settings.unlabelled)
            if on_state is not None:
                on_state(task, state)

        prune(proto, data, settings=run.settings, run_dir=again, on_state=check)
        return _compared(run, Recorded.read(again))


def _same(run: Recorded, key: str, now: str | None, where: Any) -> None:
    """Refuse another model or other samples.

    Raises: RunDirectoryError.
    """
    was = run.config.get(key)
    if was != now:
        place = where if isinstance(where, str | Path) else "what is given"
        raise RunDirectoryError(
            f"{place}: {DIGESTS[key]} than that of {run.path} (sha256 {str(now)[:12]}, then "
            f"{str(was)[:12]})"
        )


def _compared(run: Recorded, again: Recorded) -> dict[str, Any]:
    differs = []
    if run.plan != again.plan:
        differs.append("plan")
    if run.model_sha256 != again.model_sha256:
        differs.append("ONNX bytes")
    before, after = (one.report["after"]["accuracy"] for one in (run, again))
    if before != after:
        differs.append("accuracy")
    step = _first_step(run.journal, again.journal)
    return {
        "equal": not differs,
        "differs": differs,
        "step": step[0] if step else None,
        "step_differs": step[1] if step else [],
        "steps": len(again.journal),
        "around": list(_around(run, again)),
        "seconds": again.report["seconds"],
    }


def _first_step(
    run: Sequence[Mapping[str, Any]], again: Sequence[Mapping[str, Any]]
) -> tuple[int, list[str]] | None:
    """The first step that differs, from 0 for the unpruned net, and in what."""
    for number, (was, now) in enumerate(zip(run, again, strict=False)):
        if differs := [what for key, what in STEP.items() if was.get(key) != now.get(key)]:
            return number, differs
    if len(run) != len(again):
        return min(len(run), len(again)), ["how many steps there are"]
    return None


def _around(run: Recorded, again: Recorded) -> Iterator[str]:
    """What is not as it was: versions and the machine, and whether measured times decided."""
    for part in ("versions", "machine"):
        was, now = (dict(one.about.get(part, {})) for one in (run, again))
        for name in {**was, **now}:
            if was.get(name) != now.get(name):
                yield f"{name} {now.get(name, 'is missing')} (then {was.get(name, 'not there')})"
    if run.settings.target.latency_ms is not None:
        yield "measured milliseconds decided, which differ each time"
