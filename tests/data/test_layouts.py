"""Folders that hold no class folders are recognised, and not read as if they did."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxprune
from onnxprune.data import load_data
from onnxprune.errors import DataError
from tests.support.coloured import folder, network
from tests.support.samples import refused

SHAPE = (3, 8, 8)


def write(*files: Path) -> None:
    """Write an image, or a file of text, at each place."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix in (".png", ".jpg"):
            Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
        else:
            file.write_text("0 0.5 0.5 0.1 0.1\n")


COCO = json.dumps({"info": {}, "images": [{"id": 1}], "annotations": [], "categories": []})


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (("images/1.jpg", "labels/1.txt"), r"a YOLO data set \(images/ and labels/\)"),
        (("images/train/1.jpg", "labels/train/1.txt"), "a YOLO data set"),
        (("train/images/1.jpg", "train/labels/1.txt", "data.yaml"), r"train/images and train/lab"),
        (("images/1.jpg", "annotations.json"), r"a COCO data set \(annotations.json\)"),
        (("train2017/1.jpg", "annotations/instances_val2017.json"), "a COCO data set"),
        (("train/1.jpg", "train/_annotations.coco.json"), "a COCO data set"),
        (("JPEGImages/1.jpg", "Annotations/1.xml"), "a Pascal VOC data set"),
        (("train/1.jpg", "train/1.xml"), "a Pascal VOC data set"),
    ],
)
def test_data_for_detectors_are_refused(files: tuple[str, ...], seen: str, tmp_path: Path) -> None:
    write(*(tmp_path / file for file in files))
    for file in tmp_path.rglob("*.json"):
        file.write_text(COCO)
    line = refused(f"looks like .*{seen}", tmp_path, SHAPE)
    assert "its labels are boxes, not classes; give a folder with one folder of images per" in line


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "test2017", "validation")])
def test_parts_of_a_data_set_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        folder(tmp_path / name, each=1)
    line = refused("holds the parts .* of a data set, not classes; give one", tmp_path, SHAPE)
    assert line.endswith(str(tmp_path / sorted(names)[0]))


def test_a_single_part_is_no_class(tmp_path: Path) -> None:
    folder(tmp_path / "train", each=1)
    refused("holds the parts train of a data set", tmp_path, SHAPE)


def test_classes_beside_a_class_named_as_a_part_are_read(tmp_path: Path) -> None:
    write(tmp_path / "test" / "1.png", tmp_path / "car" / "2.png")
    assert load_data(tmp_path, shape=SHAPE).classes == ("car", "test")


def test_images_without_folders_have_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "1.png", tmp_path / "2.png")
    found = load_data(tmp_path, shape=SHAPE)
    assert len(found) == 2
    assert not found.labelled
    assert found.classes == ("all",)


def test_images_without_labels_may_lie_anywhere(tmp_path: Path) -> None:
    write(tmp_path / "1.png", tmp_path / "labels" / "1.txt", tmp_path / "images" / "2.png")
    assert len(load_data(tmp_path, shape=SHAPE, labelled=False)) == 2


def test_json_of_other_kinds_is_no_coco(tmp_path: Path) -> None:
    write(tmp_path / "a" / "1.png", tmp_path / "b" / "2.png")
    (tmp_path / "about.json").write_text('{"licence": "free"}')
    assert len(load_data(tmp_path, shape=SHAPE)) == 2


def test_one_class_is_refused_before_a_run(tmp_path: Path) -> None:
    write(tmp_path / "set" / "images" / "1.png")
    with pytest.raises(DataError, match=r"one class folder only \('images'\), which does not show"):
        onnxprune.prune(network(), tmp_path / "set", threads=1)


def test_classes_that_lie_deeper_are_named(tmp_path: Path) -> None:
    folder(tmp_path / "set" / "images", each=1)
    with pytest.raises(DataError, match=r"its only folder images/ holds 0_blue, 1_brown, 2_green"):
        onnxprune.compare(network(), network(), tmp_path / "set", threads=1)
