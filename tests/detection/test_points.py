"""Points of a YOLO that sees poses: they agree by their distance, as a share of their box."""

import numpy as np
import pytest

from onnxprune.detection.agreement import POINTS, BoxAgreement
from onnxprune.detection.points import NEAR, Points
from onnxprune.detection.recognise import Detector
from onnxprune.detection.units import SIDE

SIZE, GRID, CLASSES, MANY = (96, 96), 189, 2, 5
DETECTOR = Detector("yolov8", SIZE, CLASSES)
WIDE, HIGH = 12, 16


def outputs(each: int = 3, images: int = 4) -> dict[str, np.ndarray]:
    """Six sure boxes an image with five points each, two of them unseen."""
    rng = np.random.default_rng(0)
    rows = np.zeros((images, 4 + CLASSES + each * MANY, GRID))
    rows[:, :2] = rng.uniform(10, 86, (images, 2, GRID))
    rows[:, 2], rows[:, 3] = WIDE, HIGH
    rows[:, 4:6, ::32] = rng.uniform(0.5, 0.9, (images, 1, 6)) * [[1], [0]]
    points = rows[:, 6:].reshape(images, MANY, each, GRID)
    points[:, :, 0] = rows[:, None, 0] + rng.uniform(-6, 6, (images, MANY, GRID))
    points[:, :, 1] = rows[:, None, 1] + rng.uniform(-8, 8, (images, MANY, GRID))
    points[:, :, 2:] = np.array([0.9, 0.8, 0.7, 0.2, 0.1]).reshape(1, MANY, 1, 1)
    return {"output0": rows}


TRUTH = outputs()


def scores(
    changed: dict[str, np.ndarray], truth: dict[str, np.ndarray] = TRUTH
) -> dict[str, float]:
    judge = BoxAgreement(DETECTOR, truth, ("cat", "dog")).metric
    found = judge.measure(changed, None, np.arange(len(truth["output0"])))
    return dict(zip(judge.parts, found.per_class.tolist(), strict=True))


def moved(pixels: float, point: int, each: int = 3) -> dict[str, np.ndarray]:
    rows = outputs(each)["output0"]
    rows[:, 6 + each * point] += pixels
    return {"output0": rows}


@pytest.mark.parametrize("each", [2, 3])
def test_points_are_a_part_beside_the_classes(each: int) -> None:
    assert scores(outputs(each), outputs(each)) == {"cat": 1.0, POINTS: 1.0}


@pytest.mark.parametrize(("each", "seen"), [(3, 3), (2, 5)])
def test_a_point_counts_by_its_distance_as_a_share_of_the_box(each: int, seen: int) -> None:
    for pixels in (1.0, 3.0):
        near = np.exp(-(pixels**2) / (2 * NEAR**2 * WIDE * HIGH))
        expected = (seen - 1 + near) / seen
        found = scores(moved(pixels, 1, each), outputs(each))
        assert found == {"cat": 1.0, POINTS: pytest.approx(expected)}


def test_a_point_that_the_unpruned_network_does_not_see_counts_nothing() -> None:
    assert scores(moved(9, 3)) == {"cat": 1.0, POINTS: 1.0}


def test_a_point_that_is_no_longer_seen_is_lost() -> None:
    rows = outputs()["output0"]
    rows[:, 8] = 0.4
    assert scores({"output0": rows}) == {"cat": 1.0, POINTS: pytest.approx(2 / 3)}


def test_softly_a_point_counts_by_what_is_left_of_its_likelihood() -> None:
    rows = outputs()["output0"]
    rows[:, 8] = 0.45
    judge = BoxAgreement(DETECTOR, TRUTH, ("cat", "dog")).metric
    found = judge.measure({"output0": rows}, None, np.arange(4))
    assert found.soft_per_class[-1] == pytest.approx((0.5 + 2) / 3)


def test_where_the_pruned_network_finds_nothing_points_are_compared_all_the_same() -> None:
    rows = outputs()["output0"]
    rows[:, 4:6] = 0
    rows[:, 6:] = -1e3
    assert scores({"output0": rows}) == {"cat": 0.0, POINTS: 0.0}


def test_numbers_that_lie_elsewhere_are_no_points() -> None:
    rows = outputs(2)["output0"]
    rows[:, 6:] = np.random.default_rng(0).normal(size=rows[:, 6:].shape)
    assert scores({"output0": rows}, {"output0": rows}) == {"cat": 1.0}
    odd = {"output0": rows[:, : 6 + 1]}  # the angle of a box that is turned
    assert DETECTOR.points(odd) is None


def test_six_points_of_two_numbers_are_no_four_of_three() -> None:
    rows = outputs(2)["output0"]
    found = DETECTOR.points({"output0": np.concatenate([rows, rows[:, 6:8]], 1)})
    assert isinstance(found, Points)
    assert (found.each, found.places.shape[2]) == (2, 6)


def test_a_change_of_all_points_counts_as_one_of_both_corners() -> None:
    units = DETECTOR.units(TRUTH)["output0"]
    sure = np.sqrt(TRUTH["output0"][:, 4:6].max(1))
    across = (units[:, 6::3] ** 2).sum(1)
    np.testing.assert_allclose(across, 2 * (sure / (SIDE * WIDE)) ** 2, rtol=1e-5, atol=1e-12)
    np.testing.assert_allclose(units[:, 0] ** 2, across, rtol=1e-5, atol=1e-12)


def test_a_row_is_held_against_its_own_image() -> None:
    """The second half of the images, alone, agrees with itself."""
    judge = BoxAgreement(DETECTOR, TRUTH, ("cat", "dog")).metric
    found = judge.measure({"output0": TRUTH["output0"][2:]}, None, np.array([2, 3]))
    assert found.per_class.tolist() == [1.0, 1.0]
    assert isinstance(DETECTOR.points(TRUTH), Points)
