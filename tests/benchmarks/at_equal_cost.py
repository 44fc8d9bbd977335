"""Accuracy on unseen images at the same multiply-adds, and the time that is left, by several ways.

    python -m tests.benchmarks.at_equal_cost samples/fashion_mnist resnet --seeds 3 -o equal.json

Each folder holds `model.onnx`, `reference/` and `test/`, as the sample does and as the experiments
of this folder write them. A seed chooses ten reference images of each class. Latencies before and
after are measured in turn, on one thread; medians of the seeds are given.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import onnxprune
from onnxprune.data import Data, load_data
from onnxprune.errors import OnnxPruneError
from onnxprune.files import write_whole
from onnxprune.graph.graph import Graph

WAYS: Mapping[str, Mapping[str, Any]] = {
    "by multiply-adds": {"aim": "macs"},
    "by latency": {"aim": "latency"},
    "by filters": {"aim": "rate"},
    "by filters, any width": {"aim": "rate", "round_to": 1},
    "LRP, one ranking": {"control": "one-shot", "criterion": "lrp", "round_to": 1},
    "magnitude, one ranking": {"control": "one-shot", "criterion": "magnitude", "round_to": 1},
}
"""What is compared; weights are corrected by least squares in all of them."""
PER_CLASS = 10


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--macs", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("equal.json"))
    asked = parser.parse_args()
    rows = []
    for folder in asked.folders:
        for goal in asked.macs:
            for way in WAYS:
                row = summary(folder, goal, way, list(runs(folder, goal, way, asked.seeds)))
                rows.append(row)
                print(line(row), flush=True)
                write_whole(asked.output, json.dumps(rows, indent=2) + "\n")


def runs(folder: Path, goal: float, way: str, seeds: int) -> Iterator[dict[str, float]]:
    """Yield what each seed reaches on the test images."""
    shape, dtype = Graph.load(folder / "model.onnx").image_form
    everything = load_data(folder / "reference", shape=shape, dtype=dtype)
    for seed in range(seeds):
        chosen = choose(everything, np.random.default_rng(seed))
        try:
            result = onnxprune.prune(
                folder / "model.onnx",
                chosen,
                **{"macs": goal, "compensate": "least-squares", "threads": 1, "seed": seed},
                **WAYS[way],
            )
        except OnnxPruneError as error:
            print(f"{folder.name}, {way}, seed {seed}: {error}")
            continue
        found = onnxprune.compare(
            folder / "model.onnx", result.model, folder / "test", threads=1, trust_baseline=True
        )
        before, after = found["before"], found["after"]
        yield {
            "mean": after["accuracy"]["mean"],
            "harmonic": after["accuracy"]["harmonic"],
            "unpruned": before["accuracy"]["mean"],
            "macs": after["macs"] / before["macs"],
            "latency": after["latency_ms"] / before["latency_ms"],
            "evaluations": result.report["evaluations"],
        }


def choose(data: Data, rng: np.random.Generator) -> Data:
    """Return some samples of each class, in their order."""
    chosen = [
        rng.permutation(np.flatnonzero(data.y == label))[:PER_CLASS] for label in np.unique(data.y)
    ]
    rows = np.sort(np.concatenate(chosen))
    return Data(data.x[rows], data.y[rows], data.classes)


def summary(folder: Path, goal: float, way: str, found: list[dict[str, float]]) -> dict[str, Any]:
    """Return the medians of the seeds, and the lowest and highest mean accuracy."""
    row: dict[str, Any] = {"model": folder.name, "goal": goal, "way": way, "seeds": len(found)}
    if found:
        row |= {name: statistics.median(one[name] for one in found) for name in found[0]}
        row |= {"low": min(f["mean"] for f in found), "high": max(f["mean"] for f in found)}
    return row


def line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of a Markdown table."""
    if not row["seeds"]:
        return f"| {row['model']} | {row['goal']:.0%} | {row['way']} | out of reach |"
    return (
        f"| {row['model']} | {row['goal']:.0%} | {row['way']} | {row['mean']:.3f} "
        f"({row['low']:.3f} to {row['high']:.3f}) | {row['harmonic']:.3f} | "
        f"{row['latency']:.2f} | {row['evaluations']:.0f} |"
    )


if __name__ == "__main__":
    main()
