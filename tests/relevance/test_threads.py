"""What decides is computed by one thread, so that sums are rounded the same everywhere."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from onnxprune.relevance import one_thread


def sums() -> tuple[bytes, ...]:
    """Sums that torch and NumPy split over threads, where they may."""
    rows = np.random.default_rng(0).standard_normal((300, 2000)).astype(np.float32)
    wide = torch.from_numpy(np.random.default_rng(1).standard_normal((64, 40000)))
    return (
        (rows @ np.ones(2000, np.float32)).tobytes(),
        np.linalg.inv(rows @ rows.T).tobytes(),
        wide.sum().numpy().tobytes(),
        torch.linalg.eigh(wide @ wide.T).eigenvalues.numpy().tobytes(),
    )


@pytest.mark.parametrize("threads", [2, 4])
def test_sums_are_those_of_one_thread(threads: int) -> None:
    before = torch.get_num_threads()
    with one_thread():
        alone = sums()
    try:
        torch.set_num_threads(threads)
        with threadpool_limits(threads), one_thread():
            assert sums() == alone
    finally:
        torch.set_num_threads(before)
