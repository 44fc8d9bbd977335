"""A small net that classifies its samples without a fault, as files that commands read."""

import logging
import os
from collections.abc import Iterator

os.environ.setdefault("ONNXPRUNE_STRICT", "1")  # see onnxprune/ops/fit.py

import numpy as np
import onnx
import pytest
import torch
from hypothesis import settings

from tests.support.models import model
from tests.support.small_net import Small, labelled_by

NET = """
small (float[N,1,8,8] x) => (float[N,3] y)
<float[8,1,3,3] w1, float[8] b1, float[6,8,3,3] w2, float[6] b2, float[6,3] w3> {
  one = Conv<pads=[1,1,1,1]>(x, w1, b1)
  r = Relu(one)
  two = Conv<pads=[1,1,1,1], strides=[2,2]>(r, w2, b2)
  s = Relu(two)
  p = GlobalAveragePool(s)
  f = Flatten(p)
  y = MatMul(f, w3)
}
"""
CLASSES = 3
EACH = 8

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
"""How long an example takes says how busy the machine is, not whether it is right."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("small")
    proto = model(NET, seed=14)
    x, y = labelled_by(proto, 400, 8, CLASSES, EACH)
    onnx.save(proto, folder / "small.onnx")
    np.savez(folder / "data.npz", x=x, y=y)
    return Small(proto, folder / "small.onnx", x, y, folder / "data.npz")


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """The command line sets up logging for its process; here many commands share one."""
    names = ("onnxprune", "converters", "py.warnings", "matplotlib")
    loggers = [logging.getLogger(name) for name in names]
    before = [(log.handlers[:], log.level, log.disabled) for log in loggers]
    yield
    for log, (handlers, level, disabled) in zip(loggers, before, strict=True):
        log.handlers, log.disabled = handlers, disabled
        log.setLevel(level)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
