"""What a model of over 2 GB takes, on one of 64 MB that is treated as one: a few times its weights.

Memory is what Linux counts at its highest, files that are mapped included.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.graph import save_model
from tests.support.wide import wide_net

WIDE = 4000
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from onnxprune.evaluation import session
from onnxprune.graph import Graph, load_model, sessions, storage
from onnxprune.report import inspect

storage.MESSAGE_LIMIT = sessions.MAPPED = sessions.HEAVY = 2**25

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

def net(path):
    return session(path, device="cpu").run(None, {"x": np.ones((2, 3, 2, 2), np.float32)})

small, large = sys.argv[1:]
inspect(small)
net(small)
net(load_model(small))
steps = [
    lambda: inspect(large),
    lambda: net(large),
    lambda: Graph(load_model(large)),
    lambda: net(load_model(large)),
]
for step in steps:
    Path("/proc/self/clear_refs").write_text("5")  # counts anew
    before = peak()
    step()
    print(peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_large_model_is_held_a_few_times(tmp_path: Path) -> None:
    paths = [tmp_path / "small.onnx", tmp_path / "large.onnx"]
    for path, wide in zip(paths, (40, WIDE), strict=True):
        save_model(wide_net(wide), path, limit=1000)
    command = [sys.executable, "-c", PROGRAM, *map(str, paths)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    times = [int(line) / (4 * WIDE * WIDE) for line in said.split()]
    looked, ran, held, written = times
    assert looked < 0.5  # the weights stay in their file
    assert ran < 1.5  # which is mapped
    assert held < 2.5  # what is read, and what is counted of it
    assert written < 2.5  # what is read, and what is mapped again
