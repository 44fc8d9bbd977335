"""Scores and shares of each level, as PicoDet writes them: told apart, read, and their units."""

import numpy as np
import pytest

from onnxprune.detection.levels import from_levels, from_rows, is_levels, is_nano, level_classes
from onnxprune.detection.recognise import Detector
from onnxprune.detection.units import SCORE
from tests.detection.encoders import CLASSES, SIZE, picodet, scenes

RNG = np.random.default_rng(0)
WIDE = (800, 608)
"""Height and width; the cells of 64 pixels reach beyond it."""
CELLS = (7600, 1900, 475, 130)


def levels(classes: int, cells: tuple[int, ...] = CELLS) -> dict[str, tuple[int, ...]]:
    """Scores of all levels, then their boxes, as Paddle exports them."""
    columns = (*([classes] * len(cells)), *([32] * len(cells)))
    rows = zip((*cells, *cells), columns, strict=True)
    return {f"transpose_{k}": (1, *each) for k, each in enumerate(rows)}


@pytest.mark.parametrize("classes", [1, 5, 32, 80])
def test_classes_are_counted(classes: int) -> None:
    assert level_classes(levels(classes)) == classes
    assert is_levels(levels(classes), WIDE, classes)
    assert is_levels(levels(classes, CELLS[:3]), WIDE, classes)
    assert not is_levels(levels(classes), WIDE, classes + 1)


@pytest.mark.parametrize(
    "shapes",
    [
        levels(5, CELLS[:1]),
        levels(5, (7600, 1900, 475, 108)),
        levels(5, CELLS[1:]),
        {**levels(5), "transpose_1": (1, 1900, 6)},
        {**levels(5), "transpose_5": (1, 1900, 64)},
        {**levels(5), "more": (1, 1900, 32)},
        {**levels(5), "more": (1, 5, 20, 20)},
    ],
)
def test_other_outputs_are_no_levels(shapes: dict[str, tuple[int, ...]]) -> None:
    assert not is_levels(shapes, WIDE, 5)


def test_boxes_are_those_of_a_loop_over_cells() -> None:
    shapes = levels(3)
    outputs = {name: RNG.normal(0, 2, shape) for name, shape in shapes.items()}
    boxes, scores = from_levels(dict(reversed(outputs.items())), WIDE)
    place = 0
    for level, stride in enumerate((8, 16, 32, 64)):
        likely, shares = (outputs[f"transpose_{level + 4 * k}"][0] for k in range(2))
        for row in range(-(-WIDE[0] // stride)):
            for column in range(-(-WIDE[1] // stride)):
                own = row * -(-WIDE[1] // stride) + column
                if own % 17 == 0:
                    left, top, right, bottom = (
                        stride
                        * np.average(range(8), weights=np.exp(shares[own][8 * k : 8 * k + 8]))
                        for k in range(4)
                    )
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    wanted = [x - left, y - top, x + right, y + bottom]
                    np.testing.assert_allclose(boxes[0, place + own], wanted)
                    np.testing.assert_array_equal(scores[0, place + own], likely[own])
        place += len(likely)
    assert place == boxes.shape[1] == sum(CELLS)


@pytest.mark.parametrize(("cells", "into"), [(CELLS, 0.0), (CELLS[:3], 0.5)])
def test_rows_of_all_levels_are_those_of_a_loop_over_cells(
    cells: tuple[int, ...], into: float
) -> None:
    """As NanoDet-Plus reads its output, and NanoDet that of three levels."""
    rows = RNG.normal(0, 2, (1, sum(cells), 5 + 32))
    boxes, scores = from_rows({"output": rows}, WIDE)
    np.testing.assert_array_equal(scores, rows[..., :5])
    places = (
        (stride, row, column)
        for stride in (8, 16, 32, 64)[: len(cells)]
        for row in range(-(-WIDE[0] // stride))
        for column in range(-(-WIDE[1] // stride))
    )
    for place, (stride, row, column) in enumerate(places):
        if place % 37 == 0:
            x, y = (column + into) * stride, (row + into) * stride
            e = np.exp(rows[0, place, 5:].reshape(4, 8))
            left, top, right, bottom = (e @ np.arange(8)) / e.sum(1) * stride
            np.testing.assert_allclose(boxes[0, place], [x - left, y - top, x + right, y + bottom])


@pytest.mark.parametrize(
    ("shape", "fits"),
    [
        ((1, 10105, 37), True),
        ((1, 9975, 37), True),
        ((1, 9975, 36), False),
        ((1, 9500, 37), False),
        ((1, 37, 9975), False),
    ],
)
def test_rows_of_all_levels_are_as_many_as_cells(shape: tuple[int, ...], *, fits: bool) -> None:
    assert is_nano({"output": shape}, WIDE, 5) == fits
    assert not is_nano({"output": shape, "more": shape}, WIDE, 5)
    assert not is_nano({"output": (*shape[:2], 32)}, WIDE, 0)


def test_each_level_counts_by_its_own_places() -> None:
    outputs = picodet(scenes())
    found = Detector("picodet", SIZE, CLASSES).units(outputs)
    assert found.keys() == outputs.keys()
    sure = np.sqrt(outputs["transpose_8"].max(-1, keepdims=True))
    scores = np.broadcast_to(sure / SCORE, outputs["transpose_8"].shape)
    np.testing.assert_allclose(found["transpose_8"], scores, rtol=1e-6)
    there = (sure > 0)[..., 0]
    assert (found["transpose_8_box"].max(-1) > 0)[there].all()
    assert not found["transpose_8_box"][~there].any()
    for stride in (16, 32, 64):
        assert not found[f"transpose_{stride}"].any()
        assert not found[f"transpose_{stride}_box"].any()


def test_of_as_many_columns_scores_come_first() -> None:
    outputs = {name: RNG.random(shape) for name, shape in levels(32).items()}
    first = [outputs[f"transpose_{level}"] for level in range(4)]
    np.testing.assert_array_equal(from_levels(outputs, WIDE)[1], np.concatenate(first, 1))
