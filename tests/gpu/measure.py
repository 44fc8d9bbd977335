"""What needs a card, measured: one part a call, markdown on the standard output.

    python -m tests.gpu.measure machine|throughput|search|plans [--device cpu --small]

`tests/gpu/run.sh` calls all of them, each within a time of its own. `--small` takes narrow inputs
and few images, so that all of it can be tried on a CPU. Networks are those of torchvision with
random weights. Their last layer is scaled so that images get different answers, and the reference
is what the unpruned network says: for speed and agreement the weights do not matter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
PACKAGES = ("onnxruntime-gpu", "onnxruntime", "onnx", "numpy", "zennit", "tensorrt")


@dataclass(frozen=True)
class Sizes:
    """How large all is. Units: side, pixels; seconds, of one search."""

    side: int
    images: int
    batch: int
    seconds: int


FULL = Sizes(224, 1000, 64, 75)
SMALL = Sizes(64, 24, 8, 60)


@dataclass(frozen=True)
class Run:
    """Where this call computes, and where it puts its files."""

    device: str
    sizes: Sizes
    folder: Path

    def data(self) -> Path:
        """Images without labels: noise as smooth as photographs are."""
        path = self.folder / f"images{self.sizes.side}.npz"
        if not path.exists():
            from onnxprune.data import noisy_pixels

            side, rng = (self.sizes.side, self.sizes.side), np.random.default_rng(0)
            pixels = [noisy_pixels(1, 3, side, rng)[0] for _ in range(self.sizes.images)]
            x = np.stack(pixels).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
            np.savez(path, x=np.ascontiguousarray(x))
        return path

    def network(self, name: str) -> Path:
        """A network of torchvision as ONNX, whose answers differ from image to image."""
        path = self.folder / f"{name}-{self.sizes.side}.onnx"
        if not path.exists():
            import onnx
            import torch
            from torch import nn

            from onnxprune.converters import Options
            from onnxprune.converters.pytorch import export_network
            from onnxprune.converters.torchvision import import_torchvision

            torch.manual_seed(0)
            net: Any = import_torchvision().models.get_model(name, weights=None, num_classes=10)
            side = self.sizes.side
            if name.startswith("vgg") and side != 224:  # its pool exports from 224 alone
                net.avgpool = nn.Identity()
                net.classifier[0] = nn.Linear(512 * (side // 32) ** 2, 256)
                net.classifier[3], net.classifier[6] = nn.Linear(256, 256), nn.Linear(256, 10)
            net = net.eval()
            last = [one for one in net.modules() if isinstance(one, nn.Linear)][-1]
            seen: list[Any] = []
            last.register_forward_hook(lambda _m, given, _o: seen.append(given[0]))
            x = torch.from_numpy(np.load(self.data())["x"][:16])
            with torch.no_grad():
                net(x)
                mean, spread = seen[0].mean(0), seen[0].std(0) + 1e-6
                last.weight.copy_(torch.randn_like(last.weight) / spread / last.in_features**0.5)
                last.bias.copy_(-(last.weight @ mean))
            last._forward_hooks.clear()
            options = Options(input_shape=(3, side, side), exporter="classic")
            onnx.save(export_network(net, name, options).model, path)
        return path


@cache
def card() -> str:
    """The name of the card, or of the CPU where there is none."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return f"no card: {platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def machine(run: Run) -> None:
    """Name the card and all versions."""
    import torch

    print(f"| | |\n|---|---|\n| card | {card()} |\n| device | {run.device} |")
    print(f"| Python | {platform.python_version()} |")
    print(f"| torch | {torch.__version__}, CUDA {torch.version.cuda} |")
    for name in PACKAGES:
        try:
            print(f"| {name} | {version(name)} |")
        except PackageNotFoundError:
            print(f"| {name} | not installed |")


def per_second(work: Callable[[], object], images: int, patience: float = 6.0) -> float:
    """Images in a second: the median of a few passes, after one that does not count."""
    work()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < patience and len(times) < 9):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return images / float(np.median(times))


def throughput(run: Run) -> None:
    """Evaluate as a search does, beside a loop of onnxruntime alone over the same batches."""
    from onnxprune.data import load_data
    from onnxprune.evaluation import Evaluator
    from onnxprune.evaluation.runtime import Network

    print("| network | batch | onnxruntime alone, images/s | evaluation, images/s | share |")
    print("|---|---|---|---|---|")
    data = load_data(run.data(), shape=(3, run.sizes.side, run.sizes.side), memory=1 << 14)
    for name in ("resnet50", "vgg16"):
        net = Network(str(run.network(name)), run.device, 0, exact=True)
        x = net.fitted(data.x)
        size = run.sizes.batch
        batches = [net.bind(x[k : k + size], net.place) for k in range(0, len(x), size)]

        def alone(net: Network = net, batches: list[Any] = batches) -> None:
            for batch in batches:
                for port, value in batch.values.items():
                    net.binding.bind_ortvalue_input(port, value)
                net.binding.clear_binding_outputs()
                net.binding.bind_output(net.outputs[0])
                net.session.run_with_iobinding(net.binding)

        judge = Evaluator(data, device=run.device, batch_size=size)
        bare = per_second(alone, len(x))
        ours = per_second(lambda net=net, judge=judge: judge(net), len(x))
        print(f"| {name} | {size} | {bare:.0f} | {ours:.0f} | {ours / bare:.0%} |", flush=True)


def search(run: Run) -> None:
    """Prune accuracy-aware by the command line, as long as there is time."""
    print("| network | images | s | steps | evaluations | filters gone | agreement | ended |")
    print("|---|---|---|---|---|---|---|---|")
    for name in ("resnet50", "vgg16"):
        folder = run.folder / f"run-{name}-{run.device}"
        told = ["--data", str(run.data()), "--macs", "0.6", "--max-drop", "0.05", "--control"]
        told += ["accuracy-aware", "--trust-baseline", "--device", run.device, "-q"]
        told += ["-o", str(run.folder / f"{name}.small.onnx"), "--run-dir", str(folder)]
        command = [sys.executable, "-m", "onnxprune", "prune", str(run.network(name)), *told]
        start = time.perf_counter()
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        ended = "by itself"
        try:
            said = child.communicate(timeout=run.sizes.seconds)[1]
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            ended, said = "stopped here", child.communicate()[1]
        seconds = time.perf_counter() - start
        journal = folder / "journal.jsonl"
        states = (
            [json.loads(line) for line in journal.read_text().splitlines()]
            if (journal.exists())
            else []
        )
        if child.returncode and ended == "by itself":
            ended = f"status {child.returncode}: {' '.join(said.split())[-200:]}"
        last = states[-1] if states else {}
        held = last.get("accuracy", {})
        right = sum(held.get("correct", [])) / max(sum(held.get("total", [])), 1)
        row = (name, run.sizes.images, f"{seconds:.0f}", len(states), last.get("evaluations", ""))
        gone = f"{last.get('rate', 0):.0%}"
        print("|", " | ".join(map(str, (*row, gone, f"{right:.1%}", ended))), "|", flush=True)


def plans(run: Run) -> None:
    """Hold the plan of this device against that of the CPU, and of itself a second time."""
    import onnxprune

    data = {"x": np.load(run.data())["x"][: min(run.sizes.images, 100)]}
    sample = Path(onnxprune.__file__).resolve().parent.parent / "samples" / "fashion_mnist"
    cases = {
        "fashion_mnist": (sample / "model.onnx", sample / "reference", {}),
        "resnet18": (run.network("resnet18"), data, {"trust_baseline": True}),
    }
    print("| network | criterion | filters gone on the CPU | the same | again the same |")
    print("|---|---|---|---|---|")
    for name, (model, source, more) in cases.items():
        for criterion in ("lrp", "lrp:zplus"):
            if name == "resnet18" and criterion != "lrp":
                continue
            asked = {"criterion": criterion, "macs": 0.7, "threads": 1, **more}
            gone = []
            for device in ("cpu", run.device, run.device):
                plan = onnxprune.prune(str(model), source, device=device, **asked).plan
                gone.append({(node, k) for node, ks in plan.removed.items() for k in ks})
            shares = [
                len(one & other) / max(len(one | other), 1)
                for one, other in ((gone[0], gone[1]), (gone[1], gone[2]))
            ]
            row = (name, criterion, len(gone[0]), *(f"{share:.1%}" for share in shares))
            print("|", " | ".join(map(str, row)), "|", flush=True)


PARTS = {one.__name__: one for one in (machine, throughput, search, plans)}


def main() -> None:
    """Measure one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--folder", type=Path, default=Path("build/gpu"))
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    PARTS[given.part](Run(given.device, SMALL if given.small else FULL, given.folder))


if __name__ == "__main__":
    main()
