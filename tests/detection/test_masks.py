"""Masks of a YOLO that segments: they agree by their overlap, and their prototypes count."""

import numpy as np
import pytest

from onnxprune.detection.agreement import MASKS, SURE, BoxAgreement
from onnxprune.detection.recognise import Detector, find_detector

SIZE, GRID, CLASSES, WEIGHTS = (64, 64), 84, 2, 3
RNG = np.random.default_rng(0)


def outputs(seed: int = 0, images: int = 4) -> dict[str, np.ndarray]:
    """Six sure boxes an image, whose masks are a mix of smooth prototypes."""
    rng = np.random.default_rng(seed)
    rows = np.zeros((images, 4 + CLASSES + WEIGHTS, GRID))
    rows[:, :2] = rng.uniform(8, 56, (images, 2, GRID))
    rows[:, 2:4] = 14
    rows[:, 4:6, ::14] = rng.uniform(0.5, 0.9, (images, 1, 6)) * [[1], [0]]
    rows[:, 6:] = rng.normal(size=(images, WEIGHTS, GRID))
    y, x = np.mgrid[:16, :16] / 16
    waves = [np.sin(6 * x), np.cos(5 * y), np.sin(4 * (x + y))]
    prototypes = np.stack(waves) * rng.uniform(2, 4, (images, WEIGHTS, 1, 1))
    return {"output0": rows, "output1": prototypes}


DETECTOR = Detector("yolov8", SIZE, CLASSES)
TRUTH = outputs()


def scores(changed: dict[str, np.ndarray]) -> dict[str, float]:
    judge = BoxAgreement(DETECTOR, TRUTH, ("cat", "dog")).metric
    numbers = np.arange(len(TRUTH["output0"]))
    found = judge.measure(changed, None, numbers)
    return dict(zip(judge.parts, found.per_class.tolist(), strict=True))


def test_masks_are_a_part_beside_the_classes() -> None:
    assert scores(TRUTH) == {"cat": 1.0, MASKS: 1.0}


@pytest.mark.parametrize("name", ["prototypes", "weights"])
def test_masks_that_are_lost_cost_their_part_alone(name: str) -> None:
    changed = {name: held.copy() for name, held in TRUTH.items()}
    if name == "prototypes":
        changed["output1"] *= -1
    else:
        changed["output0"][:, 6:] *= -1
    assert scores(changed) == {"cat": 1.0, MASKS: pytest.approx(0, abs=0.01)}


def test_the_overlap_is_that_of_a_loop_over_pixels() -> None:
    changed = {name: held.copy() for name, held in TRUTH.items()}
    changed["output1"] += RNG.normal(0, 1, changed["output1"].shape)
    each = []
    for image in range(len(TRUTH["output0"])):
        for place in range(GRID):
            x, y, wide, high, *likely = TRUTH["output0"][image, :6, place]
            if max(likely) < SURE:
                continue
            both = either = 0
            for row in range(16):
                for column in range(16):
                    beside = abs((column + 0.5) * 4 - x) >= wide / 2
                    if beside or abs((row + 0.5) * 4 - y) >= high / 2:
                        continue
                    old, new = (
                        held["output0"][image, 6:, place] @ held["output1"][image, :, row, column]
                        for held in (TRUTH, changed)
                    )
                    both += (old > 0) and (new > 0)
                    either += (old > 0) or (new > 0)
            each.append(both / either if either else 1.0)
    assert 0.2 < np.mean(each) < 0.98
    assert scores(changed)[MASKS] == pytest.approx(np.mean(each))


def test_points_behind_the_scores_are_no_masks() -> None:
    assert DETECTOR.masks({"output0": TRUTH["output0"]}) is None
    assert BoxAgreement(DETECTOR, {"output0": TRUTH["output0"]}, ("cat", "dog")).parts == ("cat",)


def test_turned_rows_say_the_same_masks() -> None:
    turned = {**TRUTH, "output0": TRUTH["output0"].transpose(0, 2, 1)}
    shapes = {name: held.shape for name, held in TRUTH.items()}
    assert find_detector(shapes, SIZE, CLASSES, task="segment") == DETECTOR
    np.testing.assert_array_equal(DETECTOR.masks(turned).weights, DETECTOR.masks(TRUTH).weights)


def test_prototypes_count_as_the_numbers_that_weigh_them() -> None:
    """A change of all by a share of their deviation is as bad as the same of all weights."""
    units = DETECTOR.units(TRUTH)
    spread = TRUTH["output1"].std((0, 2, 3), keepdims=True)
    by_prototypes = ((units["output1"] * spread) ** 2).sum((1, 2, 3))
    weights = TRUTH["output0"][:, 6:]
    by_weights = ((units["output0"][:, 6:] * weights.std((0, 2), keepdims=True)) ** 2).sum((1, 2))
    np.testing.assert_allclose(by_prototypes, by_weights)
    assert (by_weights > 1).all()


def test_a_row_is_held_against_its_own_image() -> None:
    judge = BoxAgreement(DETECTOR, TRUTH, ("cat", "dog")).metric
    last = {name: held[2:] for name, held in TRUTH.items()}
    found = judge.measure(last, None, np.array([2, 3]))
    assert found.per_class.tolist() == [1.0, 1.0]
