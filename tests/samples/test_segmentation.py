"""The segmentation sample: as good, small and honest as it says; its program runs."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from PIL import Image
from sklearn.metrics import jaccard_score

import onnxprune
from onnxprune.samples import segmentation
from onnxprune.samples.fashion_mnist.train import LabelledImages
from onnxprune.samples.segmentation import train

MEGABYTE = 2**20
BLOCK = 4096
PARTS = {"reference": (segmentation.REFERENCE, 40), "test": (segmentation.TEST, 60)}


def pictures(folder: Path) -> np.ndarray:
    """All pictures of a folder. Shapes: [N, H, W]."""
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def iou(model: Path, folder: Path) -> np.ndarray:
    """The IoU of every class, by onnxruntime and scikit-learn. Shapes: [classes]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    images, maps = pictures(folder / "images"), pictures(folder / "masks")
    given = session.run(None, {"image": images[:, None] / np.float32(255)})[0].argmax(1)
    valid, labels = maps != train.IGNORED, range(len(train.CLASSES))
    return np.asarray(jaccard_score(maps[valid], given[valid], labels=labels, average=None))


# ---------------------------------------------------------------------------- the shipped sample


@pytest.mark.parametrize("part", PARTS)
def test_shipped_model_finds_every_class(part: str) -> None:
    shares = iou(segmentation.MODEL, PARTS[part][0])
    assert shares.mean() >= 0.78
    assert shares.min() >= 0.65


def test_shipped_scenes_are_different_and_complete() -> None:
    seen = set()
    for folder, count in PARTS.values():
        images, maps = pictures(folder / "images"), pictures(folder / "masks")
        assert images.shape == maps.shape == (count, train.SIDE, train.SIDE)
        assert set(np.unique(maps).tolist()) == {*range(len(train.CLASSES)), train.IGNORED}
        assert (folder / "classes.txt").read_text().split() == list(train.CLASSES)
        seen |= {hashlib.sha256(image.tobytes()).hexdigest() for image in images}
    assert len(seen) == sum(count for _, count in PARTS.values())


def test_shipped_sample_is_small_even_on_disk() -> None:
    files = [segmentation.MODEL, *segmentation.MODEL.parent.rglob("*.png")]
    sizes = [path.stat().st_size for path in files]
    assert sum(sizes) < MEGABYTE
    assert sum(-(-size // BLOCK) * BLOCK for size in sizes) < 2 * MEGABYTE


@pytest.mark.slow
def test_shipped_model_is_pruned_by_its_iou(tmp_path: Path) -> None:
    ask = {"metric": "mean-iou", "device": "cpu", "threads": 1}
    result = onnxprune.prune(
        segmentation.MODEL, segmentation.REFERENCE, rate=0.1, round_to=1, **ask
    )
    onnx.save(result.model, tmp_path / "pruned.onnx")
    after = result.report["after"]["accuracy"]["per_class"]
    expected = iou(tmp_path / "pruned.onnx", segmentation.REFERENCE)
    np.testing.assert_allclose(after, expected, atol=2e-3)
    assert result.report["rate"] == pytest.approx(0.1, abs=0.01)
    lost = iou(segmentation.MODEL, segmentation.TEST) - iou(
        tmp_path / "pruned.onnx", segmentation.TEST
    )
    assert lost.mean() <= 0.02


# ------------------------------------------------------------------------------------------- train


def test_the_last_garment_of_a_scene_lies_on_top() -> None:
    rng = np.random.default_rng(0)
    images = np.repeat(np.array([10, 200], np.uint8), 2)[:, None, None] * np.ones(
        (4, 28, 28), np.uint8
    )
    garments = LabelledImages(images, np.array([0, 1, 2, 3]))
    scenes = train.compose(garments, 20, rng)
    clear = (scenes.maps != 0) & (scenes.maps != train.IGNORED)
    assert set(np.unique(scenes.maps[clear]).tolist()) == {3, 4}, "10 is fainter than what counts"
    assert (scenes.images[clear] == 200).all()
    assert (scenes.images[scenes.maps == train.IGNORED] == 10).all()
    shown = (scenes.maps != 0).sum((1, 2))
    assert (shown >= 28 * 28).all()
    assert (shown <= 3 * 28 * 28).all()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An extracted package like that of npm, with few images in each class."""
    rng = np.random.default_rng(7)
    clothes = tmp_path / "package" / "src" / "clothes"
    clothes.mkdir(parents=True)
    for label in range(10):
        rows = rng.integers(0, 256, (12, 784)).tolist()
        (clothes / f"{label}.json").write_text(json.dumps({"data": rows}))
    return tmp_path


SMALL = ["--epochs", "1", "--scenes", "32", "--held-out", "3", "--rate", "0.1"]
SMALL += ["--reference-scenes", "6", "--test-scenes", "5"]


# the classic exporter announces its end, and torch 2.13 warns about its own pytree
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_program_trains_prunes_and_compares(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One epoch on noise teaches nothing, so the baseline is trusted."""
    monkeypatch.setattr("onnxprune.search.baseline.find_problem", lambda *given: None)
    out = tmp_path / "out"
    result = CliRunner().invoke(train.main, ["--data", str(package), *SMALL, "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "training on 30 garments, 15 held out for the test, 15 for reference" in result.output
    for column, name in enumerate(("model", "pruned")):
        lines = [
            re.search(rf"^{kind} +(\S+) +(\S+)$", result.output, re.M) for kind in train.CLASSES
        ]
        given = [float(line[1 + column]) if line else np.nan for line in lines]
        np.testing.assert_allclose(given, iou(out / f"{name}.onnx", out / "test"), atol=2e-3)
    assert "IoU on 5 test scenes" in result.output
    assert len(pictures(out / "reference" / "masks")) == 6
    made, shipped = onnx.load(out / "model.onnx"), onnx.load(segmentation.MODEL)
    assert [node.name for node in made.graph.node] == [node.name for node in shipped.graph.node]
    assert {node.op_type for node in made.graph.node} >= {"Concat", "ConvTranspose", "Resize"}
