"""Prune trained models that ship in packages by samples of their tasks, and judge them on others.

    python -m tests.benchmarks.real_tasks -o tasks.jsonl                all tasks
    python -m tests.benchmarks.real_tasks -o tasks.jsonl speech lines   some
    python -m tests.benchmarks.real_tasks --photos DIR photos           what needs photographs
    python -m tests.benchmarks.real_tasks --table tasks.jsonl           the table of such a run

Samples are made here: rendered lines and pages of text, made-up speech. The search has no labels
and agrees with the unpruned model; where the text that was rendered is known, the task's own
measure stands beside it. Half of the samples are for the search, the other half are judged. Each
task is run with the default floor and to half of the multiply-adds, in a process of its own, and
every result is a line of the file: a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

import onnxprune
from onnxprune.evaluation.fidelity import likeness
from onnxprune.evaluation.runtime import session
from tests.benchmarks.real_models import MODELS, fetch, find, medians

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Measure = Callable[[onnx.ModelProto, Feeds], float]

ASKED: Mapping[str, dict[str, Any]] = {
    "floor": {"aim": "macs"},
    "half": {"macs": 0.5},
}
"""What is asked for: the default floor, or half of the multiply-adds."""


@dataclass(frozen=True)
class Made:
    """Samples of a task, and how well a model does on the second half of them, if that is known.

    Shapes: each input `[n, ...]`.
    """

    feeds: Feeds
    measure: Measure | None = None
    of: str = ""


@dataclass(frozen=True)
class Task:
    """A model of `real_models.MODELS`, how its samples are made, and what a user types more."""

    name: str
    model: str
    make: Callable[[Path, argparse.Namespace], Made]
    options: Mapping[str, Any] = field(default_factory=dict)


# Text

WORDS = (
    "The quick brown fox jumps over lazy dog invoice total amount 2024 order No.17 Berlin street "
    "price 49.90 EUR date payment customer signature page report model filter network"
).split()
LINES, PAGES = 64, 48


def words(rng: np.random.Generator) -> str:
    """Some words, as a line has them."""
    return " ".join(rng.choice(WORDS, rng.integers(1, 4)))


def lines(_: Path, given: argparse.Namespace) -> Made:
    """Lines of text on paper of a colour; the measure is the share of characters that are right.

    Shapes: x `[n, 3, 48, 320]`. Units: -1 to 1.
    """
    rng, x, texts = np.random.default_rng(0), [], []
    for _number in range(LINES):
        text, size = words(rng), 34
        image = Image.new("RGB", (320, 48), colour(rng, 180, 256))
        pen = ImageDraw.Draw(image)
        while pen.textlength(text, ImageFont.load_default(size)) > 300:
            size -= 1
        font = ImageFont.load_default(size)
        pen.text((8, 24), text, font=font, fill=colour(rng, 0, 100), anchor="lm")
        noisy = np.asarray(image, np.float32) + rng.normal(0, 6, (48, 320, 3))
        x.append((np.clip(noisy, 0, 255) / 127.5 - 1).transpose(2, 0, 1).astype(np.float32))
        texts.append(text)

    def right(model: onnx.ModelProto, unseen: Feeds) -> float:
        known = {one.key: one.value for one in model.metadata_props}["character"].splitlines()
        alphabet = ["", *known, " "]
        net, shares = session(model, device="cpu", threads=1), []
        for text, row in zip(texts[-len(unseen["x"]) :], unseen["x"], strict=True):
            best = net.run(None, {"x": row[None]})[0][0].argmax(1)
            steps = best[np.flatnonzero(np.diff(best, prepend=-1))]
            found = "".join(alphabet[k] for k in steps if k)
            shares.append(likeness([*map(ord, found)], [*map(ord, text)]))
        return float(np.mean(shares))

    return Made({"x": np.stack(x)}, right, "characters right")


def colour(rng: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(one) for one in rng.integers(low, high, 3))


def pages(_: Path, given: argparse.Namespace) -> Made:
    """Pages of lines; the measure is the overlap of what is found with where text was drawn.

    Shapes: x `[n, 3, 320, 320]`. Units: deviations of ImageNet's pixels; IoU of pixels.
    """
    rng, x, masks = np.random.default_rng(0), [], []
    for _number in range(PAGES):
        low, high = rng.integers(120, 256, (2, 3))
        ramp = np.linspace(0, 1, 320)[:, None, None]
        paper = low * (1 - ramp) + high * ramp + rng.normal(0, 8, (320, 320, 3))
        image = Image.fromarray(np.clip(paper, 0, 255).astype(np.uint8))
        pen, mask, y = ImageDraw.Draw(image), np.zeros((320, 320), bool), int(rng.integers(8, 40))
        while y < 285:
            size, text, left = int(rng.integers(14, 30)), words(rng), int(rng.integers(4, 60))
            font = ImageFont.load_default(size)
            while pen.textlength(text, font) > 310 - left:
                text = text[:-2]
            pen.text((left, y), text, font=font, fill=colour(rng, 0, 80))
            x1, y1, x2, y2 = map(int, pen.textbbox((left, y), text, font=font))
            mask[y1:y2, x1:x2] = True
            y += size + int(rng.integers(8, 50))
        pixels = np.asarray(image, np.float32) / 255
        scaled = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        x.append(scaled.transpose(2, 0, 1).astype(np.float32))
        masks.append(mask)

    def overlap(model: onnx.ModelProto, unseen: Feeds) -> float:
        net, shares = session(model, device="cpu", threads=1), []
        for mask, row in zip(masks[-len(unseen["x"]) :], unseen["x"], strict=True):
            found = net.run(None, {"x": row[None]})[0][0, 0] > 0.3
            shares.append((found & mask).sum() / max((found | mask).sum(), 1))
        return float(np.mean(shares))

    return Made({"x": np.stack(x)}, overlap, "overlap of text")


# Sound

RATE, SOUNDS, RUNS = 16000, 48, 48


def speech(rng: np.random.Generator, seconds: float = 3.0) -> Array:
    """Made-up speech: voiced bursts whose pitch and formants move, hissing, pauses, some noise.

    Shapes: -> `[seconds * 16000]`.
    """
    samples = int(seconds * RATE)
    y, start = np.zeros(samples), 0
    while start < samples:
        long = min(int(rng.uniform(0.08, 0.4) * RATE), samples - start)
        t, kind = np.arange(long) / RATE, rng.random()
        if kind < 0.6:
            pitch = rng.uniform(90, 250) * (1 + 0.2 * np.sin(2 * np.pi * rng.uniform(2, 6) * t))
            turned = 2 * np.pi * np.cumsum(pitch) / RATE
            formants = rng.uniform([300, 900, 2200], [800, 2200, 3000])
            sung = sum(
                np.sin(h * turned)
                * sum(np.exp(-(((h * pitch - f) / (120 + 0.1 * f)) ** 2)) for f in formants)
                for h in range(1, 25)
            )
            loud = sung / np.maximum(np.abs(sung).max(), 1e-6) * rng.uniform(0.2, 0.8)
            y[start : start + long] += np.hanning(long) * loud
        elif kind < 0.8:
            y[start : start + long] += np.hanning(long) * rng.normal(size=long) * 0.1
        start += long
    return np.asarray(y + rng.normal(size=samples) * 10 ** rng.uniform(-4, -2), np.float32)


def spectrograms(folder: Path, given: argparse.Namespace) -> Made:
    """Spectrograms as openWakeWord makes them. Shapes: x `[n, 76, 32, 1]`."""
    rng = np.random.default_rng(0)
    package = fetch("openwakeword==0.4.0", folder)
    net = onnxruntime.InferenceSession(str(next(package.rglob("melspectrogram.onnx"))))
    found = []
    for _number in range(SOUNDS):
        (mel,) = net.run(None, {"input": speech(rng)[None] * 32767})
        found += [mel.squeeze()[k : k + 76, :, None] / 10 + 2 for k in (0, 100)]
    return Made({"x": np.stack(found).astype(np.float32)})


def runs(_: Path, given: argparse.Namespace) -> Made:
    """Runs of frames with states that begin at zero. Shapes: input `[n, 20, 576]`."""
    rng, found = np.random.default_rng(0), []
    for _number in range(RUNS):
        sound, start = speech(rng), int(rng.integers(0, 16000))
        found.append([sound[start + 512 * k : start + 512 * k + 576] for k in range(20)])
    zero = np.zeros((RUNS, 1, 1, 128), np.float32)
    return Made({"input": np.array(found, np.float32), "h": zero, "c": zero})


# Bytes

FILES, ENDS, FILLED = 80, (".py", ".json", ".txt", ".so", ".h", ".md", ".html", ".png"), 256


def files(_: Path, given: argparse.Namespace) -> Made:
    """Files of this Python as magika reads them: the first and last 1,024 bytes, filled up.

    Shapes: bytes `[n, 2048]`.
    """
    rng, roots = np.random.default_rng(0), (sysconfig.get_path("stdlib"), np.__path__[0])
    there = sorted(f for root in roots for f in Path(root).rglob("*") if f.suffix in ENDS)
    by_end = [[f for f in there if f.suffix == end] for end in ENDS]
    chosen = [f for own in by_end for f in rng.permutation(np.array(own, object))[: FILES // 4]]
    found = []
    for file in rng.permutation(np.array(chosen, object))[:FILES]:
        text = np.frombuffer(file.read_bytes().strip(), np.uint8)
        first, last = text[:1024], text[-1024:]
        gap = np.full(2048 - len(first) - len(last), FILLED)
        found.append(np.concatenate([first, gap, last]).astype(np.int32))
    return Made({"bytes": np.stack(found)})


# Photographs


def photos(_: Path, given: argparse.Namespace) -> Made:
    """Photographs of `--photos`. Shapes: images `[n, 3, 320, 320]`. Units: 0 to 1."""
    if given.photos is None:
        raise SystemExit("photos: needs a folder of photographs: --photos DIR")
    kinds = (".jpg", ".jpeg", ".png")
    files = sorted(f for f in given.photos.rglob("*") if f.suffix.lower() in kinds)
    rng = np.random.default_rng(0)
    chosen = [files[k] for k in rng.permutation(len(files))[:128]]
    opened = (Image.open(file).convert("RGB").resize((320, 320)) for file in chosen)
    x = [np.asarray(one, np.float32).transpose(2, 0, 1) / 255 for one in opened]
    return Made({"images": np.stack(x)})


TASKS = (
    Task("lines", "rapidocr/rec", lines),
    Task("pages", "rapidocr/det", pages),
    Task("spectrograms", "openwakeword", spectrograms, {"outputs": ("conv2d_19=vector",)}),
    Task("speech", "silero-vad/sequence", runs),
    Task("files", "magika", files),
    Task("photos", "nudenet", photos),
)


def measure(task: Task, asked: str, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Prune one model by the first half of its samples, and judge both on the second half."""
    path = find(next(real for real in MODELS if real.name == task.model), folder)
    made = task.make(folder, given)
    half = len(next(iter(made.feeds.values()))) // 2
    seen = {name: values[:half] for name, values in made.feeds.items()}
    unseen = {name: values[half:] for name, values in made.feeds.items()}
    began = time.process_time()
    options = {**task.options, **ASKED[asked]}
    result = onnxprune.prune(path, _samples(seen), threads=1, **options)
    spent = time.process_time() - began
    outputs = task.options.get("outputs", ())
    found = onnxprune.compare(path, result.model, _samples(unseen), threads=1, outputs=outputs)
    report, before = result.report, onnx.load(path)
    names = [one.name for one in before.graph.input] if len(unseen) == 1 else [*unseen]
    one = {name: values[:1] for name, values in zip(names, unseen.values(), strict=False)}
    row = {
        "task": task.name,
        "model": task.model,
        "asked": asked,
        "macs": report["after"]["macs"] / report["before"]["macs"],
        "params": report["after"]["params"] / report["before"]["params"],
        "ms": medians([before, result.model], one) if task.name != "speech" else _latency(report),
        "seen": report["after"]["accuracy"]["harmonic"],
        "unseen": found["after"]["accuracy"]["harmonic"],
        "stopped": report["stopped"],
        "cpu_s": spent,
    }
    if made.measure is not None:
        row["own"] = [made.measure(model, unseen) for model in (before, result.model)]
        row["of"] = made.of
    return row


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
            for asked in given.asked or ASKED:
                if given.names and task.name not in given.names:
                    continue
                if task.name == "photos" and given.photos is None and not given.names:
                    continue
                if given.one:
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
