"""Heads: what is encoded as a detector writes it is found again, and the head is recognised."""

import re
from pathlib import Path

import numpy as np
import pytest

from onnxprune.detection.heads import HEADS, cells
from onnxprune.detection.precision import average_precision
from onnxprune.detection.recognise import FITS, HEAD_NAMES, Detector, find_detector
from onnxprune.errors import DataError, UnknownName
from tests.detection.encoders import (
    ANCHORS,
    CLASSES,
    ENCODERS,
    FACES,
    GRID,
    SIZE,
    Encoded,
    Objects,
    scenes,
    yolox,
)

TRUTH = scenes()


def known(head: str, objects: Objects = TRUTH) -> tuple[Objects, int]:
    """The objects as a head knows them, and how many classes it has."""
    if head != FACES:
        return objects, CLASSES
    return [np.concatenate([one[:, :4], 0 * one[:, 4:]], 1) for one in objects], 1


def shapes(outputs: Encoded) -> dict[str, list[int | None]]:
    """The shapes as a graph states them: those of one image where images differ."""
    return {
        name: [None, *array[0].shape[1:]] if array.dtype == object else list(array.shape)
        for name, array in outputs.items()
    }


@pytest.mark.parametrize("name", ENCODERS)
def test_what_is_encoded_is_recognised_and_found(name: str) -> None:
    head, encode = ENCODERS[name]
    truth, classes = known(head)
    outputs = encode(truth)
    detector = find_detector(shapes(outputs), SIZE, classes, anchors=ANCHORS)
    assert detector.head == head
    found = detector(outputs)
    np.testing.assert_allclose(average_precision(found, truth, classes), 1.0)
    assert [len(one.boxes) for one in found] == [len(held) for held in TRUTH]


@pytest.mark.parametrize("name", ENCODERS)
def test_a_lost_object_costs_its_class_alone(name: str) -> None:
    head, encode = ENCODERS[name]
    truth, classes = known(head)
    outputs = encode([truth[0][1:], *truth[1:]])
    found = find_detector(shapes(outputs), SIZE, classes, anchors=ANCHORS)(outputs)
    precision = average_precision(found, truth, classes)
    lost = np.arange(classes) == truth[0][0, 4]
    assert (precision[lost] < 1).all()
    np.testing.assert_allclose(precision[~lost], 1.0)


def test_every_head_has_a_rule_an_encoder_and_a_line() -> None:
    assert HEADS.keys() == FITS.keys() == {head for head, _ in ENCODERS.values()}
    assert set(HEADS) < set(HEAD_NAMES)
    text = Path("onnxprune/detection/heads.py").read_text("utf-8")
    assert re.findall(r"^    ([a-z0-9-]+)  +\[", text, re.M) == list(HEADS)


@pytest.mark.parametrize(
    ("outputs", "classes", "said"),
    [
        ({"x": (1, 10)}, 3, "no head that is known fits x [1, 10] of 3 classes"),
        ({"output0": (1, 84, GRID)}, 3, f"no head that is known fits output0 [1, 84, {GRID}]"),
        ({"o": (1, 3 * GRID, 85)}, 3, "no head that is known fits"),
        ({"o": (1, 300, 6)}, 2, "heads end-to-end and rt-detr fit o [1, 300, 6] of 2 classes"),
    ],
)
def test_none_or_several_are_refused_in_one_line(
    outputs: dict[str, tuple[int, ...]], classes: int, said: str
) -> None:
    with pytest.raises(DataError, match=re.escape(said)) as error:
        find_detector(outputs, SIZE, classes)
    assert "--head" in str(error.value)
    assert "\n" not in str(error.value)


def test_maps_without_their_anchors_are_refused_in_one_line() -> None:
    outputs = ENCODERS["yolov5-maps"][1](TRUTH)
    for anchors, said in (((), "has none"), (ANCHORS[:6], "has 6 numbers")):
        with pytest.raises(DataError, match=f"{said}; write it 18 as 'anchors'"):
            find_detector(shapes(outputs), SIZE, CLASSES, anchors=anchors)


def test_an_ambiguous_head_can_be_named() -> None:
    assert find_detector({"o": (1, 300, 6)}, SIZE, 2, head="rt-detr").head == "rt-detr"


def test_a_named_head_must_read_the_outputs() -> None:
    with pytest.raises(DataError, match=r"head 'ssd': does not read"):
        find_detector({"o": (1, 300, 6)}, SIZE, 2, head="ssd")
    with pytest.raises(UnknownName, match=r"head 'yolo8': unknown; .*did you mean 'yolov8'"):
        find_detector({"o": (1, 300, 6)}, SIZE, 2, head="yolo8")


def test_masks_and_points_behind_the_scores_are_passed_over() -> None:
    outputs = ENCODERS["yolov8"][1](TRUTH)
    more = np.random.default_rng(0).normal(size=(len(TRUTH), 32, GRID))
    wide = {"output0": np.concatenate([outputs["output0"], more], 1)}
    detector = find_detector(shapes(wide), SIZE, CLASSES, task="segment")
    np.testing.assert_allclose(average_precision(detector(wide), TRUTH, CLASSES), 1.0)


def test_a_function_decodes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def decode(outputs, size):\n"
        "    assert size == (96, 128)\n"
        "    return [(r[r[:, 4] > 0, :4], r[r[:, 4] > 0, 4], r[r[:, 4] > 0, 5])"
        " for r in outputs['output0']]\n"
        "def short(outputs, size):\n    return [([[0, 0, 1, 1]], [0.5], [])]\n"
    )
    outputs = ENCODERS["end-to-end"][1](TRUTH)
    own = find_detector(shapes(outputs), SIZE, CLASSES, head=f"{tmp_path}/mine.py:decode")
    np.testing.assert_allclose(average_precision(own(outputs), TRUTH, CLASSES), 1.0)
    short = find_detector(shapes(outputs), SIZE, CLASSES, head=f"{tmp_path}/mine.py:short")
    with pytest.raises(DataError, match="1 boxes, 1 scores, 0 classes; expected a function"):
        short(outputs)


def test_cells_round_up() -> None:
    assert cells((100, 60), (8, 16)) == 13 * 8 + 7 * 4


@pytest.mark.parametrize("decoded", [False, True])
def test_values_tell_yolox_from_a_turned_yolov8_of_a_class_more(decoded: bool) -> None:
    """Shapes do not: the score of an object may be that of a class."""
    outputs = yolox(TRUTH, decoded=decoded)
    heads = [find_detector(shapes(outputs), SIZE, k) for k in (3, 4)]
    assert [one.head for one in heads] == ["yolox", "yolov8"]
    assert [one.shows(outputs) for one in heads] == [True, False]
    turned = {"y": np.concatenate([outputs["output"][..., :4], outputs["output"][..., 5:]], 2)}
    two = find_detector(shapes(turned), SIZE, 2)
    assert two.head == "yolox" and not two.shows(turned)


@pytest.mark.parametrize("what", ["everywhere", "far away", "without sides", "huge"])
def test_other_rows_of_these_shapes_are_no_boxes(what: str) -> None:
    outputs = yolox(TRUTH, decoded=True)
    rows = outputs["output"]
    if what == "everywhere":
        rows[..., 4:] = 1
    elif what == "far away":
        rows[..., :2] += 300
    elif what == "without sides":
        rows[..., 2:4] *= 0.01
    else:
        rows[..., 2:4] *= 50
    assert not Detector("yolox", SIZE, 3).shows(outputs)
