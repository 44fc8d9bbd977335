"""What activations may take: how many samples are walked at once, and what is kept on the disk.

A walk forward and back holds the activations of a batch, and relevance or a copy beside each. Of
how many samples they are decides about memory, and about nothing else but the order of sums. What
has to be kept of all samples goes into a temporary file where it does not fit.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.data import Data
from onnxprune.errors import DataError, InvalidModel, OutputError
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

SHARE = 0.25
"""Of what is free, where nothing is asked for."""
MEGABYTE = 2**20
SMALL = 2**16
"""Bytes; a tensor that is not worth a file."""
ELEMENT = 4
"""Bytes; the mirror computes in single precision."""
WAYS = 2
"""Forward and back."""
SYSTEM, CONTAINER = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def batch_within(
    graph: Graph, batch_size: int, memory: int | None = None, *, device: str = "auto"
) -> int:
    """Return the largest batch up to `batch_size` whose walk fits into memory.

    Without `memory` that is a quarter of what is free, and one sample is always tried.
    Units: memory, MB of 2**20 bytes.
    Raises: DataError where what is asked for does not hold one sample.
    """
    sample = sample_bytes(graph)
    if not sample:
        return batch_size
    allowed = allowed_bytes(memory, device)
    fit = batch_size if allowed is None else allowed // sample
    if not fit and memory is not None:
        raise DataError(
            f"memory {memory}: too little for one sample, whose walk through this model takes "
            f"{math.ceil(sample / MEGABYTE)} MB; give --memory {math.ceil(sample / MEGABYTE)} "
            f"or more"
        )
    fit = max(fit, 1)
    if fit < batch_size:
        logger.info("batches of %d in place of %d, to save memory", fit, batch_size)
    return min(fit, batch_size)


def allowed_bytes(memory: int | None = None, device: str = "auto") -> int | None:
    """Return what is asked for in bytes, or a quarter of what is free; None where nobody says.

    Units: memory, MB of 2**20 bytes.
    """
    if memory is not None:
        return memory * MEGABYTE
    free = free_bytes(device)
    return None if free is None else int(SHARE * free)


def on_disk(tensor: Tensor) -> Tensor:
    """Return a tensor of the same values in a temporary file, which goes when the tensor does.

    The system keeps of it in memory what it has room for; what is small stays as it is.
    Shapes: any, on a CPU.
    Raises: OutputError where the disk has no room.
    """
    if tensor.nbytes <= SMALL:
        return tensor
    try:
        with tempfile.TemporaryFile() as file:
            if hasattr(os, "posix_fallocate"):  # a mapped file that cannot grow ends the process
                os.posix_fallocate(file.fileno(), 0, tensor.nbytes)
            mapped = np.memmap(file, np.uint8, "w+", shape=(tensor.nbytes,))
    except OSError as error:
        raise OutputError(
            f"{tempfile.gettempdir()}: no room for {math.ceil(tensor.nbytes / MEGABYTE)} MB of "
            f"activations ({error.strerror}); free some space, set TMPDIR, or give more --memory"
        ) from error
    strides = torch.empty_like(tensor, device="meta").stride()
    held = torch.from_numpy(mapped).view(tensor.dtype).as_strided(tensor.size(), strides)
    return held.copy_(tensor)


def sample_bytes(graph: Graph) -> int:
    """Return what a walk forward and back holds of one sample, in bytes, from the graph's shapes.

    All activations at once; a tensor whose shape is not known counts nothing.
    """
    known = graph.constant_names
    sizes = [
        math.prod(graph.shape(name) or (0,))
        for node in graph.nodes
        for name in node.outputs
        if name and name not in known
    ]
    at_once = (graph.shape(graph.image) or (1,))[0]
    return WAYS * ELEMENT * sum(sizes) // max(at_once, 1)


def free_bytes(device: str = "auto") -> int | None:
    """Return how much memory is free where the mirror computes, or None where nobody says."""
    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    found = [free for free in (_available(), _within_group()) if free is not None]
    return min(found, default=None)


def _available() -> int | None:
    """What the system can give without swapping (Linux)."""
    try:
        lines = SYSTEM.read_text("ascii").splitlines()
        figures = dict(line.split(":", 1) for line in lines)
        return int(figures["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None


def _within_group() -> int | None:
    """What a container may still take (Linux, cgroup version 2)."""
    try:
        limit, used = ((CONTAINER / f"memory.{one}").read_text() for one in ("max", "current"))
        lines = (CONTAINER / "memory.stat").read_text().splitlines()
        cached = dict(line.split() for line in lines)["inactive_file"]
        return max(int(limit) - int(used) + int(cached), 0)
    except (OSError, ValueError, KeyError):
        return None


SAME = 1e-3
"""Absolute and relative; samples that got mixed up differ by far more."""


def batches_of(
    mirror: Mirror, data: Data, size: int
) -> Iterator[tuple[npt.NDArray[Any], IntArray]]:
    """Yield samples and their labels, `size` at a time unless the model only takes another number.

    Many models that fix the batch in name compute any; they are asked. Otherwise the last batch is
    filled with copies, which have no labels.
    """
    image = mirror.graph.image
    shape, dynamic = mirror.graph.shape(image), mirror.graph.dynamic(image)
    fixed = shape[0] if shape and dynamic and not dynamic[0] else 0
    if fixed and len(data) > 1 and _takes_any(mirror, data.x[:2]):
        fixed = 0
    for x, y in data.batches(fixed or size):
        missing = max(fixed - len(x), 0)
        yield np.concatenate([x, np.repeat(x[-1:], missing, axis=0)]) if missing else x, y


def _takes_any(mirror: Mirror, x: npt.NDArray[Any]) -> bool:
    """Whether two samples together come out as they do one by one."""
    try:
        with torch.no_grad():
            both = mirror(x)
            single = torch.cat([mirror(x[k : k + 1]) for k in range(2)])
    except InvalidModel:
        return False
    return both.shape == single.shape and bool(torch.allclose(both, single, SAME, SAME))
