"""Without labels a detector's boxes say how its pixels are scaled, and a guess is said."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest

from onnxprune.data import Data
from onnxprune.errors import NOTICE
from onnxprune.graph import Graph
from onnxprune.samples import detection
from onnxprune.search import detectors, open_model
from onnxprune.search.detectors import scaling_of_boxes
from tests.search.test_detectors import MODEL, SETTINGS, named


def opened(folder: Path, model: object = None, **more: object) -> Data:
    _, samples = open_model(model or named(), folder, SETTINGS.changed(**more))
    assert samples is not None
    return samples


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some images of the sample without their annotations."""
    folder = tmp_path_factory.mktemp("images")
    found = sorted(p for p in detection.REFERENCE.rglob("*") if p.suffix in (".png", ".jpg"))
    for file in found[:12]:
        shutil.copy(file, folder)
    return folder


def test_the_preset_by_which_a_head_finds_boxes_is_taken(
    images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(NOTICE, "onnxprune"):
        samples = opened(images)
    assert samples.preprocess == "unit"
    assert "preprocess: 'unit', by which head 'yolov8' finds" in caplog.text
    assert samples.detector is not None


@pytest.mark.parametrize("told", [{"preprocess": "imagenet"}, {"model": MODEL}])
def test_what_is_given_or_said_is_no_guess(
    told: dict[str, object], images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(NOTICE, "onnxprune"):
        samples = opened(images, **told)
    assert samples.preprocess == told.get("preprocess", "unit")
    assert "preprocess" not in caplog.text


def test_a_guess_without_labels_is_said(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing is found by any preset the usual one is taken, and a line says so."""
    from PIL import Image

    grey = np.random.default_rng(0).integers(120, 136, (4, 96, 96, 3), np.uint8)
    for number, one in enumerate(grey):
        Image.fromarray(one).save(tmp_path / f"{number}.png")
    with caplog.at_level(logging.INFO, "onnxprune"):
        assert opened(tmp_path).preprocess == "imagenet"
    said = [one for one in caplog.records if "preprocess" in one.getMessage()]
    assert [one.levelno for one in said] == [NOTICE]
    assert "the usual one, as the model does not say" in said[0].getMessage()


@pytest.mark.parametrize(("counts", "preset"), [((4, 0), None), ((5, 10), "unit"), ((5, 11), None)])
def test_a_few_boxes_say_nothing(
    counts: tuple[int, int], preset: str | None, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do fewer than half of those that the usual preset finds."""
    samples, found = opened(images, preprocess="imagenet"), iter(counts)
    monkeypatch.setattr(detectors, "_count_boxes", lambda *_: next(found))
    better = scaling_of_boxes(Graph(named()), samples, SETTINGS)
    assert (better.preset if better else None) == preset
