"""What is foreseen of unseen samples: laws of the expected drop, and how often its bound holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.evaluation import Accuracy
from onnxprune.evaluation.unseen import SHARPNESS, Drop, drop_of_parts, expected_drop, smoothed

RNG = np.random.default_rng(0)


def scores(right: float, labels: IntArray, classes: int, rng: np.random.Generator) -> FloatArray:
    """Scores of which the true class is raised."""
    found = rng.normal(size=(len(labels), classes))
    found[np.arange(len(labels)), labels] += right
    return found


LABELS = np.repeat(np.arange(3), 10)
BEFORE, AFTER = scores(3, LABELS, 3, RNG), scores(2, LABELS, 3, RNG)


def test_nothing_is_lost_by_the_same_net() -> None:
    found = expected_drop(BEFORE, BEFORE, LABELS)
    assert found.expected == 0 and found.error == pytest.approx(0, abs=1e-12)
    assert found.bound(0.9) == pytest.approx(0, abs=1e-12)


def test_what_scales_or_shifts_the_scores_loses_nothing() -> None:
    moved = 0.1 * BEFORE + RNG.normal(size=(30, 1))
    assert expected_drop(BEFORE, moved, LABELS).expected == pytest.approx(0, abs=1e-6)


def test_probabilities_say_the_same_as_their_logits() -> None:
    e = np.exp(AFTER)
    shares = e / e.sum(1, keepdims=True)
    a, b = (expected_drop(BEFORE, one, LABELS) for one in (AFTER, shares))
    assert a.expected == pytest.approx(b.expected) and a.error == pytest.approx(b.error)


def test_one_score_is_that_of_two_classes() -> None:
    y = np.arange(20) % 2
    one = RNG.normal(size=(20, 1)) + (2 * y - 1)[:, None]
    two = np.concatenate([0 * one, one], axis=1)
    np.testing.assert_allclose(smoothed(one, y), smoothed(two, y), atol=1e-6)


def test_a_gain_is_a_drop_the_other_way_round() -> None:
    there, back = expected_drop(BEFORE, AFTER, LABELS), expected_drop(AFTER, BEFORE, LABELS)
    assert there.expected == pytest.approx(-back.expected) and there.expected > 0
    assert there.error == pytest.approx(back.error)


def test_neither_the_order_of_samples_nor_that_of_classes_matters() -> None:
    rows, names = RNG.permutation(30), np.array([2, 0, 1])
    found = expected_drop(
        BEFORE[rows][:, np.argsort(names)], AFTER[rows][:, np.argsort(names)], names[LABELS[rows]]
    )
    assert found.expected == pytest.approx(expected_drop(BEFORE, AFTER, LABELS).expected)


@given(st.floats(-0.2, 0.2), st.floats(0, 0.1), st.integers(1, 200))
def test_a_bound_rises_with_confidence(expected: float, error: float, samples: int) -> None:
    drop = Drop(expected, error, samples)
    bounds = [drop.bound(sure) for sure in (0, 0.5, 0.8, 0.9, 0.99)]
    assert bounds == sorted(bounds)
    assert bounds[0] == -np.inf and bounds[1] == pytest.approx(expected, abs=1e-9)


def test_the_fewer_samples_the_higher_the_bound() -> None:
    bounds = [Drop(0.01, 0.02, samples).bound(0.9) for samples in (2, 5, 30, 1000)]
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize("each", [1, 2, 10])
def test_one_sample_of_each_class_has_a_bound(each: int) -> None:
    labels = np.repeat(np.arange(50), each)
    a, b = (scores(right, labels, 50, np.random.default_rng(each)) for right in (4, 3))
    found = expected_drop(a, b, labels)
    assert np.isfinite(found.expected) and 0 < found.error < 0.1
    assert found.bound(0.9) > found.expected


@pytest.mark.parametrize(("samples", "wanted"), [(12, SHARPNESS), (125, 0.96), (1000, 0.99)])
def test_mean_probability_is_the_sharpness_of_so_many(samples: int, wanted: float) -> None:
    rows = scores(3, np.arange(samples) % 3, 3, np.random.default_rng(samples))
    assert smoothed(rows, rows.argmax(1)).mean() == pytest.approx(wanted, abs=1e-6)
    assert smoothed(np.zeros((4, 5)), np.zeros(4, np.int64)) == pytest.approx(0.2)


@pytest.mark.parametrize(("classes", "each"), [(3, 10), (10, 10), (10, 3), (100, 1)])
def test_the_bound_holds_as_often_as_it_says(classes: int, each: int) -> None:
    """Of 300 draws, few have a bound below what draws let expect on average."""
    labels = np.repeat(np.arange(classes), 4000 // classes)
    rng = np.random.default_rng(1)
    before = scores(3.5, labels, classes, rng)
    after = before + rng.normal(0, 0.7, before.shape)
    rows = [np.flatnonzero(labels == k) for k in range(classes)]
    found = []
    for _ in range(300):
        drawn = np.concatenate([rng.choice(own, each, replace=False) for own in rows])
        found.append(expected_drop(before[drawn], after[drawn], labels[drawn]))
    mean = np.mean([one.expected for one in found])
    held = sum(one.bound(0.9) >= mean for one in found)
    assert held / 300 > 0.82


def parts_of(shares: FloatArray) -> list[Accuracy]:
    """Samples that each agree by these shares, one column for each part. Shapes: `[n, parts]`."""
    ones = np.ones(shares.shape[1])
    return [Accuracy(row, ones, row) for row in shares]


def test_the_error_of_one_part_is_that_of_a_mean() -> None:
    shares = np.random.default_rng(2).beta(20, 1, (40, 1))
    found = drop_of_parts(parts_of(shares))
    assert found.expected == pytest.approx(1 - shares.mean())
    assert found.error == pytest.approx(shares.std(ddof=1) / 40**0.5)
    assert drop_of_parts(parts_of(np.ones((5, 3)))) == Drop(0.0, 0.0, 5)


@pytest.mark.parametrize(("samples", "parts"), [(8, 1), (12, 4), (400, 2)])
def test_the_bound_of_agreement_holds_as_often_as_it_says(samples: int, parts: int) -> None:
    rng, held = np.random.default_rng(3), 0
    spread = rng.uniform(5, 30, parts)
    truth = 1 - 1 / np.mean(1 / (spread / (spread + 1)))
    for _ in range(300):
        drawn = rng.beta(spread, 1, (samples, parts))
        held += drop_of_parts(parts_of(drawn)).bound(0.9) >= truth
    assert held / 300 > 0.82


def test_the_more_samples_the_nearer_is_what_is_expected_to_what_is_hit() -> None:
    """Of nets that are surer than they are brought to, a smooth figure says too little."""
    labels, rng = np.repeat(np.arange(10), 400), np.random.default_rng(1)
    before = scores(3.5, labels, 10, rng)
    after = before + rng.normal(0, 0.7, before.shape)
    lost = _mean_of_hits(before, labels) - _mean_of_hits(after, labels)
    missing = []
    for each in (10, 30, 100):
        found = []
        for _ in range(50):
            drawn = np.concatenate([400 * k + rng.permutation(400)[:each] for k in range(10)])
            found.append(expected_drop(before[drawn], after[drawn], labels[drawn]).expected)
        missing.append(1 - np.mean(found) / lost)
    assert 0.2 > missing[0] > missing[1] + 0.05 > missing[2] + 0.05, missing


def _mean_of_hits(scores: FloatArray, labels: IntArray) -> float:
    hits = scores.argmax(1) == labels
    return float(1 / np.mean([1 / hits[labels == k].mean() for k in range(10)]))
