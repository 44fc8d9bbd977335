"""Draw curves of other tools on the same network, filters and samples.

`torch-pruning/NAME` (`taylor`, `magnitude`, `fpgm`) ranks all channels by Torch-Pruning's
importance (Fang et al. 2023, arXiv 2301.12900), with its defaults. Its pruner does this with
`global_pruning` in one step, and a test compares the two. onnxprune's surgery then removes the
filters in this order, in steps of 0.05 of the removable filters, and leaves at least one in each
layer. So rate and evaluation are those of every one-shot method. Channels without a score go last.
`torch-pruning/NAME:uniform` does what the pruner does without `global_pruning`: every group loses
the same share, in the order of its own scores.

`onnxsim/NAME` (`l2`, `l1`) calls onnxsim's structured pruning at each rate. It removes the same
share of every layer that its patterns recognise. The rate of a point is the share of the removable
filters that are gone, so the curve ends where onnxsim finds no more to remove.
"""

import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, numpy_helper

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups, find_groups
from onnxprune.comparison import LAST_RATE, Curve
from onnxprune.data import Data
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.graph.graph import Graph
from onnxprune.search.assemble import open_model
from onnxprune.search.control import Control
from onnxprune.search.controllers import one_shot, search
from onnxprune.search.nets import Nets
from onnxprune.search.settings import Settings
from onnxprune.search.target import Target, share_removed
from onnxprune.search.task import Task
from onnxprune.surgery import remove_channels

FloatArray = npt.NDArray[np.float64]


class CannotRun(Exception):
    """A tool cannot prune this network; the message says why, in one line."""


def draw_peer(
    model: ModelProto, reference: Any, test: Any, method: str, settings: Settings
) -> Curve:
    """Draw the curve of another tool, as `onnxprune.comparison.draw_curve` does for onnxprune.

    Raises: CannotRun when the tool is not installed or fails on the network.
    """
    tool, _, kind = method.partition("/")
    graph, samples = open_model(model, reference, settings)
    _, unseen = open_model(model, test, settings)
    assert samples is not None and unseen is not None
    judge = Evaluator(unseen, device=settings.device, threads=settings.threads)
    groups = find_groups(graph)
    started, judged = time.monotonic(), 0.0
    curve = Curve()
    points = PEERS[tool](kind, graph, groups, samples, settings)
    while True:
        try:
            rate, pruned = next(points)
        except StopIteration:
            break
        except Exception as error:  # the tool may raise anything
            raise CannotRun(f"{type(error).__name__}: {_first_line(error)}") from error
        before = time.monotonic()
        result = judge(pruned)
        judged += time.monotonic() - before
        curve.rate.append(rate)
        curve.mean.append(result.mean)
        curve.harmonic.append(result.harmonic)
    curve.seconds = time.monotonic() - started - judged
    return curve


Points = Iterator[tuple[float, ModelProto]]
"""Pruning rates from 0 on, each with its pruned model."""


def _torch_pruning(
    kind: str, graph: Graph, groups: ChannelGroups, samples: Data, settings: Settings
) -> Points:
    scores = importance(kind, graph, groups, samples, settings)
    nets = Nets(Task(graph, groups, rank=lambda *_: scores, target=Target(rate=LAST_RATE)))
    for state in search(nets, one_shot):
        if not state.stopped:
            yield share_removed(groups, state.dead), nets.build(state)


def importance(
    kind: str, graph: Graph, groups: ChannelGroups, samples: Data, settings: Settings
) -> FloatArray:
    """Return Torch-Pruning's importance of every channel, infinity if it gives none.

    With `:uniform` it is the rank of the channel in its group, as a share of the group's size.
    Shapes: `[channels]`.
    """
    import torch
    import torch_pruning as tp

    from tests.benchmarks.torch_layers import TorchLayers

    kind, _, scope = kind.partition(":")
    scorer = {
        "taylor": tp.importance.TaylorImportance,
        "magnitude": tp.importance.MagnitudeImportance,
        "fpgm": tp.importance.FPGMImportance,
    }[kind]()
    torch.set_num_threads(settings.threads or torch.get_num_threads())
    network = TorchLayers(graph)
    if kind == "taylor":
        for start in range(0, len(samples), settings.batch_size):
            part = slice(start, start + settings.batch_size)
            logits = network(torch.from_numpy(samples.x[part]))
            labels = torch.from_numpy(samples.y[part])
            loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
            torch.autograd.backward(loss / len(samples))
    channels = {network.layers[f.node]: f.channels for f in groups.filters}
    scores = np.full(len(groups), np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dependencies = tp.DependencyGraph().build_dependency(
            network, torch.from_numpy(samples.x[:1])
        )
        for group in dependencies.get_all_groups(root_module_types=[torch.nn.Conv2d]):
            found = scorer(group)
            if found is not None:
                own = found.double().numpy()
                place = own.argsort(kind="stable").argsort() / own.size
                root = group[0].dep.target.module
                scores[channels[root]] = place if scope == "uniform" else own
    return scores


def _onnxsim(
    kind: str, graph: Graph, groups: ChannelGroups, samples: Data, settings: Settings
) -> Points:
    from onnxsim.pruning import apply_structured_pruning

    yield 0.0, graph.model
    last = 0.0
    for sparsity in np.arange(Control.stride, LAST_RATE + 1e-9, Control.stride):
        copy = ModelProto()
        copy.CopyFrom(graph.model)
        pruned = apply_structured_pruning(copy, float(sparsity), kind)
        rate = share_gone(groups, pruned)
        if rate > last:
            last = rate
            yield rate, pruned
    if not last:
        raise CannotRun("it recognises no layer of this network")


def share_gone(groups: ChannelGroups, pruned: ModelProto) -> float:
    """Return the pruning rate of a model by the widths of its convolutions."""
    shapes = {tensor.name: tensor.dims for tensor in pruned.graph.initializer}
    gone = 0
    for filters in groups.filters:
        gone += filters.channels.size - shapes[filters.weight][0]
    return gone / max(groups.removable_filters, 1)


def gone_by(graph: Graph, groups: ChannelGroups, pruned: ModelProto) -> BoolArray:
    """Return which channels a tool removed that does not say so, by the biases that are left.

    A bias that a layer has twice says nothing; another layer of the channel does. Shapes: ->
    `[channels]`.
    Raises: CannotRun where other weights are left than the removal of these channels leaves.
    """
    before, after = (Graph(model).constant_tensors for model in (graph.model, pruned))
    dead = np.zeros(len(groups), np.bool_)
    for filters in groups.filters:
        bias = graph.producers[filters.output].inputs[2]
        whole, left = (numpy_helper.to_array(of[bias]) for of in (before, after))
        _, places, counts = np.unique(whole, return_inverse=True, return_counts=True)
        dead[filters.channels[(counts[places] == 1) & ~np.isin(whole, left)]] = True
    expected = Graph(remove_channels(graph, groups, dead)).constant_tensors
    for filters in groups.filters:
        mine, theirs = (numpy_helper.to_array(of[filters.weight]) for of in (expected, after))
        if not np.array_equal(mine, theirs):
            raise CannotRun(f"{filters.weight}: is not what the removal of channels leaves")
    return dead


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


PEERS: Mapping[str, Callable[..., Points]] = {
    "torch-pruning": _torch_pruning,
    "onnxsim": _onnxsim,
}

SCORES = ("taylor", "magnitude", "fpgm")
METHODS = (
    *(f"torch-pruning/{name}{scope}" for name in SCORES for scope in ("", ":uniform")),
    *("onnxsim/l1", "onnxsim/l2"),
)
"""The methods of other tools that `draw_peer` knows."""
