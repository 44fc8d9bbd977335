"""The divergence to second order, against its formula and against the divergence itself."""

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from onnxprune.data import Head
from onnxprune.relevance.divergence import DRAWS, directions_of, find_directions, units_of
from tests.support.divergence import divergence

Array = npt.NDArray[Any]

EXACT = 1e-9
"""Relative, in double precision."""


class Signs:
    """A generator whose choices are given."""

    def __init__(self, *signs: float) -> None:
        self.signs = signs

    def choice(self, values: list[float], shape: tuple[int, ...]) -> Array:
        assert set(self.signs) <= set(values)
        return np.array(self.signs).reshape(shape)


def drawn(seed: int, *shape: int) -> tuple[Array, Array, Array]:
    """Logits, probabilities of the unpruned net, and a change of the logits, classes on axis 1."""
    logits, unpruned, change = np.random.default_rng(seed).normal(size=(3, *shape))
    before = np.exp(unpruned) / np.exp(unpruned).sum(1, keepdims=True)
    return logits, before, change


def seen(logits: Array, before: Array, change: Array, y: Array, rng: Any) -> tuple[Array, Array]:
    """The slope and the curvature that the directions of each sample see in a change."""
    z, p0, moved = (torch.from_numpy(a) for a in (logits, before, change))
    found = find_directions({"z": z}, {"z": Head("z")}, y, {"z": p0}, rng)
    # A start is a direction times the logits: the effect of a change is its share of that.
    effects = torch.stack([(s["z"] / z * moved).flatten(1).sum(1) for s in found.starts], 1)
    slope = (effects * found.slope).sum(1)
    curvature = (torch.einsum("nd,ndm->nm", effects, found.curvature) ** 2).sum(1)
    return slope.numpy(), curvature.numpy()


def gradient(logits: Array, before: Array) -> tuple[Array, Array]:
    """The gradient `p - p0` and the Fisher information of each row. Shapes: both `[m, K]`."""
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    fisher = np.einsum("mk,kl->mkl", p, np.eye(p.shape[1])) - np.einsum("mk,ml->mkl", p, p)
    return p - before, fisher


@pytest.mark.parametrize("classes", [2, 3])
def test_as_many_directions_as_there_can_be_see_all(
    classes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.relevance.divergence.DIRECTIONS", classes - 1)
    monkeypatch.setattr("onnxprune.relevance.divergence.CLASSES_EACH", 1)
    logits, before, change = drawn(0, 5, classes)
    slope, curvature = seen(logits, before, change, np.zeros(5, np.int64), None)
    g, fisher = gradient(logits, before)
    np.testing.assert_allclose(slope, (g * change).sum(1), rtol=EXACT)
    expected = np.einsum("mk,mkl,ml->m", change, fisher, change)
    np.testing.assert_allclose(curvature, expected, rtol=EXACT)
    small = 1e-3 * change
    measured = divergence(before, logits + small) - divergence(before, logits)
    np.testing.assert_allclose(1e-3 * slope + 0.5e-6 * curvature, measured, atol=1e-8)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("classes", [20, 40])
def test_many_classes_are_seen_along_the_leading_directions(
    classes: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 classes, those 32 that are most probable."""
    monkeypatch.setattr("onnxprune.relevance.divergence.DIRECTIONS", count)
    monkeypatch.setattr("onnxprune.relevance.divergence.CLASSES_EACH", 1)
    logits, before, change = drawn(1, 6, classes)
    slope, curvature = seen(logits, before, change, np.zeros(6, np.int64), None)
    for n, (g, fisher) in enumerate(zip(*gradient(logits, before), strict=True)):
        p = g + before[n]
        near = np.argsort(p + before[n])[-32:]
        g, fisher, moved = g[near], fisher[np.ix_(near, near)], change[n, near]
        vectors = np.linalg.eigh(fisher + np.outer(g, g))[1][:, -count:]
        projected = vectors @ (vectors.T @ moved)
        assert slope[n] == pytest.approx(g @ projected, rel=EXACT)
        assert curvature[n] == pytest.approx(projected @ fisher @ projected, rel=EXACT)


@pytest.mark.parametrize(
    ("classes", "count"), [(1, 1), (2, 1), (3, 1), (5, 1), (6, 2), (9, 3), (1000, 3)]
)
def test_more_classes_have_more_directions_to_a_limit(classes: int, count: int) -> None:
    assert directions_of(classes) == count
    logits, before, _ = (torch.from_numpy(a) for a in drawn(2, 4, classes))
    given = {"z": logits}, {"z": Head("z")}, np.zeros(4, np.int64), {"z": before}
    generator = np.random.default_rng(0)
    assert len(find_directions(*given, generator).starts) == count
    assert len(find_directions(*given, generator, 1).starts) == 1


def test_a_single_logit_is_that_of_class_one() -> None:
    logits, before, change = (np.array([[a], [b]]) for a, b in ((0.3, -1), (0.2, 0.6), (0.7, -2)))
    slope, curvature = seen(logits, before, change, np.zeros(2, np.int64), None)
    both = [np.concatenate(pair, 1) for pair in ((0 * logits, logits), (1 - before, before))]
    g, fisher = gradient(*both)
    np.testing.assert_allclose(slope, g[:, 1] * change[:, 0], rtol=EXACT)
    np.testing.assert_allclose(curvature, fisher[:, 1, 1] * change[:, 0] ** 2, rtol=EXACT)


def test_the_pixels_of_a_map_count_by_their_mean() -> None:
    """For every pattern of signs the slope is the mean, and over all patterns the curvature."""
    logits, before, change = drawn(2, 1, 2, 2, 3)
    y = np.array([[[0, 1, 255], [1, 255, 0]]])
    found = [seen(logits, before, change, y, Signs(*s)) for s in product((-1.0, 1.0), repeat=6)]
    rows = [np.moveaxis(a, 1, -1)[y != 255] for a in (logits, before, change)]
    g, fisher = gradient(*rows[:2])
    slopes, curvatures = np.array(found)[..., 0].T
    np.testing.assert_allclose(slopes, (g * rows[2]).sum(1).mean(), rtol=EXACT)
    expected = np.einsum("mk,mkl,ml->m", rows[2], fisher, rows[2]).mean()
    assert curvatures.mean() == pytest.approx(expected, rel=EXACT)
    assert curvatures.std() > 0.1 * expected


def test_copies_that_fill_a_batch_have_no_direction() -> None:
    logits, before, _ = drawn(3, 5, 3)
    z, p0 = {"z": torch.from_numpy(logits)}, {"z": torch.from_numpy(before[:3])}
    found = find_directions(z, {"z": Head("z")}, np.zeros(3, np.int64), p0, Signs())
    assert all(torch.equal(start["z"][3:], torch.zeros(2, 3)) for start in found.starts)
    assert all(start["z"][:3].any() for start in found.starts)


def test_units_beside_an_output_stand_in_the_place_of_its_deviation() -> None:
    rng = np.random.default_rng(0)
    z, before, units = (torch.from_numpy(rng.uniform(1, 2, (2, 3, 4))) for _ in range(3))
    head = Head("z", "values", 1, deviation=np.full((1, 3, 1), 7.0))
    given = {"z": before, units_of("z"): units}
    found = find_directions({"z": z}, {"z": head}, np.zeros(2, int), given, rng)
    *bent, moved = (start["z"] / z for start in found.starts)
    assert len(bent) == DRAWS and found.curvature.shape == (2, DRAWS + 1, DRAWS)
    for draw in bent:  # together they are as large as one
        np.testing.assert_allclose(draw.abs() * DRAWS**0.5, units, rtol=EXACT)
    assert not torch.equal(bent[0], bent[1])
    np.testing.assert_allclose(moved, (z - before) * units**2, rtol=EXACT)
