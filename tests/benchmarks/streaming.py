"""Samples larger than memory: how much memory they take, and whether onnxruntime waits for them.

    python -m tests.benchmarks.streaming memory --images DIR [--python OTHER]
    python -m tests.benchmarks.streaming share --model resnet50.onnx --images DIR [--count 64]

`memory` prunes a small network on the images of a folder (all classes), and on the same samples in
an `.npz`, each in a process of its own, and prints what Linux counts at the highest. `--python` is
another Python, with another version of onnxprune. `share` evaluates a model on a folder, held and
streamed, and prints the share of the time that is spent inside onnxruntime.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune import memory
from onnxprune.data import ALL, Data, Form, decode
from onnxprune.data.images import find_images
from onnxprune.evaluation import Evaluator
from onnxprune.evaluation.runtime import Network
from tests.support.models import model

NET = """
net (float[N, 3, 224, 224] x) => (float[N, 10] y) <float[32, 3, 16, 16] w, float[32] b,
     float[64, 32, 3, 3] v, float[64] c, float[10, 64] h> {
    p = Conv <strides = [16, 16]> (x, w, b)
    q = Relu (p)
    r = Conv <strides = [2, 2]> (q, v, c)
    s = Relu (r)
    g = GlobalAveragePool (s)
    f = Flatten (g)
    y = Gemm <transB = 1> (f, h)
}
"""
PROGRAM = """
import resource
from onnxprune.cli import main
try:
    main()
finally:
    print("PEAK", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def links(source: Path, folder: Path, count: int | None) -> Path:
    """A flat folder of images, which have no labels then."""
    folder.mkdir()
    for number, file in enumerate(find_images(source)[:count]):
        (folder / f"{number:05d}{file.suffix}").symlink_to(file.resolve())
    return folder


def peak(python: str, arguments: list[str], folder: Path) -> float:
    """The most memory that a command takes. Units: MB of 2**20 bytes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.split("PEAK")[1]) / 2**20


def measure_memory(images: Path, count: int, python: str) -> None:
    """Prune with few and with many samples; the difference is what samples take."""
    print("| samples | MB | limit | peak MB | above 8 samples |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        onnx.save(model(NET), folder / "net.onnx")
        rng = np.random.default_rng(0)
        asked = "--threads 1 -q --control one-shot --rate 0.2 --trust-baseline".split()
        for number in (8, count):
            links(images, folder / f"images{number}", number)
            np.savez(
                folder / f"{number}.npz", x=rng.standard_normal((number, 3, 224, 224), np.float32)
            )
        for limit in (64, None):
            usual: dict[str, float] = {}
            for kind in ("images{}", "{}.npz"):
                for number in (8, count):
                    said = [] if limit is None else ["--memory", str(limit)]
                    source = kind.format(number)
                    out = ["-o", "small.onnx", "--run-dir", f"{source}-{limit}"]
                    found = peak(
                        python, ["prune", "net.onnx", "--data", source, *asked, *said, *out], folder
                    )
                    usual.setdefault(kind, found)
                    size = number * 3 * 224 * 224 * 4 / 2**20
                    above = found - usual[kind]
                    row = (source, f"{size:.0f}", limit or "free / 4", f"{found:.0f}")
                    print("|", " | ".join(map(str, (*row, f"{above:.0f}"))), "|", flush=True)


def measure_share(path: Path, images: Path, count: int, threads: int, rounds: int) -> None:
    """Evaluate on held and on streamed samples, and time what runs inside onnxruntime."""
    proto = onnx.load(path)
    name = proto.graph.input[0].name
    files = find_images(images)[:count]
    inside = [0.0]
    run = Network.run

    def timed(self: Network, *given: Any) -> Any:
        start = time.perf_counter()
        try:
            return run(self, *given)
        finally:
            inside[0] += time.perf_counter() - start

    Network.run = timed  # type: ignore[method-assign]
    print(f"{path.name}, {len(files)} images at 224 px, input {name}, {threads} thread(s)\n")
    print("| samples | pass | s | images/s | inside onnxruntime |\n|---|---|---|---|---|")
    for kind, little in (("held", 1 << 62), ("streamed", 0)):
        memory.LITTLE, memory.SHARE = little, 0.0  # type: ignore[misc]
        start = time.perf_counter()
        x = decode(files, Form((3, 224, 224), np.dtype("float32"), "imagenet"))
        decoded = time.perf_counter() - start
        data = Data(x, np.zeros(len(files), np.int64), ALL, labelled=False)
        judge = Evaluator(data, metric="fidelity", threads=threads, batch_size=16, device="cpu")
        net = Network(proto, "cpu", threads, exact=True)
        judge.outputs(net)  # the first pass looks at single samples, too
        for turn in range(rounds):
            inside[0], start = 0.0, time.perf_counter()
            judge.outputs(net)
            spent = time.perf_counter() - start
            row = (f"{spent:.1f}", f"{len(files) / spent:.1f}", f"{inside[0] / spent:.1%}")
            print("|", " | ".join((kind, str(turn + 1), *row)), "|", flush=True)
        if kind == "held":
            print(f"| (decoding them first | | {decoded:.1f} | {len(files) / decoded:.1f} | ) |")


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("memory", "share"))
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    if given.what == "memory":
        measure_memory(given.images, given.count, given.python)
    else:
        measure_share(given.model, given.images, given.count, given.threads, given.rounds)


if __name__ == "__main__":
    main()
