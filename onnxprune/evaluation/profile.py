"""Profile: how long each node of a model takes on onnxruntime.

onnxruntime joins nodes and names what it makes of them after a node or after the tensor that comes
out. The names are given as they are; `onnxprune.search.latency` says whose time it is.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxprune.data import Samples
from onnxprune.evaluation.runtime import Model, Network
from onnxprune.files import temporary

KERNEL = "_kernel_time"
"""How onnxruntime ends the name of the time that a node computed."""
SUFFIXES = ("_nchwc", "_fused")
"""What it may add to a name before."""
RUN = "model_run"


def node_times(
    model: Model,
    *,
    batch_size: int = 1,
    device: str = "auto",
    threads: int = 0,
    repeats: int = 20,
    warmup: int = 3,
    patience: float = 1.0,
    shape: Sequence[int] | None = None,
    samples: Samples | None = None,
) -> dict[str, float]:
    """Return how long each node takes for one batch, by the runtime's name for it.

    The name "" stands for what no node accounts for. The runs end early, but not before 5, once
    they took more than `patience` seconds. What else the machine does only adds to a time, so the
    mean of the fastest quarter counts.
    Shapes: shape, that of one sample; needed only where the model leaves an axis open.
    Units: ms; patience, seconds.
    Raises: what `onnxprune.evaluation.latency` raises.
    """
    with temporary() as folder:
        net = Network(model, device, threads, exact=False, profile=str(folder / "profile"))
        batch = net.batch_of(batch_size, shape, samples)
        spent, count = 0.0, 0
        while count < warmup + repeats and (count < warmup + 5 or spent < patience):
            start = time.perf_counter()
            net.run(batch)
            spent += time.perf_counter() - start
            count += 1
        events = json.loads(Path(net.session.end_profiling()).read_text("utf-8"))
    found = defaultdict(list)
    for event in events:
        name = str(event.get("name", ""))
        if name == RUN:
            found[""].append(event["dur"])
        elif event.get("cat") == "Node" and name.endswith(KERNEL):
            found[_plain(name)].append(event["dur"])
    times = {name: _usual(each[warmup:]) / 1e3 for name, each in found.items()}
    times[""] = max(times.get("", 0.0) - sum(times[name] for name in times if name), 0.0)
    return times


def _plain(name: str) -> str:
    """A name without what the runtime added."""
    name = name.removesuffix(KERNEL)
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _usual(times: list[float]) -> float:
    """The mean of the fastest quarter."""
    return float(np.mean(np.sort(times)[: max(len(times) // 4, 1)])) if times else 0.0
