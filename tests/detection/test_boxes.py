"""Boxes: overlap and suppression against their plain definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.detection.boxes import Found, best_of_overlapping, corners, overlap


def some(seed: int, count: int) -> Found:
    rng = np.random.default_rng(seed)
    boxes = corners(
        np.concatenate([rng.uniform(0, 40, (count, 2)), rng.uniform(5, 30, (count, 2))], 1)
    )
    return Found(boxes, rng.random(count), rng.integers(0, 2, count))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """On a fine grid of points, whether each is in one box and in the other."""
    points = np.stack(np.meshgrid(*(np.arange(-20, 80, 0.25) + 0.125,) * 2), -1)
    inside = [((points > box[:2]) & (points < box[2:])).all(-1) for box in (a, b)]
    return float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())


def test_overlap_is_intersection_over_union() -> None:
    boxes = some(0, 6).boxes
    found = overlap(boxes, boxes)
    expected = [[iou(a, b) for b in boxes] for a in boxes]
    np.testing.assert_allclose(found, expected, atol=0.02)
    np.testing.assert_allclose(np.diag(found), 1)


def one_by_one(found: Found, most: float) -> list[int]:
    """Greedy suppression, as it is defined."""
    kept: list[int] = []
    for row in np.argsort(-found.scores):
        over = overlap(found.boxes[[row]], found.boxes[kept])[0]
        same = found.classes[kept] == found.classes[row]
        if not (same & (over > most)).any():
            kept.append(int(row))
    return kept


@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([0.2, 0.45, 0.7]))
def test_suppression_is_that_of_one_by_one(seed: int, count: int, most: float) -> None:
    found = some(seed, count)
    kept = best_of_overlapping(found, most)
    rows = one_by_one(found, most)
    np.testing.assert_array_equal(kept.boxes, found.boxes[rows])
    np.testing.assert_array_equal(kept.scores, found.scores[rows])
    np.testing.assert_array_equal(kept.classes, found.classes[rows])


@pytest.mark.parametrize("count", [0, 1])
def test_none_and_one_stay(count: int) -> None:
    assert len(best_of_overlapping(some(0, count), 0.5).boxes) == count
