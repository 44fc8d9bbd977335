"""The tools of `tests.benchmarks.graph`: each removes half of the filters of every layer.

Each function runs in a process of its own. It is forked from one that has imported everything, so
imports are not timed, and the peak of memory is the tool's own. A folder holds the network as
`network.pt` and `model.onnx`. Beside them, a tool writes its result as `TOOL.onnx`, and the output
of the network with the same filters set to zero as `TOOL.npy`.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

PRELOAD = (
    *(
        "torch",
        "onnxprune.relevance.criteria",
        "onnxprune.surgery.cost",
        "onnxprune.search.plan",
        "onnxprune.surgery.removal",
    ),
    *("torch_pruning", "onnxsim.pruning", "tests.support.exports", "tests.support.networks"),
)
"""The modules that a process has imported before it starts."""

MODEL, NETWORK, SAMPLE = "model.onnx", "network.pt", "sample.npy"
MIB = 2**20


class Clock:
    """Counts the CPU seconds of the stages of one run: `clock(name)` ends a stage."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.restart()

    def restart(self) -> None:
        self._last = time.process_time()

    def __call__(self, stage: str) -> None:
        self.stages[stage] = time.process_time() - self._last
        self.restart()


Stages = Iterator[Callable[[Clock], None] | dict[str, float]]
"""A tool yields the function to time; then, if it has them, the seconds of further stages."""


def write_network(name: str, folder: Path) -> dict[str, Any]:
    """Build and export a network whose biases and layer scales are random.

    Untrained biases are equal, and exporters store equal vectors once. Untrained layer scales are
    1e-6, which would hide errors in what they scale.
    """
    import torch

    from tests.support.exports import EXPORTERS
    from tests.support.networks import build

    quieten()

    network = build(name)
    with torch.no_grad():
        for label, parameter in network.named_parameters():
            if label.endswith(("layer_scale", ".gamma")):
                parameter.uniform_(0.5, 1.5)
            elif label.endswith("bias"):
                parameter.normal_(0, 0.1)
    size = 299 if "inception" in name else 224
    onnx.save(EXPORTERS["classic-17"](network, name, size), folder / MODEL)
    torch.save(network, folder / NETWORK)
    sample = np.random.default_rng(0).normal(size=(1, 3, size, size))
    np.save(folder / SAMPLE, sample.astype(np.float32))
    return {}


def ours(folder: Path) -> Stages:
    """onnxprune, from file to file: rank by `score`, remove half of each group."""
    from onnxprune.channels.groups import find_groups
    from onnxprune.graph.graph import Graph
    from onnxprune.graph.storage import load_apart, save_model
    from onnxprune.relevance.criteria import score
    from onnxprune.surgery.masking import mask
    from onnxprune.surgery.removal import remove_channels_apart

    def run(clock: Clock) -> None:
        model, weights = load_apart(folder / MODEL)
        clock("read")
        graph = Graph(model, weights=weights)
        clock("graph")
        groups = find_groups(graph)
        clock("find")
        order = np.argsort(score(graph, groups, None, "magnitude").total(), kind="stable")
        dead = half_of_every_group(groups, order)
        clock("score")
        small, left = remove_channels_apart(graph, groups, dead)
        clock("prune")
        save_model(small, folder / "ours.onnx", weights=left)
        clock("save")
        last.update(graph=graph, groups=groups, dead=dead)

    last: dict[str, Any] = {}
    yield run
    zeroed = mask(last["graph"], last["groups"], last["dead"])
    np.save(folder / "ours.npy", infer(zeroed, np.load(folder / SAMPLE)))


def half_of_every_group(groups: Any, order: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Choose half of the removable channels of every group, rounded up."""
    from onnxprune.search.limits import Limits
    from onnxprune.search.picker import Picker

    order = order[groups.removable[order]]
    grouped = order[np.argsort(groups.group[order], kind="stable")]
    count = np.bincount(groups.group[grouped], minlength=len(groups.names))
    place = np.arange(grouped.size) - np.repeat(np.cumsum(count) - count, count)
    first = grouped[place < np.repeat(count - count // 2, count)]
    dead = np.zeros(len(groups), np.bool_)
    dead[Picker(groups, Limits()).pick(first, dead)] = True
    return dead


def torch_pruning(folder: Path) -> Stages:
    """Torch-Pruning: the constructor builds the dependency graph; `step` ranks and removes."""
    import torch
    import torch_pruning as tp

    from onnxprune.converters.torchvision import import_torchvision
    from tests.support.exports import EXPORTERS

    import_torchvision()
    torch.set_num_threads(1)
    x = torch.from_numpy(np.load(folder / SAMPLE))
    last: dict[str, Any] = {}

    def pruner_of(network: Any, spared: list[Any]) -> Any:
        return tp.pruner.MagnitudePruner(
            network,
            x,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=spared,
            in_channel_groups={},
            out_channel_groups={},
        )

    def run(clock: Clock) -> None:
        network = torch.load(folder / NETWORK, weights_only=False)
        spared = _spared(network, x)
        clock.restart()
        pruner = pruner_of(network, spared)
        clock("graph")
        pruner.step()
        clock("prune")
        last["network"] = network

    yield run
    network = torch.load(folder / NETWORK, weights_only=False)
    zeroed = _zeroed(network, pruner_of(network, _spared(network, x)))
    with torch.no_grad():
        np.save(folder / "torch_pruning.npy", zeroed(x).numpy())
        last["network"](x)
    clock = Clock()
    model = EXPORTERS["classic-17"](last["network"], "torch_pruning", x.shape[-1])
    onnx.save(model, folder / "torch_pruning.onnx")
    clock("export")
    yield clock.stages


def _spared(network: Any, x: Any) -> list[Any]:
    """Return the layers that onnxprune keeps too: classifiers, and dense layers on vectors."""
    import torch

    spared = [m for m in network.modules() if getattr(m, "out_channels", 0) == 1000]
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, _: spared.append(module) if inputs[0].ndim == 2 else None
        )
        for module in network.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return spared


def _zeroed(network: Any, pruner: Any) -> Any:
    """Return a copy of a network in which the filters that Torch-Pruning removes are zero.

    Several groups may prune one layer in turn, and each counts positions in what is then left.
    """
    import torch

    copy = deepcopy(network)
    names = {module: name for name, module in network.named_modules()}
    left: dict[str, npt.NDArray[np.int64]] = {}
    for group in pruner.step(interactive=True):
        for dep, found in group:
            name = names.get(dep.target.module)
            if name is None or not pruner.DG.is_out_channel_pruning_fn(dep.handler):
                continue
            module = copy.get_submodule(name)
            if getattr(module, "weight", None) is None:
                continue
            axis = int(isinstance(module, torch.nn.ConvTranspose2d))
            positions = [int(getattr(index, "idx", index)) for index in found]
            here = left.setdefault(name, np.arange(module.weight.shape[axis]))
            gone = torch.from_numpy(here[positions])
            module.weight.data.index_fill_(axis, gone, 0)
            if getattr(module, "bias", None) is not None:
                module.bias.data.index_fill_(0, gone, 0)
            left[name] = np.delete(here, positions)
        group.prune()
    return copy


def onnxsim(folder: Path) -> Stages:
    """onnxsim: its structured pruning, from file to file."""
    from onnxsim.pruning import apply_structured_pruning

    def run(clock: Clock) -> None:
        model = onnx.load(folder / MODEL)
        clock("read")
        small = apply_structured_pruning(model, 0.5)
        clock("prune")
        onnx.save(small, folder / "onnxsim.onnx")
        clock("save")

    yield run


TOOLS = {tool.__name__: tool for tool in (ours, torch_pruning, onnxsim)}


def infer(model: onnx.ModelProto | Path, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Run a model on onnxruntime and return its first output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def judge(folder: Path) -> dict[str, Any]:
    """Count parameters and multiply-adds in each result's file; compare its output with `TOOL.npy`.

    Units: multiply-adds for one image; error relative to the largest output.
    """
    from onnxprune.channels.groups import find_groups
    from onnxprune.graph.graph import Graph
    from onnxprune.surgery.cost import find_costs

    x = np.load(folder / SAMPLE)
    found: dict[str, Any] = {}
    for name in ("model", *TOOLS):
        path = folder / f"{name}.onnx"
        if not path.is_file():
            continue
        row: dict[str, Any] = {}
        try:
            y = infer(path, x)
            graph = Graph.load(path)
            cost = find_costs(graph, find_groups(graph)).of()
            row |= {"macs": cost.macs, "params": cost.params, "nodes": len(graph.nodes)}
            wanted = path.with_suffix(".npy")
            if wanted.is_file():
                zeroed = np.load(wanted)
                row["error"] = float(np.abs(y - zeroed).max() / np.abs(zeroed).max())
        except Exception as error:
            row["problem"] = f"{type(error).__name__}: {first_line(error)}"
        found[name] = row
    return found


def resident() -> tuple[float, float]:
    """Return the resident memory of this process, now and at its peak, in MiB (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    figures = dict(line.split(":", 1) for line in status.splitlines())
    return int(figures["VmRSS"].split()[0]) / 1024, int(figures["VmHWM"].split()[0]) / 1024


def measure(tool: str, folder: Path, repeats: int) -> dict[str, Any]:
    """Time a tool. Its memory is the peak of the first run, less what the imports take."""
    quieten()
    stages = TOOLS[tool](folder)
    run = next(stages)
    assert callable(run)
    runs = []
    row: dict[str, Any] = {}
    for repeat in range(repeats):
        before = resident()[0]
        clock = Clock()
        run(clock)
        if repeat == 0:
            row["memory"] = resident()[1] - before
        runs.append(clock.stages)
    row["seconds"] = {stage: median(r[stage] for r in runs) for stage in runs[0]}
    try:
        for after in stages:
            assert isinstance(after, dict)
            row["seconds"] |= after
    except Exception as error:
        row["problem"] = f"{type(error).__name__}: {first_line(error)}"
    return row


def measure_chain(nodes: int, repeats: int) -> dict[str, Any]:
    """Time onnxprune on a synthetic graph."""
    from tests.benchmarks.chain import chain

    with tempfile.TemporaryDirectory() as folder:
        model = chain(nodes)
        onnx.save(model, Path(folder) / MODEL)
        np.save(Path(folder) / SAMPLE, np.zeros((1, 3, 16, 16), np.float32))
        return {"nodes": len(model.graph.node), **measure("ours", Path(folder), repeats)}


def quieten() -> None:
    """Silence the warnings of all tools."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if the message is empty."""
    return next((line for line in str(error).splitlines() if line.strip()), repr(error))[:200]
