"""What a module with large weights takes on its way back."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from onnxprune.graph import is_large
from onnxprune.modules import corrected, tracing
from onnxprune.modules.corrected import _same
from onnxprune.modules.cutting import with_state
from onnxprune.modules.tracing import trace, trace_apart


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


def test_large_weights_of_a_traced_model_are_those_of_the_module() -> None:
    layer = nn.Conv2d(64, 32, 1)
    bare, weights = trace_apart(layer, [torch.zeros(2, 64, 2, 2)], "classic")
    assert weights.keys() == {"weight"}
    assert bare.ByteSize() < 1000
    assert np.shares_memory(weights["weight"].read(), layer.weight.detach().numpy())
    assert [t.name for t in bare.graph.initializer if is_large(t)] == ["weight"]
    assert [value.name for value in bare.graph.input] == ["input"]


@pytest.mark.parametrize("exporter", sorted(tracing.EXPORTERS))
def test_the_twin_of_a_heavy_tensor_holds_one_number(
    monkeypatch: pytest.MonkeyPatch, exporter: str
) -> None:
    """Equal tensors of the module stay two in the model, and tied ones one."""
    monkeypatch.setattr(tracing, "HEAVY", 1)
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    module.load_state_dict(
        {name: torch.ones(one.shape) for name, one in module.state_dict().items()}
    )
    module[2].weight = module[0].weight
    twin = tracing._twin(module)
    assert all(one.untyped_storage().nbytes() == 4 for one in twin.parameters())
    assert twin[2].weight is twin[0].weight
    assert len({float(one.detach().ravel()[0]) for one in twin.parameters()}) == 5
    assert all(bool((one == 1).all()) for one in module.parameters())
    found = trace(module, [torch.zeros(2, 4)], exporter)
    assert sum(t.name.endswith("weight") for t in found.graph.initializer) == 2


class Uncopied(nn.Parameter):
    def __deepcopy__(self, memo: object) -> nn.Parameter:
        raise AssertionError("copied")


def test_what_is_replaced_in_a_module_is_not_copied() -> None:
    layer = nn.Linear(4, 3)
    layer.weight = Uncopied(torch.zeros(3, 4))
    weight = np.ones((2, 4), np.float32)
    done = with_state(layer, {"weight": weight, "bias": np.ones(2, np.float32)}, {})
    assert np.shares_memory(done.weight.detach().numpy(), weight)
    assert done.out_features == 2
    assert layer.weight.shape == (3, 4)
