"""Average precision against pycocotools, and what its soft form does between its steps."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from onnxprune.detection.boxes import Found
from onnxprune.detection.precision import average_precision, objects_of, soft_scores
from tests.detection.encoders import CLASSES, scenes


def guesses(objects: list[np.ndarray], seed: int) -> list[Found]:
    """Boxes near the true ones, some lost, some of another class, and some where nothing is."""
    rng = np.random.default_rng(seed)
    result = []
    for held in objects:
        near = held[rng.random(len(held)) < 0.8]
        boxes = near[:, :4] + rng.normal(0, 2, (len(near), 4))
        extra = scenes(1, 3, int(rng.integers(1000)))[0]
        kinds = np.concatenate([near[:, 4], extra[:, 4]]).astype(np.int64)
        kinds = np.where(rng.random(len(kinds)) < 0.1, (kinds + 1) % CLASSES, kinds)
        result.append(Found(np.concatenate([boxes, extra[:, :4]]), rng.random(len(kinds)), kinds))
    return result


def by_pycocotools(
    found: list[Found], objects: list[np.ndarray], folder: Path, overlaps: np.ndarray
) -> np.ndarray:
    """The same from files, as people do it."""
    notes, results = [], []
    for image, held in enumerate(objects):
        for x1, y1, x2, y2, kind, crowd in held.tolist():
            notes.append(
                {
                    "id": len(notes) + 1,
                    "image_id": image,
                    "category_id": int(kind),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": int(crowd),
                }
            )
    for image, one in enumerate(found):
        for (x1, y1, x2, y2), score, kind in zip(
            one.boxes.tolist(), one.scores.tolist(), one.classes.tolist(), strict=True
        ):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image, "category_id": kind, "bbox": box, "score": score})
    truth = {
        "images": [{"id": k} for k in range(len(objects))],
        "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)],
        "annotations": notes,
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "found.json").write_text(json.dumps(results))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(folder / "truth.json"))
        judged = COCOeval(coco, coco.loadRes(str(folder / "found.json")), "bbox")
        judged.params.iouThrs = overlaps
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][:, :, :, 0, 2]
    return np.where(precision < 0, np.nan, precision).mean((0, 1))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("overlaps", [np.linspace(0.5, 0.95, 10), np.array([0.5])])
def test_precision_is_that_of_pycocotools(tmp_path: Path, seed: int, overlaps: np.ndarray) -> None:
    objects = scenes(12, 6, seed)
    objects[3] = objects[3][:0]
    objects[5][::2, 5] = 1  # a crowd: neither found nor missed
    found = guesses(objects, seed)
    expected = by_pycocotools(found, objects, tmp_path, overlaps)
    given = average_precision(found, objects, CLASSES, overlaps.tolist())
    np.testing.assert_allclose(given, expected, atol=1e-9)
    assert 0.05 < given.mean() < 0.95


def test_a_class_without_objects_has_no_precision() -> None:
    objects = [held[held[:, 4] != 1] for held in scenes()]
    given = average_precision(guesses(objects, 0), objects, CLASSES)
    assert np.isnan(given).tolist() == [False, True, False]


def test_nothing_found_is_a_precision_of_zero() -> None:
    nothing = Found(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
    objects = scenes()
    assert average_precision([nothing] * len(objects), objects, CLASSES).tolist() == [0, 0, 0]
    assert soft_scores([nothing] * len(objects), objects, CLASSES).tolist() == [0, 0, 0]


def scaled(found: list[Found], factor: float) -> list[Found]:
    return [Found(one.boxes, one.scores * factor, one.classes) for one in found]


def test_the_soft_form_moves_where_precision_stands_still() -> None:
    objects = scenes()
    found = guesses(objects, 0)
    lower = scaled(found, 0.5)
    np.testing.assert_allclose(
        average_precision(lower, objects, CLASSES), average_precision(found, objects, CLASSES)
    )
    soft = soft_scores(found, objects, CLASSES)
    np.testing.assert_allclose(soft_scores(lower, objects, CLASSES), soft / 2)


def test_the_soft_form_is_overlap_times_score_of_the_true_class() -> None:
    objects = [np.array([[0.0, 0.0, 10.0, 10.0, 2.0, 0.0], [0.0, 0.0, 9.0, 9.0, 0.0, 1.0]])]
    boxes = np.array([[0, 0, 10, 5], [0, 0, 10, 10], [0, 0, 10, 8]], float)
    found = [Found(boxes, np.array([0.9, 1.0, 0.5]), np.array([2, 1, 2]))]
    assert soft_scores(found, objects, 3).tolist() == [0, 0, pytest.approx(0.45)]
    assert objects_of(objects, 3).tolist() == [0, 0, 1]
