"""Agreement of boxes: equal boxes agree, and what is lost, added or moved costs its class."""

import numpy as np
import pytest

from onnxprune.detection import BoxAgreement, Detector
from onnxprune.evaluation import REST
from tests.detection.encoders import CLASSES, ENCODERS, SCORE, SIZE, scenes

NAMES = ("a", "b", "c")
DETECTOR = Detector("end-to-end", SIZE, CLASSES)
NUMBERS = np.arange(6)
TRUTH = scenes()


def encoded(objects: list[np.ndarray]) -> dict[str, np.ndarray]:
    return ENCODERS["end-to-end"][1](objects)


def agreement(objects: list[np.ndarray], truth: list[np.ndarray] = TRUTH) -> np.ndarray:
    judge = BoxAgreement(DETECTOR, encoded(truth), NAMES)
    return judge.metric.measure(encoded(objects), np.zeros(6), NUMBERS).per_class


def of_class(objects: list[np.ndarray], kind: int) -> int:
    return int(sum((held[:, 4] == kind).sum() for held in objects))


def test_equal_boxes_agree() -> None:
    np.testing.assert_allclose(agreement(TRUTH), 1)


@pytest.mark.parametrize("change", ["lost", "added"])
def test_a_box_lost_or_added_costs_half_of_one(change: str) -> None:
    fewer = [TRUTH[0][1:], *TRUTH[1:]]
    found = agreement(fewer) if change == "lost" else agreement(TRUTH, fewer)
    kind = int(TRUTH[0][0, 4])
    n = of_class(TRUTH, kind)
    assert found[kind] == pytest.approx((n - 1) / (n - 0.5))
    np.testing.assert_allclose(np.delete(found, kind), 1)


def test_a_box_that_moves_costs_what_it_overlaps_less() -> None:
    moved = [held.copy() for held in TRUTH]
    wide = moved[0][0, 2] - moved[0][0, 0]
    moved[0][0, [0, 2]] += wide / 4  # 3/4 of 5/4 are left
    kind = int(TRUTH[0][0, 4])
    assert agreement(moved)[kind] == pytest.approx(1 - 0.4 / of_class(TRUTH, kind))
    moved[0][0, [0, 2]] += wide / 4  # 2/4 of 6/4: another box
    assert agreement(moved)[kind] == pytest.approx(1 - 1 / of_class(TRUTH, kind))


def test_a_score_that_falls_costs_softly_until_nothing_counts() -> None:
    outputs = encoded(TRUTH)
    judge = BoxAgreement(DETECTOR, outputs, NAMES)
    half = {"output0": outputs["output0"] * np.array([1, 1, 1, 1, 0.5, 1])}
    found = judge.metric.measure(half, np.zeros(6), NUMBERS)
    np.testing.assert_allclose(found.per_class, 1)
    np.testing.assert_allclose(found.soft_per_class, 0.5)
    low = {"output0": outputs["output0"] * np.array([1, 1, 1, 1, 0.2 / SCORE, 1])}
    assert judge.metric.measure(low, np.zeros(6), NUMBERS).harmonic == 0


def test_rare_classes_count_together_or_not_at_all() -> None:
    rare = [held * np.array([1, 1, 1, 1, 0, 1]) for held in TRUTH]
    rare[0][:3, 4], rare[1][:2, 4] = 1, 2
    assert BoxAgreement(DETECTOR, encoded(rare), NAMES).parts == ("a", REST)
    alone = [rare[0], *(held * np.array([1, 1, 1, 1, 0, 1]) for held in TRUTH[1:])]
    assert BoxAgreement(DETECTOR, encoded(alone), NAMES).parts == ("a",)
    np.testing.assert_allclose(agreement(alone, alone), 1)


def test_parts_of_the_samples_add_up() -> None:
    moved = [held + np.array([2, 0, 2, 0, 0, 0]) for held in TRUTH]
    outputs = encoded(moved)
    metric = BoxAgreement(DETECTOR, encoded(TRUTH), NAMES).metric
    halves = [
        metric.measure({"output0": outputs["output0"][k]}, np.zeros(3), NUMBERS[k])
        for k in (slice(0, 3), slice(3, 6))
    ]
    assert metric.adds_up
    both, whole = halves[0] + halves[1], metric.measure(outputs, np.zeros(6), NUMBERS)
    for name, values in both.counts().items():
        np.testing.assert_allclose(values, whole.counts()[name])


def test_classes_without_names_have_numbers() -> None:
    assert BoxAgreement(DETECTOR, encoded(TRUTH)).parts == ("0", "1", "2")
