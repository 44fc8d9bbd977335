"""The detection sample: as good and small as it says; its program runs."""

import hashlib
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import onnxprune
from onnxprune.detection import find_detector, read_annotations
from onnxprune.detection.precision import average_precision
from onnxprune.samples import detection
from onnxprune.samples.detection import train

MEGABYTE = 2**20
PARTS = {"reference": (detection.REFERENCE, 40), "test": (detection.TEST, 100)}


def precision(model: Path, folder: Path) -> np.ndarray:
    """The average precision of every class, by onnxruntime. Shapes: [classes]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    found = read_annotations(folder)
    images = np.stack([np.asarray(Image.open(file)) for file in found.files])
    feed = images.transpose(0, 3, 1, 2).astype(np.float32) / 255
    outputs = {"output0": session.run(None, {"images": feed})[0]}
    shapes = {name: array.shape for name, array in outputs.items()}
    detector = find_detector(shapes, (train.SIDE, train.SIDE), len(train.CLASSES))
    return average_precision(detector(outputs), found.objects, len(train.CLASSES))


@pytest.mark.parametrize("part", PARTS)
def test_shipped_model_finds_every_class(part: str) -> None:
    shares = precision(detection.MODEL, PARTS[part][0])
    assert shares.mean() >= 0.88
    assert shares.min() >= 0.82


def test_shipped_scenes_are_different_and_complete() -> None:
    seen = set()
    for folder, count in PARTS.values():
        found = read_annotations(folder)
        assert len(found.files) == count
        assert found.classes == train.CLASSES
        kinds = {int(k) for held in found.objects for k in held[:, 4]}
        assert kinds == set(range(len(train.CLASSES)))
        seen |= {hashlib.sha256(file.read_bytes()).hexdigest() for file in found.files}
    assert len(seen) == sum(count for _, count in PARTS.values())


def test_shipped_sample_is_small() -> None:
    files = [path for path in detection.MODEL.parent.rglob("*.*") if path.suffix != ".py"]
    assert sum(path.stat().st_size for path in files) < 2 * MEGABYTE


@pytest.mark.slow
def test_shipped_model_is_pruned_by_its_precision(tmp_path: Path) -> None:
    ask = {"device": "cpu", "threads": 1, "aim": "macs", "round_to": 8}  # on whatever CPU
    result = onnxprune.prune(detection.MODEL, detection.REFERENCE, macs=0.8, **ask)
    onnx.save(result.model, tmp_path / "pruned.onnx")
    assert result.report["metric"] == "map"
    after = result.report["after"]["accuracy"]["per_class"]
    expected = precision(tmp_path / "pruned.onnx", detection.REFERENCE)
    np.testing.assert_allclose(after, expected, atol=5e-3)
    lost = precision(detection.MODEL, detection.TEST) - precision(
        tmp_path / "pruned.onnx", detection.TEST
    )
    assert lost.mean() <= 0.06


# ------------------------------------------------------------------------------------------- train


def test_a_scene_holds_what_its_labels_say() -> None:
    scenes = train.compose(20, np.random.default_rng(0))
    counts = (scenes.objects[..., 4] >= 0).sum(1)
    assert ((counts >= 1) & (counts <= train.MOST)).all()
    for held in scenes.objects:
        boxes = held[held[:, 4] >= 0, :4]
        assert (boxes[:, 2:] > boxes[:, :2]).all() and (boxes >= 0).all()
        assert (boxes <= train.SIDE).all()
        for one in range(len(boxes)):
            low = np.maximum(boxes[one, :2], boxes[:, :2])
            high = np.minimum(boxes[one, 2:], boxes[:, 2:])
            assert ((high - low).min(1) > 0).sum() == 1, "it touches itself alone"


def test_every_object_has_a_cell_that_is_to_find_it() -> None:
    scenes = train.compose(20, np.random.default_rng(1))
    boxes, kinds = train.assign(torch.from_numpy(scenes.objects))
    for held, cells, classes in zip(scenes.objects, boxes, kinds, strict=True):
        for *box, kind in held[held[:, 4] >= 0].tolist():
            same = np.isclose(cells.numpy().T, box).all(1)
            assert same.any()
            assert (classes.numpy()[same & (classes.numpy() >= 0)] == kind).all()


SMALL = ["--epochs", "1", "--scenes", "32", "--macs", "0.9"]
SMALL += ["--reference-scenes", "12", "--test-scenes", "10"]


# the classic exporter announces its end, and torch 2.13 warns about its own pytree
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_program_trains_prunes_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch teaches nothing, so the baseline is trusted."""
    monkeypatch.setattr("onnxprune.search.baseline.find_problem", lambda *given: None)
    out = tmp_path / "out"
    result = CliRunner().invoke(train.main, [*SMALL, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "mAP on 10 test scenes" in result.output
    assert re.search(r"^macs +38,200,320 +\d", result.output, re.M)
    made, shipped = onnx.load(out / "model.onnx"), onnx.load(detection.MODEL)
    kinds = [{node.op_type for node in model.graph.node} for model in (made, shipped)]
    assert kinds[1] <= kinds[0] <= kinds[1] | {"Identity"}, "untrained biases are alike"
    assert (out / "reference" / "data.yaml").read_text() == (
        detection.REFERENCE / "data.yaml"
    ).read_text()
