"""The error of an output: relative to what its channel holds."""

import numpy as np
import pytest

from onnxprune.deploy.outputs import Deviation

EXPECTED = np.array([[[640.0, 320.0], [0.5, 0.9]]])  # boxes in pixels, scores


def deviation(
    found: np.ndarray, expected: np.ndarray = EXPECTED, *, jumps: bool = False
) -> Deviation:
    one = Deviation("y", jumps=jumps)
    one.add(found, expected)
    return one


def test_a_score_beside_boxes_is_held_against_scores() -> None:
    found = EXPECTED.copy()
    found[0, 1, 0] += 0.05
    one = deviation(found)
    assert one.absolute == pytest.approx(0.05)
    assert one.relative == pytest.approx(0.05 / 6.4)
    assert one.problem(1e-3) == "output 'y' is off by 0.05 (0.0078 of it)"
    assert one.problem(1e-2) == ""


def test_a_class_that_never_occurs_does_not_count_its_rounding() -> None:
    expected = np.array([[[1.0], [1e-7]]])
    one = deviation(expected + np.array([[[0], [1e-7]]]), expected)
    assert one.relative == pytest.approx(1e-5)


def test_class_scores_have_one_scale() -> None:
    one = deviation(np.array([[10.0, 0.01]]), np.array([[10.0, 0.02]]))
    assert one.relative == pytest.approx(1e-3)


def test_axes_of_one_position_do_not_matter_others_do() -> None:
    assert deviation(EXPECTED[0]).problem(1e-6) == ""
    one = deviation(EXPECTED[..., :1])
    assert one.problem(1e9) == "output 'y' is [1, 2, 1], expected [1, 2, 2]"
    assert one.absolute == float("inf")


def test_infinity_and_nan_are_right_where_they_are_expected() -> None:
    expected = np.array([[np.inf, np.nan, -np.inf, 2.0]])
    assert deviation(expected.copy(), expected).relative == 0
    assert deviation(np.array([[1.0, np.nan, -np.inf, 2.0]]), expected).absolute == float("inf")
    assert deviation(np.array([[np.nan, 1.0]]), np.array([[1.0, 1.0]])).absolute == float("inf")


def test_the_largest_error_of_all_runs_counts() -> None:
    one = deviation(EXPECTED * 1.1)
    one.add(EXPECTED, EXPECTED)
    assert one.relative == pytest.approx(0.1)


def test_an_output_that_jumps_may_differ_in_a_few_places() -> None:
    expected = np.arange(100)[None]
    found = expected.copy()
    found[0, :2] = 50
    assert deviation(found, expected, jumps=True).problem(1e-3) == ""
    found[0, :3] = 50
    assert deviation(found, expected, jumps=True).problem(1e-3) == "output 'y' differs in 3%"
    assert deviation(found[:, :9], expected, jumps=True).problem(1e-3) != ""


def test_nothing_selected_is_nothing_wrong() -> None:
    none = np.zeros((0, 6))
    assert deviation(none, none, jumps=True).problem(1e-3) == ""
