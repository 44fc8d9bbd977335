"""What a change of a detector's numbers is measured in."""

import numpy as np
import pytest

from onnxprune.detection.recognise import Detector
from onnxprune.detection.units import SCORE, SIDE

SIZE = (64, 64)
RNG = np.random.default_rng(0)
CENTRES, EXTENTS = RNG.uniform(20, 44, (3, 2, 84)), RNG.uniform(4, 30, (3, 2, 84))
SCORES = RNG.random((3, 3, 84)) ** 3
V8 = np.concatenate([CENTRES, EXTENTS, SCORES], 1)
SURE = np.sqrt(SCORES.max(1, keepdims=True))


def test_a_side_counts_as_a_share_of_the_box_by_its_score() -> None:
    found = Detector("yolov8", SIZE, 3).units({"y": V8})["y"]
    # A centre moves two corners, a size each of them by half.
    np.testing.assert_allclose(found[:, :2], np.sqrt(2) * SURE / (SIDE * EXTENTS), rtol=1e-6)
    np.testing.assert_allclose(found[:, 2:4], np.sqrt(0.5) * SURE / (SIDE * EXTENTS), rtol=1e-6)
    np.testing.assert_allclose(found[:, 4:], np.broadcast_to(SURE, SCORES.shape) / SCORE, rtol=1e-6)


def test_a_turned_output_has_turned_units() -> None:
    detector = Detector("yolov8", SIZE, 3)
    turned = detector.units({"y": V8.transpose(0, 2, 1)})["y"]
    np.testing.assert_array_equal(turned, detector.units({"y": V8})["y"].transpose(0, 2, 1))


def test_where_nothing_is_found_nothing_counts() -> None:
    empty = V8.copy()
    empty[:, 4:, :40] = 0
    found = Detector("yolov8", SIZE, 3).units({"y": empty})["y"]
    assert not found[..., :40].any() and found[..., 40:].all()


def test_numbers_of_a_mask_count_by_their_deviation_and_place() -> None:
    mask = RNG.normal(0, 7, (3, 5, 84))
    found = Detector("yolov8", SIZE, 3).units({"y": np.concatenate([V8, mask], 1)})["y"]
    spread = mask.std((0, 2)).reshape(1, 5, 1)
    np.testing.assert_allclose(found[:, 7:], SURE / spread)


def test_boxes_and_scores_apart_count_as_together() -> None:
    half = EXTENTS / 2
    sides = np.concatenate([CENTRES - half, CENTRES + half], 1).transpose(0, 2, 1)
    outputs = {"boxes": sides, "scores": SCORES.transpose(0, 2, 1)}
    found = Detector("retinanet", SIZE, 3).units(outputs)
    wanted = (SURE / (SIDE * np.concatenate([EXTENTS, EXTENTS], 1))).transpose(0, 2, 1)
    np.testing.assert_allclose(found["boxes"], wanted, rtol=1e-6)
    np.testing.assert_allclose(
        found["scores"] * SCORE, np.broadcast_to(SURE, SCORES.shape).transpose(0, 2, 1), rtol=1e-6
    )


def test_a_logit_counts_by_the_slope_of_its_probability() -> None:
    logits = RNG.normal(0, 3, (3, 10, 3))
    boxes = np.concatenate([RNG.uniform(0.3, 0.6, (3, 10, 2)), np.full((3, 10, 2), 0.2)], 2)
    found = Detector("detr", SIZE, 3).units({"pred_boxes": boxes, "logits": logits})
    p = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(
        found["logits"], np.sqrt(p.max(-1, keepdims=True)) * p * (1 - p) / SCORE, rtol=2e-3
    )


@pytest.mark.parametrize("head", ["end-to-end", "nms", "mine.py:decode"])
def test_boxes_that_are_chosen_have_no_places(head: str) -> None:
    assert Detector(head, SIZE, 3).units({"y": RNG.random((3, 10, 6))}) == {}
