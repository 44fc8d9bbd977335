"""Measure what relevance and a search cost, in evaluations, on classifiers that people deploy.

    python -m tests.benchmarks.cost MODEL.onnx... [--data FOLDER] [--images 300] [--macs 0.5]
        [--compensate none least-squares] [--threads 1] [--passes-only]

Each model takes pixels in 0..1. FOLDER has one folder of images for each class, whose names are
class numbers; of all of them every nth is taken, so that there are as many images as asked for.
Without it images are noise. The answers of the unpruned model are the labels, so that a model with
random weights can be searched as well.

What the first step took, and the peak of memory until then, stands on standard error as soon as it
is taken, the rest in a table when the search has ended.

The unit is a forward of the same images on onnxruntime, in batches of 16. CPU seconds count, the
sum over threads; a machine that is shared changes these less than it does wall-clock seconds.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import torch

from onnxprune.arrays import FloatArray
from onnxprune.channels.groups import find_groups
from onnxprune.data import Data
from onnxprune.evaluation.runtime import session
from onnxprune.graph.graph import Graph
from onnxprune.relevance.damage import Meter
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import find_composite
from onnxprune.relevance.threads import one_thread
from onnxprune.search.assemble import make_task
from onnxprune.search.controllers import find_controller, search
from onnxprune.search.settings import Settings
from tests.benchmarks.pictures import read_pictures, to_arrays
from tests.benchmarks.search import PARTS, Watched, reset_peak, resident

BATCH = 16


def cpu_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median of the CPU seconds of some runs, after one that does not count."""
    run()
    found = []
    for _ in range(repeats):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return median(found)


def read_images(graph: Graph, chosen: argparse.Namespace) -> FloatArray:
    """Return the images that a model is measured on. Shapes: -> `[n, 3, size, size]`."""
    size = (graph.shape(graph.inputs[0]) or (1, 3, 224, 224))[2]
    if chosen.data is None:
        rng = np.random.default_rng(chosen.seed)
        return rng.random((chosen.images, 3, size, size), np.float32)
    pictures = [image for images in read_pictures(chosen.data).values() for image in images]
    taken = np.linspace(0, len(pictures) - 1, min(chosen.images, len(pictures))).astype(int)
    return to_arrays({"all": [pictures[k] for k in taken]}, size)[0]


def forward(graph: Graph, x: FloatArray, threads: int) -> FloatArray:
    """Run the images on onnxruntime. Shapes: x `[n, ...]` -> `[n, classes]`."""
    net = session(graph.model, device="cpu", threads=threads)
    parts = (x[k : k + BATCH] for k in range(0, len(x), BATCH))
    return np.concatenate([net.run(None, {graph.inputs[0]: part})[0] for part in parts])


def measure_pass(graph: Graph, data: Data, repeats: int) -> tuple[float, float, float, float]:
    """Return what a forward takes, what one does on the mirror, and what a pass of damage does.

    The pass is along one direction, and along as many as a search takes of so many classes.
    Units: CPU seconds; forwards; forwards; forwards.
    """
    net = session(graph.model, device="cpu", threads=1)
    x = np.asarray(data.x[:BATCH])
    unit = cpu_seconds(lambda: net.run(None, {graph.inputs[0]: x}), repeats)
    groups = find_groups(graph)
    with one_thread():
        mirror = Mirror(graph, device="cpu")
        with torch.no_grad():
            plain = cpu_seconds(lambda: mirror(x), repeats)
        few = Data(x, data.y[:BATCH], data.classes)
        damage = []
        for directions in (1, None):
            epsilon = find_composite("epsilon")
            meter = Meter(graph, few, epsilon, "cpu", batch_size=32, directions=directions)
            damage.append(cpu_seconds(partial(meter, graph, groups), repeats) / unit)
    return unit, plain / unit, damage[0], damage[1]


def measure_search(graph: Graph, data: Data, settings: Settings, unit: float) -> None:
    """Search, and print what that costs. Units: unit, CPU seconds of a forward of all images."""
    started, begun = time.perf_counter(), time.process_time()
    nets = Watched(make_task(graph, data, settings))
    states = search(nets, find_controller(settings.control))
    count, first = -1, (0.0, 0.0)
    with nets.watch("rest"):
        for _ in states:
            count += 1
            if count == 1:
                first = time.perf_counter() - started, time.process_time() - begun
                print(
                    f"first step ({settings.compensate}): {first[1]:.1f} CPU s, "
                    f"{nets.evaluations} evaluations, {resident('VmHWM'):.0f} MiB",
                    file=sys.stderr,
                )
    whole = time.process_time() - begun
    parts = (f"{nets.watch.seconds.get(part, np.zeros(2))[0] / unit:.1f}" for part in PARTS)
    print(
        f"| {settings.compensate} | {count} | {first[1]:.1f} ({first[0]:.1f}) | "
        f"{' | '.join(parts)} | **{whole / unit:.1f}** | {resident('VmHWM'):.0f} MiB |",
        flush=True,
    )


def measure(path: Path, chosen: argparse.Namespace) -> None:
    """Print the costs of one model."""
    graph = Graph(onnx.load(path))
    x = read_images(graph, chosen)
    labels = forward(graph, x, chosen.threads).reshape(len(x), -1).argmax(1)
    classes, y = np.unique(labels, return_inverse=True)
    data = Data(x, labels, tuple(map(str, range(int(classes.max()) + 1))))
    unit, mirror, damage, wide = measure_pass(graph, data, chosen.repeats)
    print(
        f"\n## {path.stem}: {len(x)} images, {len(np.unique(y))} classes\n\n"
        f"forward of {BATCH} images: {unit:.3f} CPU s; of the mirror: {mirror:.2f}; "
        f"a pass of damage: {damage:.2f} forwards along one direction, {wide:.2f} along as many as "
        f"a search takes\n",
        flush=True,
    )
    if chosen.passes_only:
        return
    print(f"| compensate | steps | s to first step | {' | '.join(PARTS)} | in all | peak memory |")
    print("|---|---|---|" + "---|" * (len(PARTS) + 2), flush=True)
    for method in chosen.compensate:
        settings = Settings.of(
            compensate=method,
            macs=chosen.macs,
            device="cpu",
            threads=chosen.threads,
            trust_baseline=True,
        )
        reset_peak()
        measure_search(graph, data, settings, unit * len(x) / BATCH)


def main() -> None:
    """Print the costs of all models."""
    parser = argparse.ArgumentParser(description="What relevance and a search cost.")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="tar or folder of classes; noise without")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--macs", type=float, default=0.5)
    parser.add_argument("--compensate", nargs="+", default=["none", "least-squares"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--passes-only", action="store_true", help="search nothing")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    for path in chosen.models:
        measure(path, chosen)


if __name__ == "__main__":
    main()
