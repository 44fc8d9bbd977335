"""Average precision as a metric: which classes are judged, and what beside the score is kept."""

import numpy as np
import pytest

from onnxprune.detection import Detector, Precision
from onnxprune.detection.precision import average_precision, objects_of, soft_scores
from onnxprune.errors import DataError
from tests.detection.encoders import CLASSES, ENCODERS, SIZE, ragged, scenes

NAMES = ("a", "b", "c")
DETECTOR = Detector("end-to-end", SIZE, CLASSES)
NUMBERS = np.arange(6)


def encoded(objects: list[np.ndarray]) -> dict[str, np.ndarray]:
    return ENCODERS["end-to-end"][1](objects)


def test_a_class_is_scored_by_its_precision_and_softly_beside_it() -> None:
    objects = scenes()
    near = [held + np.array([1, 0, 1, 0, 0, 0]) for held in objects]
    outputs = encoded(near)
    found = Precision(DETECTOR, objects, NAMES).metric("map")(outputs, ragged(objects), NUMBERS)
    expected = average_precision(DETECTOR(outputs), objects, CLASSES)
    assert (expected < 0.95).all()
    np.testing.assert_allclose(found.per_class, expected)
    soft = soft_scores(DETECTOR(outputs), objects, CLASSES) / objects_of(objects, CLASSES)
    np.testing.assert_allclose(found.soft_per_class, soft)
    assert found.support.tolist() == objects_of(objects, CLASSES).tolist()
    at_half = Precision(DETECTOR, objects, NAMES).metric("map50")
    np.testing.assert_allclose(at_half(outputs, ragged(objects), NUMBERS).per_class, 1)


def test_a_class_of_few_objects_is_not_judged() -> None:
    objects = scenes()
    rare = [held[(held[:, 4] != 2) | (np.arange(len(held)) == 0)] for held in objects]
    few = objects_of(rare, CLASSES)
    assert 0 < few[2] < 5 <= few[:2].min()
    judge = Precision(DETECTOR, rare, NAMES)
    assert judge.left_out == ("c",)
    found = judge.metric("map")(encoded(rare), ragged(rare), NUMBERS)
    np.testing.assert_array_equal(found.per_class, [1, 1, np.nan])
    assert found.harmonic == pytest.approx(1)


def test_without_a_class_of_enough_objects_nothing_is_judged() -> None:
    objects = [held[:1] for held in scenes(2)]
    with pytest.raises(DataError, match=r"no class has 5 objects or more \(2 in all\)"):
        _ = Precision(DETECTOR, objects, NAMES).judged


def test_a_class_that_the_samples_do_not_have_is_refused() -> None:
    objects = scenes()
    outputs = encoded(objects)
    outputs["output0"][0, 0, 5] = 7
    judge = Precision(DETECTOR, objects, NAMES).metric("map")
    with pytest.raises(DataError, match="finds class 7, and the samples have 3"):
        judge(outputs, ragged(objects), NUMBERS)


def test_rows_of_samples_are_measured_as_the_samples_themselves() -> None:
    objects = scenes()
    outputs = encoded([held + np.array([1, 0, 1, 0, 0, 0]) for held in objects])
    metric = Precision(DETECTOR, objects, NAMES).metric("map")
    assert metric.of_rows is not None
    again = metric.of_rows(outputs, ragged(objects))
    for rows in (NUMBERS, np.array([0, 0, 3, 5, 5, 2])):
        held = [objects[k] for k in rows]
        near = encoded([one + np.array([1, 0, 1, 0, 0, 0]) for one in held])
        expected = metric(near, ragged(held), NUMBERS)
        np.testing.assert_allclose(again(rows).per_class, expected.per_class)
