"""Samples that are refused, in one line."""

from typing import Any

import numpy as np
import pytest

from onnxprune.data import load_data
from onnxprune.errors import DataError

RNG = np.random.default_rng(0)


def refused(match: str, source: Any, shape: tuple[int | None, ...] = (3, 4, 5), **more: Any) -> str:
    with pytest.raises(DataError, match=match) as caught:
        load_data(source, shape=shape, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)
