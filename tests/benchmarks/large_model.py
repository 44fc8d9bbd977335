"""A model of over 2 GB through every command: does it end well, and how much memory does it take?

    python -m tests.benchmarks.large_model                     2.2 GB
    python -m tests.benchmarks.large_model --gigabytes 0.05    the short form
    python -m tests.benchmarks.large_model --only prune,apply  some commands
    python -m tests.benchmarks.large_model --form wide         wide kernels, which compute little
    python -m tests.benchmarks.large_model --limit 12          no command may hold more than 12 GB

The model has few convolutions and one large dense layer behind them, as VGG16 has; in its wide form
four wide 1x1 convolutions at one position. Its weights are random and stand in a file of their own.
Every command runs in a process of its own and is a line of the file, so that an interrupted run
goes on where it stopped. A search is killed after its first step and resumed; `reproduce` then says
whether one left alone ends in the same bytes. Memory is that of the process and of those that it
starts, looked at ten times a second, files that are mapped included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from onnx import ModelProto, NodeProto, TensorProto, helper, save

from onnxprune.graph import files_of

CHANNELS, SIDE, WIDE_SIDE, CLASSES, SAMPLES = 512, 7, 32, 4, 8
MODULE = """
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, {channels}, 3, padding=1)
        self.second = torch.nn.Conv2d({channels}, {channels}, 3, padding=1)
        self.hidden = torch.nn.Linear({channels} * {side} * {side}, {units})
        self.last = torch.nn.Linear({units}, {classes})

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return self.last(self.hidden(x.flatten(1)).relu())
"""
WIDE = """
import numpy as np
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, (made, read, size, stride) in {layers}.items():
            setattr(self, name, torch.nn.Conv2d(read, made, size, stride, size // 2))
        self.last = torch.nn.Linear({width}, {classes})

    def forward(self, x):
        for name, layer in list(self.named_children())[:-1]:
            x = layer(x.mean((2, 3), keepdim=True) if name == "wide" else x).relu()
        return self.last(x.flatten(1))
"""
BUILD = """

def build():
    with torch.device("meta"):
        net = Net()
    values, start, held = np.memmap({data!r}, np.float32, "c"), 0, dict()
    for name, one in net.state_dict().items():
        held[name] = torch.from_numpy(values[start : start + one.numel()]).view(one.shape)
        start += one.numel()
    net.load_state_dict(held, assign=True)
    return net
"""


Net = tuple[dict[str, tuple[int, ...]], list[NodeProto], int, str]
"""The shapes of the weights, the nodes, height and width of an image, and the torch module."""


def dense(gigabytes: float, data: str) -> Net:
    """Two convolutions, and nearly all weights in one dense layer."""
    units = max(8, round(gigabytes * 1e9 / 4 / (CHANNELS * SIDE * SIDE)))
    shapes = {
        "first.weight": (CHANNELS, 3, 3, 3),
        "first.bias": (CHANNELS,),
        "second.weight": (CHANNELS, CHANNELS, 3, 3),
        "second.bias": (CHANNELS,),
        "hidden.weight": (units, CHANNELS * SIDE * SIDE),
        "hidden.bias": (units,),
        "last.weight": (CLASSES, units),
        "last.bias": (CLASSES,),
    }
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Flatten", ["d"], ["e"]),
        helper.make_node("Gemm", ["e", "hidden.weight", "hidden.bias"], ["f"], transB=1),
        helper.make_node("Relu", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "last.weight", "last.bias"], ["y"], transB=1),
    ]
    sizes = {"channels": CHANNELS, "side": SIDE, "units": units, "classes": CLASSES}
    return shapes, nodes, SIDE, MODULE.format(**sizes) + BUILD.format(data=data)


def wide(gigabytes: float, data: str) -> Net:
    """A stem at 32 pixels, and nearly all weights in four 1x1 kernels at one position."""
    width = max(64, round((gigabytes * 1e9 / 4 / 4) ** 0.5))
    shapes: dict[str, tuple[int, ...]] = {}
    nodes, reads = [], "x"
    for name, (made, read, size, stride) in wide_layers(width).items():
        if name == "wide":
            nodes.append(helper.make_node("GlobalAveragePool", [reads], ["pooled"]))
            reads = "pooled"
        shapes |= {f"{name}.weight": (made, read, size, size), f"{name}.bias": (made,)}
        pads, given = [size // 2] * 4, [reads, f"{name}.weight", f"{name}.bias"]
        nodes.append(helper.make_node("Conv", given, [name], pads=pads, strides=[stride] * 2))
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        reads = f"{name}.relu"
    shapes |= {"last.weight": (CLASSES, width), "last.bias": (CLASSES,)}
    nodes.append(helper.make_node("Flatten", [reads], ["flat"]))
    given = ["flat", "last.weight", "last.bias"]
    nodes.append(helper.make_node("Gemm", given, ["y"], transB=1))
    module = WIDE.format(layers=wide_layers(width), width=width, classes=CLASSES)
    return shapes, nodes, WIDE_SIDE, module + BUILD.format(data=data)


def wide_layers(width: int) -> dict[str, tuple[int, int, int, int]]:
    """Filters, channels, size and stride of each convolution, by name."""
    stem = {"stem0": (32, 3, 3, 2), "stem1": (64, 32, 3, 2), "stem2": (128, 64, 3, 2)}
    deep = {f"deep{k}": (width, width, 1, 1) for k in range(4)}
    return {**stem, "wide": (width, 128, 1, 1), **deep}


FORMS = {"dense": dense, "wide": wide}
SIDES = {"dense": SIDE, "wide": WIDE_SIDE}


def make(folder: Path, gigabytes: float, form: str) -> None:
    """Write the model, its samples and the module that it could come from."""
    rng = np.random.default_rng(0)
    data = folder / "large.onnx.data"
    shapes, nodes, side, module = FORMS[form](gigabytes, str(data.resolve()))
    held = []
    with data.open("wb") as file:
        for name, shape in shapes.items():
            start = file.tell()
            for row in range(shape[0]):
                spread = np.float32(np.prod(shape[1:]) ** -0.5)
                file.write(
                    (rng.standard_normal(shape[1:], np.float32) * spread).tobytes()
                    if len(shape) > 1
                    else np.float32(0.01 * row / shape[0]).tobytes()
                )
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
            tensor.data_location = TensorProto.EXTERNAL
            said = {"location": data.name, "offset": start, "length": file.tell() - start}
            for key, value in said.items():
                tensor.external_data.add(key=key, value=str(value))
            held.append(tensor)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])
    graph = helper.make_graph(nodes, "large", [x], [y], held)
    opset = helper.make_opsetid("", 17)
    model: ModelProto = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    save(model, folder / "large.onnx")
    images = rng.standard_normal((SAMPLES, 3, side, side), np.float32)
    np.savez(folder / "samples.npz", x=images)
    (folder / "module.py").write_text(module)


def commands(folder: Path, form: str) -> Iterator[tuple[str, list[str]]]:
    """Every command, after those whose files it takes."""
    at = {p: str(folder / p) for p in ("large.onnx", "small.onnx", "run", "samples.npz")}
    machine = ["--threads", "1", "--device", "cpu"]
    data = ["--data", at["samples.npz"]]
    fast = ["--macs", "0.9", "--compensate", "none", "--trust-baseline", *machine]
    yield "inspect", [at["large.onnx"], "--svg", str(folder / "large.svg")]
    yield "score", [at["large.onnx"], *data, "-o", str(folder / "scores.npz"), *machine]
    once = ["--control", "one-shot", "--rate", "0.2", *fast[2:]]
    place = ["-o", at["small.onnx"], "--run-dir", at["run"]]
    yield "prune one-shot", [at["large.onnx"], *data, *place, *once]
    plan = str(folder / "run" / "plan.json")
    yield "apply", [at["large.onnx"], plan, "-o", str(folder / "applied.onnx")]
    masked = str(folder / "masked.onnx")
    yield "apply masked", [at["large.onnx"], plan, "--masked", "-o", masked]
    yield "compare", [at["large.onnx"], at["small.onnx"], *data, *machine]
    yield "compare exact", [masked, at["small.onnx"], "--exact", *data, *machine]
    yield "report", [at["run"]]
    deployed = ["--to", "onnxruntime", "--threads", "1", *data]
    yield "deploy", [at["small.onnx"], *deployed, "-o", str(folder / "edge")]
    integers = [*deployed, "--int8", "--calibrate", at["samples.npz"], "--max-drop", "0.9"]
    yield "deploy int8", [at["large.onnx"], *integers, "-o", str(folder / "integers")]
    module = f"{folder / 'module.py'}:build"
    cut = str(folder / "small.pt")
    back = [at["small.onnx"], "--plan", plan, "--module", module]
    yield "export-weights", [*back, "-o", cut]
    converted = str(folder / "converted.onnx")
    shape = f"3,{SIDES[form]},{SIDES[form]}"
    yield "convert", [module, "--input-shape", shape, "-o", converted]
    drawn = ["--test", at["samples.npz"], "-o", str(folder / "curves"), "--trust-baseline"]
    method = ["--method", "one-shot/magnitude", *machine]
    yield "curve", [at["large.onnx"], *data, *drawn, *method]
    aware = [at["large.onnx"], *data, *into(folder, "aware"), "--resume", *fast]
    yield "prune killed", aware
    yield "prune resumed", aware
    yield "reproduce", [str(folder / "aware")]
    conventional = ["--control", "dpx", *fast]
    yield "prune dpx", [at["large.onnx"], *data, *into(folder, "dpx"), *conventional]
    fitted = ["--macs", "0.9", "--compensate", "least-squares", "--trust-baseline", *machine]
    place = [*into(folder, "fitted"), "--control", "iterative"]
    yield "prune least-squares", [at["large.onnx"], *data, *place, *fitted]
    yield (
        "report of two",
        [str(folder / "aware"), str(folder / "dpx"), "-o", str(folder / "both.html")],
    )


def into(folder: Path, name: str) -> list[str]:
    """Options that name a model to write, and a run directory."""
    return ["-o", str(folder / f"{name}.onnx"), "--run-dir", str(folder / name)]


def run(name: str, arguments: list[str], limit: float) -> dict[str, object]:
    """Run one command in a process of its own; its exit status, time and memory.

    Units: limit, GB that the command and what it started may hold, files that are mapped included.
    """
    command = [sys.executable, "-m", "onnxprune", name.split()[0], *arguments]
    environment = {**os.environ, "COLUMNS": "160", "OMP_NUM_THREADS": "1"}
    used, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    most, mapped, over = 0, 0, False
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            held, shared = memory(process.pid)
            most, mapped = max((most, mapped), (held, shared))
            over = over or held > limit * 1e9
            if over or (name.endswith(" killed") and steps(arguments) >= KILLED_AFTER):
                end(process.pid)
            time.sleep(EVERY)
        log.seek(0)
        said = log.read().strip().splitlines()
    seconds = time.perf_counter() - start
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = spent.ru_utime + spent.ru_stime - used.ru_utime - used.ru_stime
    ended = f"ended over {limit:g} GB" if over else str(process.returncode)
    fine = process.returncode == (-9 if name.endswith(" killed") else 0) and not over
    return {
        "command": name,
        "shown": shown(name, arguments),
        "status": "ends well" if fine else ended,
        "seconds": round(seconds),
        "cpu": round(processor),
        "gigabytes": round(most / 1e9, 1),
        "mapped": round(mapped / 1e9, 1),
        "weights": size_of(arguments[0]),
        "said": "" if fine else " ".join(said[-3:])[-300:],
    }


EVERY = 0.1
"""Seconds after which memory is looked at again."""


def memory(pid: int) -> tuple[int, int]:
    """Bytes that a process and those it started hold, and how many of them are mapped files."""
    held, shared = 0, 0
    for one in family(pid):
        with suppress(psutil.Error):
            found = one.memory_info()
            held, shared = held + found.rss, shared + found.shared
    return held, shared


KILLED_AFTER = 2
"""Lines of the journal; the first is the unpruned net."""


def steps(arguments: list[str]) -> int:
    """How many lines the journal of a run has so far."""
    journal = Path(arguments[arguments.index("--run-dir") + 1]) / "journal.jsonl"
    return len(journal.read_text().splitlines()) if journal.exists() else 0


def family(pid: int) -> list[psutil.Process]:
    """A process and those that it started."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def end(pid: int) -> None:
    """Kill a process and those that it started."""
    for one in family(pid):
        with suppress(psutil.Error):
            one.kill()


def shown(name: str, arguments: list[str]) -> str:
    """The command as a table shows it: without files, and without what all have."""
    kept = [
        part
        for option, value in itertools.pairwise(arguments)
        if option in ("--control", "--rate", "--macs", "--compensate", "--to", "--method")
        for part in (option, value)
    ]
    flags = [one for one in ("--int8", "--exact", "--masked") if one in arguments]
    command = f"`{' '.join([name.split()[0], *kept, *flags])}`"
    told = {
        "killed": ", killed after a step",
        "resumed": ", resumed",
    }
    return command + told.get(name.split()[-1], "")


def size_of(source: str) -> float:
    """GB of the weights of the model that a command is given, or that its run directory is of."""
    path = Path(source)
    model = path if path.is_file() else path.with_name("large.onnx")
    return sum(file.stat().st_size for file in {*files_of(model)} if file.exists()) / 1e9


def table(lines: list[dict[str, Any]]) -> str:
    """The result as markdown, with what each command took beside the weights of its model."""
    rows = [
        "| command | weights GB | s | CPU s | peak GB | of it mapped | times the weights |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in lines:
        command = (
            one["shown"] if one["status"] == "ends well" else f"{one['shown']}, {one['status']}"
        )
        row = [command, f"{one['weights']:.2f}", one["seconds"], one["cpu"]]
        row += [
            one["gigabytes"],
            one["mapped"],
            f"{one['gigabytes'] / (one['weights'] or math.inf):.1f}",
        ]
        rows.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(rows)


def main() -> None:
    """Run what is left to run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.2)
    parser.add_argument("--form", choices=FORMS, default="dense")
    parser.add_argument("--folder", type=Path, default=Path("large"))
    parser.add_argument("--only", default="")
    parser.add_argument("--limit", type=float, default=math.inf, help="GB; more ends a command")
    given = parser.parse_args()
    folder, results = given.folder, given.folder / "results.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "samples.npz").exists():
        make(folder, given.gigabytes, given.form)
    lines = (
        [json.loads(one) for one in results.read_text().splitlines()] if results.exists() else []
    )
    done = {one["command"] for one in lines}
    for name, arguments in commands(folder, given.form):
        if name not in done and name in (given.only.split(",") if given.only else [name]):
            lines.append(run(name, arguments, given.limit))
            with results.open("a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(lines[-1], flush=True)
    order = [name for name, _ in commands(folder, given.form)]
    print(table(sorted(lines, key=lambda one: order.index(one["command"]))))


if __name__ == "__main__":
    main()
