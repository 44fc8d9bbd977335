"""What torch may take of a machine while we compute: how many threads, how much memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from onnxprune.errors import OnnxPruneError, out_of_memory
from onnxprune.ops._torch import torch


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Hold torch to a number of threads until the block ends; 0 leaves it as it is.

    Raises: MissingPackage without torch; OutOfMemory in place of whatever torch or NumPy raise
    where memory is exhausted.
    """
    before = torch.get_num_threads()
    try:
        if threads:
            torch.set_num_threads(threads)
        yield
    except OnnxPruneError:
        raise
    except (RuntimeError, MemoryError) as error:
        exhausted = out_of_memory("relevance and least squares", error)
        if exhausted is None:
            raise
        raise exhausted from error
    finally:
        if threads:
            torch.set_num_threads(before)
