"""One thread for what decides: relevance, damage and least squares.

Several threads add up in another order than one, and each number of them in its own, so a close
decision could fall otherwise on another machine. Threads serve onnxruntime instead, which splits
its work over outputs, never over a sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.errors import OnnxPruneError, out_of_memory
from onnxprune.ops._torch import torch
from onnxprune.relevance.repeatable import repeatable


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch, and what NumPy computes with (BLAS), to one thread until the block ends.

    Raises: MissingPackage without torch; OutOfMemory in place of whatever torch or NumPy raise
    where memory is exhausted.
    """
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with threadpool_limits(1, user_api="blas"), repeatable():
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
