"""Writes the graphs that PaddlePaddle exports: blocks of its own networks, through paddle2onnx.

    POLYGRAPHY_AUTOINSTALL_DEPS=0 python -m tests.exporters.make_paddle    # paddle_*.onnxtxt

Made with paddlepaddle 3.3.1, paddle2onnx 2.1.0.
"""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import paddle
from paddle import nn
from paddle.vision.models import mobilenetv2, mobilenetv3, resnet, shufflenetv2

from tests.exporters.text import save

SIZE = 16


class Net(nn.Layer):
    """A stem, the units, and a head behind a Flatten."""

    def __init__(self, width: int, units: list[Any], out: int) -> None:
        super().__init__()
        self.stem = nn.Conv2D(3, width, 3, stride=2, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(width)
        self.units = nn.Sequential(*units)
        self.pool = nn.AdaptiveAvgPool2D(1)
        self.head = nn.Linear(out, 10)

    def forward(self, x: Any) -> Any:
        x = nn.functional.relu(self.norm(self.stem(x)))
        return self.head(paddle.flatten(self.pool(self.units(x)), 1))


def basic() -> Any:
    down = nn.Sequential(nn.Conv2D(8, 12, 1, stride=2, bias_attr=False), nn.BatchNorm2D(12))
    return Net(8, [resnet.BasicBlock(8, 8), resnet.BasicBlock(8, 12, 2, down)], 12)


def bottleneck() -> Any:
    down = nn.Sequential(nn.Conv2D(8, 16, 1, bias_attr=False), nn.BatchNorm2D(16))
    grouped = resnet.BottleneckBlock(16, 4, groups=4, base_width=128)
    return Net(8, [resnet.BottleneckBlock(8, 4, 1, down), grouped], 16)


def shuffle() -> Any:
    down = shufflenetv2.InvertedResidualDS(8, 16, 2)
    return Net(8, [down, shufflenetv2.InvertedResidual(16, 16, 1)], 16)


def mobilenet_v2() -> Any:
    units = [mobilenetv2.InvertedResidual(8, 8, 1, 4), mobilenetv2.InvertedResidual(8, 12, 2, 4)]
    return Net(8, units, 12)


def mobilenet_v3() -> Any:
    norm = nn.BatchNorm2D
    units = [
        mobilenetv3.InvertedResidual(8, 24, 8, 3, 1, True, nn.ReLU, norm),
        mobilenetv3.InvertedResidual(8, 32, 12, 5, 2, True, nn.Hardswish, norm),
    ]
    return Net(8, units, 12)


def randomise(net: Any) -> None:
    """Statistics that make batch normalisation do something, so that nothing folds away."""
    rng = np.random.default_rng(0)
    for layer in net.sublayers():
        if isinstance(layer, nn.BatchNorm2D):
            shape = layer._mean.shape
            layer._mean.set_value(rng.normal(0, 0.1, shape).astype(np.float32))
            layer._variance.set_value(rng.uniform(0.5, 1.5, shape).astype(np.float32))


NETS: dict[str, tuple[Any, int, int | None]] = {
    "basic": (basic, 7, None),
    "bottleneck": (bottleneck, 9, None),
    "shuffle": (shuffle, 11, None),
    "mobilenet_v2": (mobilenet_v2, 8, None),
    "mobilenet_v3": (mobilenet_v3, 17, 1),
}
"""Each with its opset and its batch (None: open)."""

if __name__ == "__main__":
    for name, (build, opset, batch) in NETS.items():
        paddle.seed(0)
        net = build()
        net.eval()
        randomise(net)
        spec = paddle.static.InputSpec([batch, 3, SIZE, SIZE], "float32", "x")
        with tempfile.TemporaryDirectory() as folder:
            paddle.onnx.export(net, f"{folder}/net", input_spec=[spec], opset_version=opset)
            model = onnx.load(str(Path(folder) / "net.onnx"))
        made_by = (
            f"PaddlePaddle {paddle.__version__}, by paddle2onnx {version('paddle2onnx')} "
            f"at opset {opset}; make_paddle.py"
        )
        save(model, f"paddle_{name}", made_by)
