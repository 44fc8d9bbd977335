"""How many samples fit into memory at once, and a temporary file for what does not.

A walk forward and back holds the activations of a batch and, beside each, its relevance. So the
size of a batch decides how much memory a walk takes; of the results it changes only the rounding.
"""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.errors import DataError, OutputError, out_of_memory
from onnxprune.files import temporary_place
from onnxprune.graph import Graph
from onnxprune.memory import MEGABYTE, SHARE, free_bytes
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

SMALL = 2**16
"""Bytes; a smaller tensor is not worth a file."""
ELEMENT = 4
"""Bytes; the mirror computes in single precision."""
WALKS = 2
"""Forward and back."""
CACHE = 256 * 2**20
"""Bytes of a walk forward and back. In larger batches, of more than `LEAST` samples, what a layer
makes has left the processor's cache when the next one reads it."""
LEAST = 4
"""Samples; in smaller batches convolutions are slower."""


class Halving:
    """A computation in batches, which get half as large when memory is exhausted.

    `make(size)` returns the computation in batches of that size. What it was halved to is kept from
    call to call. Of the results it changes only the rounding.
    """

    def __init__(self, make: Callable[[int], Any], size: int) -> None:
        self._make, self._size = make, size

    @cached_property
    def _made(self) -> Any:
        return self._make(self._size)

    @property
    def folds(self) -> Any:
        """Those of a correction."""
        return self._made.folds

    def __call__(self, *given: Any, **named: Any) -> Any:
        """Compute. Raises: what the computation does; OutOfMemory where one sample is too much."""
        while True:
            try:
                return self._made(*given, **named)
            except (RuntimeError, MemoryError) as error:
                exhausted = out_of_memory("relevance and least squares", error)
                if exhausted is None:
                    raise
                if self._size == 1:
                    raise exhausted from error
                where = str(exhausted).split(";")[0]
            self._size //= 2  # outside, where nothing holds what the error did
            del self._made
            logger.warning("%s: going on with batches of %d", where, self._size)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def batch_within(
    graph: Graph, batch_size: int, memory: int | None = None, *, device: str = "auto"
) -> int:
    """Return the largest batch up to `batch_size` whose walk fits into memory.

    Without `memory` the limit is a quarter of what is free, and at least one sample is tried.
    Units: memory, MB of 2**20 bytes.
    Raises: DataError where `memory` is too little for one sample.
    """
    sample = sample_bytes(graph)
    if not sample:
        return batch_size
    fit = allowed_bytes(memory, device) // sample
    if not fit and memory is not None:
        needed = math.ceil(sample / MEGABYTE)
        raise DataError(
            f"memory {memory}: too little for one sample, whose walk through this model takes "
            f"{needed} MB; give --memory {needed} or more"
        )
    fit = min(max(fit, 1), batch_size)
    if fit < batch_size:
        logger.info("batches of %d in place of %d, to save memory", fit, batch_size)
    return fit


def batch_in_cache(graph: Graph, most: int, device: str = "auto") -> int:
    """Return how many samples, `most` of them, a walk computes fastest at once."""
    if device != "cpu" and torch.cuda.is_available():
        return most
    return min(most, max(CACHE // max(sample_bytes(graph), 1), LEAST))


def allowed_bytes(memory: int | None = None, device: str = "auto") -> int:
    """Return `memory` in bytes, or without it a quarter of what is free.

    Units: memory, MB of 2**20 bytes.
    """
    return int(SHARE * free_there(device)) if memory is None else memory * MEGABYTE


def sample_bytes(graph: Graph) -> int:
    """Return how many bytes a walk forward and back takes for one sample.

    Counts every activation that the graph states the shape of.
    """
    known = graph.constant_names
    sizes = [
        math.prod(graph.shape(name) or (0,))
        for node in graph.nodes
        for name in node.outputs
        if name and name not in known
    ]
    at_once = (graph.shape(graph.inputs[0]) or (1,))[0]
    return WALKS * ELEMENT * sum(sizes) // max(at_once, 1)


def free_there(device: str = "auto") -> int:
    """Return how much memory is free where the mirror computes."""
    if device != "cpu" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_bytes()


def on_disk(tensor: Tensor) -> Tensor:
    """Return the tensor in a temporary file, which is deleted with it; a small one as it is.

    The system keeps as much of the file in memory as it has room for.
    Shapes: any, on a CPU.
    Raises: OutputError where the disk has no room.
    """
    if tensor.nbytes <= SMALL:
        return tensor
    place = temporary_place()
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            if hasattr(os, "posix_fallocate"):  # a mapped file that cannot grow ends the process
                os.posix_fallocate(file.fileno(), 0, tensor.nbytes)
            mapped = np.memmap(file, np.uint8, "w+", shape=(tensor.nbytes,))
    except OSError as error:
        raise OutputError(
            f"{place}: no room for {math.ceil(tensor.nbytes / MEGABYTE)} MB of "
            f"activations ({error.strerror}); free some space, set TMPDIR, or give more --memory"
        ) from error
    strides = torch.empty_like(tensor, device="meta").stride()
    held = torch.from_numpy(mapped).view(tensor.dtype).as_strided(tensor.size(), strides)
    return held.copy_(tensor)
