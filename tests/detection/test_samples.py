"""Samples of a detector: images on what it sees, and objects where their pixels are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onnxprune.data import Streamed
from onnxprune.detection import Detector, load_objects
from onnxprune.detection.annotations import Annotated

SIDES = ((60, 30), (30, 60), (64, 64))


def drawn(folder: Path) -> Annotated:
    """Black images with one white box each. Units: pixels of the files."""
    files, objects = [], []
    for number, (width, height) in enumerate(SIDES):
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[10:20, 5:25] = 255
        files.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
        objects.append(np.array([[5.0, 10.0, 25.0, 20.0, 0.0, 0.0]]))
    return Annotated(tuple(files), tuple(objects), ("box",), "drawn")


@pytest.mark.parametrize("head", ["yolov8", "yolox", "detr"])
@pytest.mark.parametrize("last", [False, True], ids=["NCHW", "NHWC"])
def test_objects_lie_where_their_pixels_are(tmp_path: Path, head: str, last: bool) -> None:
    detector = Detector(head, (48, 96), 1)
    shape = (48, 96, 3) if last else (3, 48, 96)
    data = load_objects(drawn(tmp_path), detector, shape, np.float32, "raw")
    assert data.detector is detector
    assert data.classes == ("box",)
    assert data.targets is not None
    images = np.asarray(data.x)
    grey = images[..., 0] if last else images[:, 0]
    for image, held in zip(grey, data.targets, strict=True):
        rows, columns = np.nonzero(image > 180)
        found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(held[0, :4], found, atol=1.01)
        assert held[0, 4:].tolist() == [0, 0]


def test_images_that_do_not_fit_are_decoded_when_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, detector = drawn(tmp_path), Detector("yolov8", (32, 32), 1)
    held = load_objects(found, detector, (3, 32, 32), "f4", "raw")
    monkeypatch.setattr("onnxprune.memory.LITTLE", 0)
    monkeypatch.setattr("onnxprune.memory.SHARE", 0)
    data = load_objects(found, detector, (3, 32, 32), "f4", "raw")
    assert isinstance(data.x, Streamed)
    np.testing.assert_array_equal(np.asarray(data.x), held.x)
