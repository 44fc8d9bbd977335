"""Gathers that reorder become two that undo themselves, for OpenVINO."""

import numpy as np
import pytest

from onnxprune.runtimes.openvino import undone_parts


@pytest.mark.parametrize("size", [1, 2, 5, 9, 40])
def test_an_order_is_two_that_undo_themselves(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(20):
        order, x = rng.permutation(size), rng.standard_normal(size)
        first, second = map(np.array, undone_parts(order.tolist()))
        for part in (first, second):
            assert (part[part] == np.arange(size)).all()
        assert (x[first][second] == x[order]).all()
