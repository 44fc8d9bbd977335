"""Time pruned networks on onnxruntime, with widths rounded and not.

    python -m tests.benchmarks.latency [--networks vgg16 resnet50] [--macs 0.5] [--rounds 40] ...

Each network is pruned one-shot, to half of its multiply-adds. Its weights are random and filters
are ranked by magnitude, because latency does not depend on values. The original and the pruned
models take turns, in a new order each round, so that other load on the machine slows all alike.
`gain` is the share of latency saved divided by the share of multiply-adds saved; the aim is 0.8
with `--round-to 8`. It is given for the medians, and for the shortest times, which other load
delays least. The threads of a model wait for each other, so figures with all cores are only good
on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch
from onnx import ModelProto

import onnxprune
from onnxprune.converters import Options
from onnxprune.converters.pytorch import export_network
from onnxprune.converters.torchvision import import_torchvision
from onnxprune.evaluation.runtime import session

NETWORKS = ("vgg16", "resnet18", "resnet50", "mobilenet_v2")
AIM = 0.8
PAUSE = 0.05
"""Seconds between two turns."""


@dataclass(frozen=True)
class Row:
    """The times of a pruned network and of the original.

    Units: `before` and `after`: ms, the median and the shortest. macs: share that is left.
    """

    network: str
    round_to: int
    threads: int
    batch: int
    macs: float
    before: tuple[float, float]
    after: tuple[float, float]

    def gain(self, which: int = 0) -> float:
        """Return the share of latency saved divided by the share of multiply-adds saved."""
        return (1 - self.after[which] / self.before[which]) / (1 - self.macs)


def exported(name: str, size: int) -> ModelProto:
    """Export a torchvision network with random weights, its BatchNorm folded."""
    torch.manual_seed(0)
    network = import_torchvision().models.get_model(name, weights=None).eval()
    options = Options(input_shape=(3, size, size), exporter="classic")
    model: ModelProto = export_network(network, name, options).model
    return model


def pruned(
    model: ModelProto, given: argparse.Namespace
) -> dict[int, tuple[ModelProto, Mapping[str, Any]]]:
    """Prune a model to the multiply-adds asked for, at each rounding; return models and reports."""
    found: dict[int, tuple[ModelProto, Mapping[str, Any]]] = {}
    for round_to in given.round_to:
        result = onnxprune.prune(
            model,
            control="one-shot",
            criterion=given.criterion,
            compensate="none",
            macs=given.macs,
            max_layer_rate=given.max_layer_rate,
            round_to=round_to,
        )
        found[round_to] = (result.model, result.report)
    return found


def take_turns(
    models: Sequence[ModelProto], x: Any, threads: int, rounds: int, warmup: int
) -> list[tuple[float, float]]:
    """Return the median and the shortest time of each model in ms.

    Every round runs all models, in a new order. The threads of the previous model still spin for a
    while, so a turn begins with a pause, and of its two runs the second counts.
    """
    sessions = [session(model, device="cpu", threads=threads, exact=False) for model in models]
    name = sessions[0].get_inputs()[0].name
    times: list[list[float]] = [[] for _ in models]
    rng = np.random.default_rng(0)
    for turn in range(warmup + rounds):
        for k in rng.permutation(len(models)).tolist():
            time.sleep(PAUSE)
            sessions[k].run(None, {name: x})
            begin = time.perf_counter()
            sessions[k].run(None, {name: x})
            if turn >= warmup:
                times[k].append(1000 * (time.perf_counter() - begin))
    return [(median(each), min(each)) for each in times]


def measure(name: str, given: argparse.Namespace) -> Iterator[Row]:
    """Time one network with each number of threads."""
    model = exported(name, given.size)
    small = pruned(model, given)
    x = np.random.default_rng(1).random((given.batch, 3, given.size, given.size), np.float32)
    for threads in given.threads:
        models = [model, *(proto for proto, _ in small.values())]
        before, *after = take_turns(models, x, threads, given.rounds, given.warmup)
        for (round_to, (_, report)), each in zip(small.items(), after, strict=True):
            macs = report["after"]["macs"] / report["before"]["macs"]
            yield Row(name, round_to, threads, given.batch, macs, before, each)


def line(row: Row) -> str:
    """Return one row of the table."""
    verdict = "" if row.round_to == 1 else (" yes" if row.gain() >= AIM else " no")
    return (
        f"| {row.network} | {row.round_to} | {row.threads or 'all'} | {1 - row.macs:.1%} | "
        f"{row.before[0]:.1f} | {row.after[0]:.1f} | {1 - row.after[0] / row.before[0]:.1%} | "
        f"{row.gain():.2f} |{verdict} | {row.before[1]:.1f} | {row.after[1]:.1f} | "
        f"{row.gain(1):.2f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.latency")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--macs", type=float, default=0.5, help="share that is left")
    parser.add_argument("--round-to", type=int, nargs="+", default=[8, 1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 0], help="0 is all cores")
    parser.add_argument("--criterion", default="magnitude")
    parser.add_argument("--max-layer-rate", type=float, default=1.0)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=5)
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} at the start, batch {given.batch}", flush=True)
    print(
        "| network | round to | threads | MACs saved | before, ms | after, ms | saved | gain "
        "| aim met | shortest before | after | gain |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for name in given.networks:
        for row in measure(name, given):
            print(line(row), flush=True)


if __name__ == "__main__":
    main()
