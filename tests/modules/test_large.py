"""What a module with large weights takes on its way back."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from onnxprune.modules import corrected
from onnxprune.modules.corrected import _same
from onnxprune.modules.tracing import trace


def test_large_weights_are_compared_a_few_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corrected, "AT_ONCE", 5000)
    one = np.random.default_rng(0).standard_normal((300, 700)).astype(np.float32)
    for place in ((0, 0), (299, 699), (150, 3)):
        other = one.copy()
        assert _same(one, other)
        other[place] += 1e-4
        assert not _same(one, other)
        assert not _same(other, one)
        other[place] = np.nan
        assert not _same(one, other)
    tracemalloc.start()
    assert _same(one, one)
    assert tracemalloc.get_traced_memory()[1] < one.nbytes / 2
    tracemalloc.stop()


def test_a_traced_model_has_the_values_of_the_module() -> None:
    """Torch exports a twin, whose values are others."""
    layer = nn.Conv2d(3, 4, 1)
    found = trace(layer, [torch.zeros(2, 3, 2, 2)], "classic")
    held = {tensor.name: tensor for tensor in found.graph.initializer}
    assert set(held) == {"weight", "bias"}
    for name, tensor in held.items():
        values = np.frombuffer(tensor.raw_data, np.float32).reshape(tensor.dims)
        np.testing.assert_array_equal(values, layer.get_parameter(name).detach().numpy())
