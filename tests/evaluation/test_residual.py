"""Of a picture that a network is given, only what it adds is its own."""

from typing import Any

import numpy as np
import pytest

from onnxprune.data import Head
from onnxprune.evaluation import Fidelity, residual_share

RNG = np.random.default_rng(0)


def smooth(count: int, channels: int, side: int) -> Any:
    """Pictures whose pixels are like their neighbours. Shapes: `[n, channels, side, side]`."""
    coarse = RNG.random((count, channels, side // 4, side // 4), np.float32)
    return np.kron(coarse, np.ones((1, 1, 4, 4), np.float32)).astype(np.float32)


CLEAN = smooth(12, 3, 16)
NOISE = RNG.normal(0, 0.05, CLEAN.shape).astype(np.float32)
NOISY = CLEAN + NOISE
PARTS = (NOISE**2).sum((0, 2, 3)) / ((CLEAN - CLEAN.mean(0)) ** 2).sum((0, 2, 3))


@pytest.mark.parametrize("last", [False, True])
def test_what_is_subtracted_from_a_picture_is_the_networks_own(last: bool) -> None:
    x, y = (np.moveaxis(one, 1, 3) if last else one for one in (NOISY, CLEAN))
    share = residual_share([x], y, 3 if last else 1)
    assert share is not None
    np.testing.assert_allclose(share, PARTS, rtol=0.1)
    together = residual_share([x], y, 0)
    assert together is not None
    assert together.shape == (1,)


def test_the_scale_of_an_output_is_nothing_of_its_own() -> None:
    share = residual_share([NOISY * 255 - 3], CLEAN, 1)
    assert share is not None
    np.testing.assert_allclose(share, PARTS, rtol=0.1)


def test_a_picture_that_is_enlarged_is_none_of_its_own_but_for_what_is_added() -> None:
    small = RNG.random((12, 1, 10, 10), np.float32)
    padded = np.pad(small, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    mixed = (padded[:, :, 1:-1, 1:-1] * 3 + padded[:, :, 1:-1, 2:]) / 4
    large = np.repeat(np.repeat(mixed, 2, 2), 2, 3)
    share = residual_share([small], large, 0)
    assert share is not None
    assert share == pytest.approx([1e-3])  # a linear filter enlarges it as well
    added = RNG.normal(0, 0.1, large.shape).astype(np.float32)
    share = residual_share([small], large + added, 0)
    assert share is not None
    assert 0.05 < share[0] < 0.25


@pytest.mark.parametrize(
    "output",
    [
        RNG.random((12, 3, 16, 16), np.float32),  # another picture
        CLEAN[:, :, :15],  # of no multiple of the size
        CLEAN[:, 0, :, :],  # no picture
        -RNG.random((12, 5, 16, 16), np.float32),  # maps of five channels
    ],
)
def test_other_outputs_are_all_the_networks_own(output: Any) -> None:
    assert residual_share([NOISY], output, 1) is None
    assert residual_share([np.zeros((12, 7), np.float32)], CLEAN, 1) is None


def test_of_several_inputs_the_one_that_shows_most_counts() -> None:
    other = RNG.random(CLEAN.shape, np.float32)
    found, alone = (
        residual_share(x, CLEAN, 1) for x in ([other, CLEAN + 2 * NOISE, NOISY], [NOISY])
    )
    assert found is not None
    assert alone is not None
    np.testing.assert_allclose(found, alone, rtol=1e-6)


def test_a_network_that_does_nothing_any_more_agrees_in_nothing() -> None:
    """Without what it adds the picture itself is like the reference to a percent."""

    def of(share: Any) -> float:
        fidelity = Fidelity([Head("y", "values", 1, residual=share)], {"y": CLEAN})
        return float(fidelity.metric({"y": NOISY}, np.zeros(len(CLEAN))).harmonic)

    assert of(None) > 0.95
    assert of(residual_share([NOISY], CLEAN, 1)) < 0.1
