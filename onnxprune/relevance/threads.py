"""One thread for each sum that decides: in relevance, damage and least squares.

Several threads that share a sum add up in another order than one, and each number of them in its
own, so a close decision could fall otherwise on another machine. So an operator has one thread, and
several threads compute several shards of the samples. onnxruntime takes as many threads as it is
given: it splits its work over outputs, never over a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.engine import cores, on_threads
from onnxprune.errors import OnnxPruneError, out_of_memory
from onnxprune.ops._torch import torch
from onnxprune.relevance.memory import allowed_bytes
from onnxprune.relevance.repeatable import repeatable


@contextmanager
def one_thread(shards: int = 1, memory: int | None = None) -> Iterator[None]:
    """Hold torch, and what NumPy computes with (BLAS), to one thread until the block ends.

    So many `shards` of the samples are computed at a time, each on a thread of its own, 0 stands
    for as many as there are cores; together they take a quarter of what is free, or `memory`.
    Units: memory, MB of 2**20 bytes.
    Raises: MissingPackage without torch; OutOfMemory in place of whatever torch or NumPy raise
    where memory is exhausted.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"), repeatable():
            with on_threads(shards or cores(), allowed_bytes(memory, "cpu"), _begin):
                yield
    except OnnxPruneError:
        raise
    except (RuntimeError, MemoryError) as error:
        exhausted = out_of_memory("relevance and least squares", error)
        if exhausted is None:
            raise
        raise exhausted from error
    finally:
        torch.set_num_threads(before)


def _begin() -> None:
    """Hold the thread that begins to itself: what torch computes with asks each thread anew."""
    torch.set_num_threads(1)
