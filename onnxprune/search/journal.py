"""The run directory: settings, a journal of accepted steps, and what the run ended in.

    config.json     the settings, digests of the model and the samples, and what computes
    about.json      the model, the command and the machine, and the network as the page draws it
    latency.json    what the widths of layers cost in time, where the order looks at that; a new
                    run whose directory has that of another one, and nothing else, goes by it
    journal.jsonl   one line for each accepted state, written before the next step begins, with the
                    nets that were tried on the way to it and taken back
    evidence.json   what the page shows of single samples and layers
    plan.json, pruned.onnx, report.json, report.html

A line holds all that a controller remembers; floats are written so that they read back the same
to the last bit, which is why a resumed run ends in the same plan. One process uses a run directory
at a time; a killed one leaves no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnx import ModelProto

from onnxprune.checks import shown
from onnxprune.data import Data, by_name, pieces
from onnxprune.engine import cores
from onnxprune.errors import NOTICE, RunDirectoryError
from onnxprune.files import append, cut, make_folder, remove, write_whole
from onnxprune.graph import Graph, digest, reads_back, save_model
from onnxprune.locks import LOCK, Held, release, take
from onnxprune.progress import phase
from onnxprune.records import as_text, parse_record, read_record
from onnxprune.search.about import versions
from onnxprune.search.latency import Latency
from onnxprune.search.lines import from_line, to_line
from onnxprune.search.objective import ESTIMATE
from onnxprune.search.plan import Plan
from onnxprune.search.settings import Settings
from onnxprune.search.task import State, Task

logger = logging.getLogger(__name__)

CONFIG, JOURNAL, PLAN = "config.json", "journal.jsonl", "plan.json"
LATENCY, ABOUT, EVIDENCE = "latency.json", "about.json", "evidence.json"
MODEL, REPORT, PAGE = "pruned.onnx", "report.json", "report.html"

DIGESTS = {
    "model_sha256": "another model",
    "data_sha256": "other samples",
    "unlabelled_sha256": "other images without labels",
}
"""What a run is of, and what people call it."""


ALIKE = ("threads", "cores")
"""What may differ in a run that goes on: no plan depends on it, unless measured times decide."""

ENDS = (JOURNAL, PLAN, MODEL, REPORT)
"""What only a run that took a step has written."""


@dataclass(frozen=True)
class Spent:
    """What earlier sittings of a run cost."""

    evaluations: int = 0
    seconds: float = 0.0


class RunDirectory:
    """Where a run is recorded; without a path nothing is. Used in a `with` block, it is locked."""

    def __init__(self, path: Path | None, lock: int | None = None) -> None:
        self.path = path
        self._lock = lock
        self._made = self._timed = False

    @classmethod
    def open(
        cls,
        path: str | Path | None,
        settings: Settings,
        model: ModelProto,
        data: Data | None,
        unlabelled: Data | None = None,
        *,
        resume: bool,
    ) -> RunDirectory:
        """Create a run directory, or continue one that was made with the same settings.

        Nothing is written into a folder that holds anything else.
        Raises: RunDirectoryError when it holds another run or no run, or another process uses it;
        OutputError when it is not writable.
        """
        if path is None:
            if resume:
                raise RunDirectoryError("resume: which run? give its --run-dir")
            return cls(None)
        path = Path(path)
        made = not path.exists()
        check_own(path)
        try:
            found = cls(path, take(make_folder(path)))
        except Held as error:
            raise RunDirectoryError(
                f"{path}: another process is using it; wait until it ends, or give another "
                f"--run-dir"
            ) from error
        found._made = made
        try:
            _begin(path, _config(settings, model, data, unlabelled), resume=resume)
        except BaseException:
            found.close()
            raise
        return found

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use it."""
        lock, self._lock = self._lock, None
        release(lock)

    def last(self, channels: int) -> tuple[State | None, Spent]:
        """Return the last journalled state, if there is one, and what it took to get there.

        Raises: RunDirectoryError when the journal cannot be read, or is not of so many `channels`.
        """
        lines = self.lines()
        if not lines:
            return None, Spent()
        line = lines[-1]
        if line["channels"] != channels:
            raise _failed(
                f"{self.path}: its journal is of {line['channels']:,} channels, the model has "
                f"{channels:,}"
            )
        return from_line(line), Spent(line["evaluations"], line["seconds"])

    def lines(self) -> list[dict[str, Any]]:
        """Return the journal, without a last line that a kill cut short.

        Raises: RunDirectoryError when a line cannot be read.
        """
        if self.path is None or not (self.path / JOURNAL).exists():
            return []
        found = []
        raw = (self.path / JOURNAL).read_bytes()
        for number, line in enumerate(raw.splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                cut(self.path / JOURNAL, len(raw) - len(line))
                break
            where = f"{self.path / JOURNAL}: line {number}"
            found.append(parse_record(as_text(line, where, _failed), "state", where, _failed))
        return found

    def timed(self, task: Task, settings: Settings) -> Task:
        """Return the task as the directory has it: times that lie there decide in place of a guess.

        So did those of a run before latency was estimated where nothing is asked for.
        """
        if self.path is None or settings.aim is not None or task.aims != (ESTIMATE,):
            return task
        return replace(task, aims=("latency",)) if (self.path / LATENCY).exists() else task

    def latency(self, graph: Graph, measure: Callable[[], Latency]) -> Latency:
        """Return what widths cost in time: as the directory has it since the run began, or now.

        Raises: RunDirectoryError when the record cannot be read, or is of another model.
        """
        if self.path is None:
            return measure()
        path = self.path / LATENCY
        self._timed = not path.exists()
        if self._timed:
            write_whole(path, json.dumps(measure().to_json()) + "\n")
        elif not (self.path / JOURNAL).exists():
            logger.log(NOTICE, "what layers cost in time is what %s says; none is timed", LATENCY)
        found = Latency.from_json(read_record(path, "latency", _failed))
        if others := sorted(name for name in found.times if graph.shape(name) is None):
            raise RunDirectoryError(
                f"{path}: has the time of {others[0]!r}, which the model has not; take that of a "
                f"run of this model, or remove it"
            )
        return found

    @phase("writing")
    def append(
        self,
        state: State,
        figures: Mapping[str, Any],
        evaluations: int,
        seconds: float,
        tried: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Journal a state; it is on the disk when this returns.

        `tried` are the nets that were measured before it and taken back, as `to_try` has them.

        Raises: OutputError when it cannot be written.
        """
        if self.path is None:
            return
        line = {**figures, "evaluations": evaluations, "seconds": seconds, **to_line(state)}
        line["tried"] = list(tried)
        append(self.path / JOURNAL, json.dumps(line) + "\n")

    def keep(self, name: str, content: Mapping[str, Any]) -> None:
        """Write what the page shows beside the journal.

        Raises: OutputError when it cannot be written.
        """
        if self.path is not None:
            write_whole(self.path / name, json.dumps(content) + "\n")

    def abandon(self) -> None:
        """Leave nothing behind of a run that ended before its first state."""
        if self.path is None or (self.path / JOURNAL).exists():
            return
        with contextlib.suppress(OSError):
            for name in (CONFIG, *([LATENCY] if self._timed else []), ABOUT, LOCK):
                (self.path / name).unlink(missing_ok=True)
            if self._made:
                self.path.rmdir()

    def finish(
        self,
        model: ModelProto,
        plan: Plan,
        report: Mapping[str, Any],
        check: Callable[[Path], None] | None = None,
    ) -> None:
        """Write what the run ended in; `check` reads the model before it takes its name."""
        if self.path is None:
            return
        save_model(model, self.path / MODEL, check=check or reads_back(model))
        plan.save(self.path / PLAN)
        write_whole(self.path / REPORT, json.dumps(report, indent=2) + "\n")


def _begin(path: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Write what a run is of, or see that it is the same run.

    Raises: RunDirectoryError when it is another, or one is there and not to be resumed.
    """
    if not resume and any((path / name).exists() for name in ENDS):
        raise RunDirectoryError(
            f"{path}: holds a run already; give --resume to continue it, or another --run-dir"
        )
    if resume and any((path / name).exists() for name in (CONFIG, *ENDS)):
        _compare(path, config)
    else:
        if resume:
            logger.log(NOTICE, "%s: holds no run yet; one begins", path)
        if (path / CONFIG).exists():  # of a run that ended before its first step, with its times
            remove(path / LATENCY)
        write_whole(path / CONFIG, json.dumps(config, indent=2) + "\n")


def _config(
    settings: Settings, model: ModelProto, data: Data | None, unlabelled: Data | None
) -> dict[str, Any]:
    return {
        "settings": settings.to_json(),
        "model_sha256": digest(model),
        "data_sha256": _digest(data),
        "unlabelled_sha256": _digest(unlabelled),
        "computed": _computed(),
    }


def _computed() -> dict[str, Any]:
    """What computes a run: other versions round otherwise."""
    found: dict[str, Any] = dict(versions())
    del found["python"]
    return {**found, "cores": cores()}


def check_own(folder: str | Path | None) -> None:
    """Refuse a folder that holds something, but no run.

    Raises: RunDirectoryError.
    """
    if folder is None:
        return
    path = Path(folder)
    try:
        found = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
    except OSError:  # there is none, or it is a file: `make_folder` says so
        return
    if not found or JOURNAL in found or found == [LATENCY]:
        return
    with contextlib.suppress(RunDirectoryError):
        if read_record(path / CONFIG, "config", _failed).get("model_sha256"):
            return
    more = f" and {len(found) - 1} more" if found[1:] else ""
    raise RunDirectoryError(
        f"{path}: holds {found[0]}{more}, and no run; give a new or an empty folder as --run-dir"
    )


def _digest(data: Data | None) -> str | None:
    if data is None:
        return None
    found = hashlib.sha256()
    for name, array in sorted(by_name(data.x, "").arrays.items()):
        found.update(name.encode())
        for rows in pieces(array):
            found.update(rows.tobytes())
    found.update(data.y.tobytes())
    if data.targets is not None:
        told = data.targets.tolist() if data.targets.dtype == object else data.targets.tobytes()
        found.update(repr(told).encode())
    return found.hexdigest()


def _compare(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse to continue a run with other settings, another model or other samples.

    Raises: RunDirectoryError naming what is not as it was.
    """
    held = read_record(path / CONFIG, "config", _failed)
    old, by = held["settings"], held.get("computed", {})
    now = json.loads(json.dumps(config))
    new = now["settings"]
    if held.keys() != now.keys() or old.keys() != new.keys():
        names = sorted((held.keys() ^ now.keys()) | (old.keys() ^ new.keys()))
        raise RunDirectoryError(
            f"{path}: was made with another version of onnxprune, as its {CONFIG} differs in "
            f"{', '.join(names)}; continue it with that version, or give another --run-dir"
        )
    before, after = {**_flat(old), **by}, {**_flat(new), **now["computed"]}
    found = {
        name: f"{name} {shown(before.get(name))} (now {shown(after.get(name))})"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    }
    if after["latency_ms"] is None and not (path / LATENCY).exists():
        if noted := [found.pop(name) for name in ALIKE if name in found]:
            logger.log(NOTICE, "%s: was made with %s; the plan is the same", path, ", ".join(noted))
    differ = [*found.values(), *(what for key, what in DIGESTS.items() if held[key] != now[key])]
    if differ:
        raise RunDirectoryError(
            f"{path}: was made with {', '.join(differ)}; resume with the same, or give another "
            f"--run-dir"
        )


def _failed(line: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{line}; it was edited, or another version of onnxprune wrote it: start a new run, in "
        f"another --run-dir"
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without their parts: the options by their names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
