"""Quick convolutions are convolutions: their outputs, and what they carry back to their inputs."""

from __future__ import annotations

import gc
from functools import partial
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor
from torch.nn import functional

from onnxprune.ops import _winograd, node_of, quick_bytes, require_op
from onnxprune.ops._winograd import convolve_quickly, is_quicker

EXACT = {torch.float64: 1e-13, torch.float32: 2e-6}
"""Of the largest sum of absolute terms."""


class Sizes(NamedTuple):
    """What a convolution reads and writes, and its padding, (before, after) of each axis."""

    samples: int
    channels: int
    filters: int
    high: int
    wide: int
    widths: list[tuple[int, int]]

    def draw(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
        """Random inputs, weights and biases."""
        torch.manual_seed(0)
        x = torch.randn(self.samples, self.channels, self.high, self.wide, dtype=dtype)
        w = torch.randn(self.filters, self.channels, 3, 3, dtype=dtype)
        return x, w, torch.randn(self.filters, dtype=dtype)


pads = st.tuples(st.integers(0, 2), st.integers(0, 2))
sizes = st.builds(
    Sizes,
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(3, 14),
    st.integers(3, 14),
    st.lists(pads, min_size=2, max_size=2),
)


def expected(x: Tensor, w: Tensor, b: Tensor | None, widths: list[tuple[int, int]]) -> Tensor:
    (top, below), (left, right) = widths
    padded = functional.pad(x.double(), (left, right, top, below))
    return functional.conv2d(padded, w.double(), None if b is None else b.double())


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@given(size=sizes, bias=st.booleans(), last=st.booleans(), most=st.sampled_from([1, 2**10, 2**21]))
@settings(deadline=None, max_examples=30)
def test_a_quick_convolution_is_the_convolution(
    dtype: torch.dtype, size: Sizes, bias: bool, last: bool, most: int
) -> None:
    x, w, b = size.draw(dtype)
    layout = torch.channels_last if last else torch.contiguous_format
    x = x.contiguous(memory_format=layout).requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_winograd, "MOST", most)
        found = convolve_quickly(x, w, b if bias else None, size.widths)
        wanted = expected(x, w, b if bias else None, size.widths)
        given_back = torch.randn(wanted.shape, dtype=dtype)
        (back,) = torch.autograd.grad(found, x, given_back)
    (wanted_back,) = torch.autograd.grad(wanted, x, given_back.double())
    assert found.dtype == back.dtype == dtype
    assert found.shape == wanted.shape
    terms = x.detach().abs().requires_grad_()
    most_out = expected(terms, w.abs(), b.abs() if bias else None, size.widths)
    (most_back,) = torch.autograd.grad(most_out, terms, given_back.double().abs())
    assert (found - wanted).abs().max() < EXACT[dtype] * most_out.max()
    assert (back - wanted_back).abs().max() < EXACT[dtype] * most_back.max()


def test_many_channels_are_known_as_well() -> None:
    x, w, b = Sizes(2, 256, 128, 14, 14, [(1, 1), (1, 1)]).draw(torch.float32)
    found = convolve_quickly(x.clamp(min=0), w, b, [(1, 1), (1, 1)])
    assert error(found, expected(x.clamp(min=0), w, b, [(1, 1), (1, 1)])) < 3e-6


def test_it_repeats_itself_to_the_bit() -> None:
    x, w, b = Sizes(3, 30, 20, 17, 9, [(1, 1), (1, 1)]).draw(torch.float32)
    once = convolve_quickly(x, w, b, [(1, 1), (1, 1)])
    other = convolve_quickly(-x, w, b, [(1, 1), (1, 1)])
    assert torch.equal(convolve_quickly(x, w.clone(), b, [(1, 1), (1, 1)]), once)
    assert not torch.equal(other, once)


def test_weights_that_change_in_place_are_seen_and_dropped_weights_are_let_go() -> None:
    x, w, _ = Sizes(1, 4, 4, 8, 8, [(1, 1), (1, 1)]).draw(torch.float64)
    before = len(_winograd._held())
    once = convolve_quickly(x, w, None, [(1, 1), (1, 1)])
    w.mul_(2)
    assert error(convolve_quickly(x, w, None, [(1, 1), (1, 1)]), 2 * once) < 1e-12
    assert len(_winograd._held()) == before + 1
    del w
    gc.collect()
    assert len(_winograd._held()) == before


PADDED = [(1, 1), (1, 1)]
GAINING = Sizes(8, 128, 128, 16, 16, PADDED)


@pytest.mark.parametrize(
    ("size", "gains"),
    [
        (GAINING, True),
        (GAINING._replace(samples=1, high=4, wide=4), False),  # one tile: weights are read in vain
        (GAINING._replace(channels=32, filters=32), False),  # few channels: transforms take longer
        (GAINING._replace(high=5, wide=5), False),  # of four tiles most is outside
        (GAINING._replace(widths=[(3, 1), (1, 1)]), False),
    ],
    ids=["gaining", "one tile", "few channels", "cut off", "wide margins"],
)
def test_what_is_computed_quickly_depends_on_sizes(size: Sizes, gains: bool) -> None:
    x, w, _ = size.draw(torch.float32)
    assert is_quicker(x, w, size.widths) == gains


def test_only_the_way_back_may_be_quick() -> None:
    x, w, b = Sizes(2, 9, 8, 12, 12, PADDED).draw(torch.float64)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    exact = functional.conv2d(one, w, b, padding=1)
    found = convolve_quickly(other, w, b, PADDED, partial(functional.conv2d, padding=1))
    assert torch.equal(found, exact)
    flow = torch.randn_like(exact)
    wanted, back = (torch.autograd.grad(y, x, flow)[0] for y, x in ((exact, one), (found, other)))
    assert 0 < error(back, wanted) < EXACT[torch.float64]


@pytest.mark.parametrize(("high", "once"), [(12, False), (64, True)])
def test_weights_of_one_use_need_more_tiles(high: int, once: bool) -> None:
    x, w, _ = Sizes(2, 96, 96, high, 16, PADDED).draw(torch.float32)
    assert is_quicker(x, w, PADDED)
    assert is_quicker(x, w, PADDED, held=False) == once


def test_only_a_plain_convolution_is_computed_quickly() -> None:
    x, w, b = GAINING.draw(torch.float32)
    assert is_quicker(x, w, PADDED)
    assert not is_quicker(x.half(), w.half(), PADDED)
    assert not is_quicker(x, w.requires_grad_(), PADDED)
    w = w.detach()
    assert quick_bytes(w) == 4 * w.nbytes
    assert quick_bytes(w[:, :, :2, :2]) == quick_bytes(w[:32, :32]) == 0
    plain = {"pads": [1, 1, 1, 1]}
    for attributes in (plain, plain | {"strides": [2, 1]}, plain | {"dilations": [1, 2]}):
        node = node_of(helper.make_node("Conv", ["x", "w", "b"], ["y"], **attributes), {"": 22})
        op = require_op(node)
        (exact,), (quick,) = op(node, [x, w, b]), op.quickly(node, [x, w, b])
        assert torch.equal(exact, quick) == (attributes is not plain)
        assert error(quick, exact) < 1e-5
    grouped = node_of(helper.make_node("Conv", ["x", "w"], ["y"], group=128), {"": 22})
    depthwise = [x, w[:, :1]]
    op = require_op(grouped)
    assert torch.equal(op.quickly(grouped, depthwise)[0], op(grouped, depthwise)[0])


def test_a_bias_that_is_computed_gets_its_gradient() -> None:
    x, w, b = GAINING.draw(torch.float32)
    node = node_of(helper.make_node("Conv", ["x", "w", "b"], ["y"]), {"": 22})
    (y,) = require_op(node).quickly(node, [x, w, b.requires_grad_()])
    (found,) = torch.autograd.grad(y.sum(), b)
    assert torch.equal(found, torch.full_like(b, 8 * 14 * 14))
