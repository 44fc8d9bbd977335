"""Networks of PyTorch as the text of a module, converted, and run on onnxruntime."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from onnxprune.converters import convert
from onnxprune.errors import OnnxPruneError

EXPORTERS: tuple[Literal["dynamo", "classic"], ...] = ("dynamo", "classic")

NETWORKS = """
import warnings
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        nn.init.uniform_(self.norm.running_mean)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.depthwise(x) + 0.1)
        return self.linear(x.mean((2, 3)))

class Heads(Net):
    def forward(self, x):
        return {"first": self.conv(x), "rest": [super().forward(x)]}

class Baked(Net):
    def forward(self, x):
        return super().forward(x)[:1] if x.shape[0] > 2 else super().forward(x)

class Chatty(Net):
    def forward(self, x):
        print("a print")
        warnings.warn("a warning")
        return super().forward(x)

class NotANumber(Net):
    def forward(self, x):
        return super().forward(x) * float("nan")

def make():
    return Net()

def fail():
    raise ValueError("no data")

def number():
    return 3

instance = Net()
"""


def run(path: Path, batch: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(array) for array in session.run(None, {"input": batch})]


def batch_of(n: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).standard_normal((n, *shape), dtype=np.float32)


def kinds(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def pytorch(source: str, output: Path, **options: Any) -> Path:
    options = {"input_shape": (3, 12, 12), **options}
    return convert(source, output, framework="pytorch", **options)


def save_script(
    network: torch.nn.Module, shape: tuple[int, ...] | list[tuple[int, ...]], path: str
) -> None:
    shapes = shape if isinstance(shape, list) else [shape]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(network, tuple(map(torch.zeros, shapes))), path)


def refusal(act: Callable[..., object], *arguments: Any, **options: Any) -> str:
    with pytest.raises(OnnxPruneError) as error:
        act(*arguments, **options)
    return str(error.value)
