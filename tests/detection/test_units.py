"""What a change of a detector's numbers is measured in."""

import numpy as np
import pytest

from onnxprune.detection import units
from onnxprune.detection.heads import HEADS
from onnxprune.detection.recognise import Detector
from onnxprune.detection.units import SCORE, SIDE
from tests.detection.encoders import ANCHORS, CLASSES, Encoded, scenes, yolov5_maps, yolov8_maps
from tests.detection.encoders import SIZE as WIDE

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


# Maps of each level


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def blurred(outputs: Encoded) -> Encoded:
    return {name: one + RNG.normal(0, 1, one.shape) for name, one in outputs.items()}


def test_maps_of_shares_count_by_their_mean() -> None:
    """Each side is the mean of its shares, in cells; a logit by its score's slope."""
    outputs = blurred(yolov8_maps(scenes()))
    detector = Detector("yolov8-maps", WIDE, CLASSES)
    found = detector.units(outputs)
    assert found.keys() == outputs.keys()
    boxes = HEADS["yolov8-maps"].raw(outputs, WIDE, CLASSES)[0]
    start = 0
    for name, stride in (("p8", 8), ("p16", 16), ("p32", 32)):
        maps, own_units = (one[name].reshape(*one[name].shape[:2], -1) for one in (outputs, found))
        p = sigmoid(maps[:, 64:])
        sure = np.sqrt(p.max(1, keepdims=True))
        np.testing.assert_allclose(own_units[:, 64:], sure * p * (1 - p) / SCORE, rtol=3e-3)
        share = np.exp(maps[:, :64].reshape(len(maps), 4, 16, -1))
        share /= share.sum(2, keepdims=True)
        bins = np.arange(16)[:, None]
        slope = share * (bins - (share * bins).sum(2, keepdims=True)) * stride
        own = boxes[:, start : start + maps.shape[2]].transpose(0, 2, 1)
        extent = np.tile(own[:, 2:] - own[:, :2], (1, 2, 1)).clip(1)
        wanted = sure * np.abs((slope / extent[:, :, None] / SIDE).reshape(len(maps), 64, -1))
        np.testing.assert_allclose(own_units[:, :64], wanted, rtol=3e-3, atol=1e-3 * wanted.max())
        start += maps.shape[2]


def test_shares_and_scores_apart_count_as_together() -> None:
    outputs = blurred(yolov8_maps(scenes()))
    detector = Detector("yolov8-maps", WIDE, CLASSES)
    apart = {f"{name} cls": one[:, 64:] for name, one in outputs.items()}
    apart |= {f"{name} box": one[:, :64] for name, one in outputs.items()}
    together, found = detector.units(outputs), detector.units(apart)
    for name in outputs:
        both = np.concatenate([found[f"{name} box"], found[f"{name} cls"]], 1)
        np.testing.assert_allclose(both, together[name])


def test_maps_of_anchors_count_by_the_box_of_each_anchor() -> None:
    outputs = blurred(yolov5_maps(scenes()))
    detector = Detector("yolov5-maps", WIDE, CLASSES, ANCHORS)
    found = detector.units(outputs)
    for name, stride in (("p8", 8), ("p16", 16), ("p32", 32)):
        each, own_units = (one[name].reshape(6, 3, 8, -1) for one in (outputs, found))
        p, widths = sigmoid(each), np.reshape(ANCHORS[::2], (3, 3))[0, :, None]
        scores = p[:, :, 5:] * p[:, :, 4:5]
        sure, extent = np.sqrt(scores.max(2)), ((2 * p[:, :, 2]) ** 2 * widths).clip(1)
        slope = 2 * (p * (1 - p))[:, :, 0] * stride
        np.testing.assert_allclose(
            own_units[:, :, 0], sure * np.sqrt(2) * slope / extent / SIDE, rtol=3e-3, atol=1e-12
        )
        object_ = np.sqrt(((scores * (1 - p[:, :, 4:5])) ** 2).sum(2))
        np.testing.assert_allclose(own_units[:, :, 4], sure * object_ / SCORE, rtol=3e-3)


def test_samples_may_be_read_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = blurred(yolov8_maps(scenes()))
    wide = np.concatenate([V8, RNG.normal(0, 7, (3, 5, 84))], 1)
    asked = (
        (Detector("yolov8-maps", WIDE, CLASSES), outputs),
        (Detector("yolov8", SIZE, 3), {"y": wide}),
    )
    whole = [detector.units(given) for detector, given in asked]
    monkeypatch.setattr(units, "AT_ONCE", 2)
    for (detector, given), wanted in zip(asked, whole, strict=True):
        found = detector.units(given)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])


def test_numbers_last_count_as_channels() -> None:
    outputs = blurred(yolov5_maps(scenes()))
    detector = Detector("yolov5-maps", WIDE, CLASSES, ANCHORS)
    last = {
        name: one.reshape(len(one), 3, -1, *one.shape[2:]).transpose(0, 1, 3, 4, 2)
        for name, one in outputs.items()
    }
    first, found = detector.units(outputs), detector.units(last)
    for name, one in first.items():
        wanted = one.reshape(len(one), 3, -1, *one.shape[2:]).transpose(0, 1, 3, 4, 2)
        np.testing.assert_array_equal(found[name], wanted)
