"""Quick convolutions change what rules find by rounding alone."""

from __future__ import annotations

from copy import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxprune.graph.graph import Graph
from onnxprune.ops import _winograd
from onnxprune.relevance import fuse
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.mirror import Mirror, choose_layout
from onnxprune.relevance.rules import find_composite
from tests.support.models import images, model

NETWORK = """
g (float[N,3,18,18] x) => (float[N,4] z)
<float[96,3,3,3] w0, float[96,96,3,3] w1, float[96] b1, float[64,96,1,1] w2, float[96,64,3,3] w3,
 float[96,4] v> {
  a = Conv<pads=[1,1,1,1]>(x, w0)
  p = Relu(a)
  b = Conv<pads=[1,1,1,1]>(p, w1, b1)
  q = Relu(b)
  c = Conv(q, w2)
  r = Relu(c)
  d = Conv(r, w3)
  s = Relu(d)
  m = GlobalAveragePool(s)
  f = Flatten(m)
  z = MatMul(f, v)
}
"""
ALL = "abcdpqrs"


def mirror(dtype: torch.dtype = torch.float64) -> Mirror:
    return folded(Mirror(Graph(model(NETWORK)), device="cpu", dtype=dtype))


def exactly(one: Mirror) -> Mirror:
    """The mirror without quick convolutions."""
    other = copy(one)
    other.quick = frozenset()
    return other


def find(one: Mirror, rule: str) -> dict[str, Tensor]:
    x = images(one.graph.model, 3)
    return relevance(one, x, np.arange(3), find_composite(rule), ALL)


def test_epsilon_finds_the_same_up_to_rounding() -> None:
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-4)):
        quick = mirror(dtype)
        found, exact = find(quick, "epsilon"), find(exactly(quick), "epsilon")
        assert set(found) == set(ALL)
        for name in ALL:
            assert (found[name] - exact[name]).norm() < error * exact[name].norm()
        assert not torch.equal(found["a"], exact["a"])


@pytest.mark.parametrize("rule", ["zplus", "gamma", "alpha-beta"])
def test_rules_that_divide_by_parts_of_a_sum_know_these_exactly(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the way back is quick, and only with enough tiles. Alpha-beta adds up its two sides."""
    for dtype, error in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        quick = mirror(dtype)
        found, exact = find(quick, rule), find(exactly(quick), rule)
        for name in ALL:
            assert (found[name] - exact[name]).norm() < error * exact[name].norm()
        assert not torch.equal(found["a"], exact["a"])
    monkeypatch.setattr(_winograd, "FEWEST_FRESH", 3 * 25 + 1)
    quick = mirror()
    found, exact = find(quick, rule), find(exactly(quick), rule)
    for name in ALL:
        assert (found[name] - exact[name]).norm() < 1e-12 * exact[name].norm()
        assert torch.equal(found[name], exact[name]) or rule == "alpha-beta"


def test_as_many_layers_are_quick_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mirror().quick == {"b", "d"}
    needed = 36 * 96 * 64 * 8
    for room, names in ((needed, {"d"}), (needed - 1, set()), (36 * 96 * 160 * 8, {"b", "d"})):
        monkeypatch.setattr(fuse, "QUICK", room)
        assert mirror().quick == names


def test_channels_come_last_where_products_of_matrices_are_most_kernels() -> None:
    cpu = torch.device("cpu")
    point, quick, other = (torch.ones(s) for s in ((8, 8, 1, 1), (96, 96, 3, 3), (96, 96, 5, 5)))
    for kernels, last in (
        ([point, other], False),
        ([point, quick, other], True),
        ([quick, quick, other], True),
        ([quick, other, other], False),
    ):
        found = choose_layout(kernels, cpu)
        assert (found == torch.channels_last) == last
