"""Functions of JAX as jax2onnx wants them; `.ci/frameworks jax` runs the real one."""

import sys
from types import ModuleType
from typing import Any

import pytest

from onnxprune.converters import jax


def strict(x: Any, *, window_shape: Any, strides: Any = None, padding: str = "VALID") -> Any:
    """What jax2onnx puts in the place of flax's pools: all but the first is named."""
    return (x, window_shape, strides, padding)


def test_pools_are_called_by_name_while_a_network_is_traced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flax = ModuleType("flax.linen")
    flax.max_pool = flax.avg_pool = strict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flax.linen", flax)
    monkeypatch.delitem(sys.modules, "flax.nnx", raising=False)

    def network(x: Any) -> Any:
        first = flax.max_pool(x, (2, 2), (1, 2), padding="SAME")
        return first, flax.avg_pool(x, (3, 3)), flax.max_pool(x, window_shape=(5, 5))

    with pytest.raises(TypeError, match="positional"):
        network("x")
    assert jax._naming(network)("x") == (
        ("x", (2, 2), (1, 2), "SAME"),
        ("x", (3, 3), None, "VALID"),
        ("x", (5, 5), None, "VALID"),
    )
    assert flax.max_pool is flax.avg_pool is strict
    with pytest.raises(TypeError):
        jax._naming(lambda: network())()
    assert flax.max_pool is strict, "also where the network fails"
