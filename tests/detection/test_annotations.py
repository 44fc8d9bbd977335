"""Annotations: the same objects come back from every layout; what is wrong is said in one line."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from onnxprune.detection.annotations import Annotated, annotation_kind
from onnxprune.detection.reading import limited, numbered, read_annotations
from onnxprune.errors import DataError
from tests.detection.layouts import CLASSES, LAYOUTS, SIZES, truth, write_images


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_comes_back(tmp_path: Path, name: str) -> None:
    wanted = truth()
    if name != "yolo":
        wanted[1][0, 5] = 1  # YOLO's labels know no crowd
    source = LAYOUTS[name](tmp_path / "data", wanted)
    for place in (source, tmp_path / "data"):
        assert annotation_kind(place) == name
        found = read_annotations(place)
        assert [file.name for file in found.files] == [f"{k:03d}.png" for k in range(len(SIZES))]
        assert all(file.is_file() for file in found.files)
        assert found.classes == CLASSES
        for given, held in zip(found.objects, wanted, strict=True):
            np.testing.assert_allclose(given, held, atol=1e-6)


def test_a_part_of_a_yolo_data_set_is_read_with_its_names(tmp_path: Path) -> None:
    LAYOUTS["yolo"](tmp_path, truth())
    part = tmp_path / "images" / "val"
    assert annotation_kind(part) == "yolo"
    assert read_annotations(part).classes == CLASSES


def test_without_names_classes_are_numbers(tmp_path: Path) -> None:
    LAYOUTS["yolo"](tmp_path, truth()).unlink()
    assert read_annotations(tmp_path).classes == ("0", "1", "2")


def test_polygons_are_read_as_their_boxes(tmp_path: Path) -> None:
    LAYOUTS["yolo"](tmp_path, truth())
    label = tmp_path / "labels" / "val" / "000.txt"
    label.write_text("1 0.1 0.2 0.5 0.1 0.3 0.6\n")
    width, height = SIZES[0]
    (row,) = read_annotations(tmp_path / "data.yaml").objects[0].tolist()
    np.testing.assert_allclose(row[:4], [0.1 * width, 0.1 * height, 0.5 * width, 0.6 * height])
    assert row[4:] == [1, 0]


def test_the_validation_part_is_preferred(tmp_path: Path) -> None:
    source = LAYOUTS["yolo"](tmp_path, truth())
    write_images(tmp_path / "images" / "train")
    source.write_text(source.read_text().replace("train: images/val", "train: images/train"))
    assert {file.parent.name for file in read_annotations(source).files} == {"val"}


def test_a_list_of_images_is_a_part(tmp_path: Path) -> None:
    source = LAYOUTS["yolo"](tmp_path, truth())
    (tmp_path / "val.txt").write_text("./images/val/001.png\nimages/val/002.png\n")
    source.write_text(source.read_text().replace("val: images/val", "val: val.txt"))
    assert [file.stem for file in read_annotations(source).files] == ["001", "002"]


def test_a_list_of_classes_orders_those_of_voc(tmp_path: Path) -> None:
    LAYOUTS["voc"](tmp_path, truth())
    (tmp_path / "classes.txt").write_text("triangle\ndisc\nsquare\n")
    found = read_annotations(tmp_path)
    assert found.classes == ("triangle", "disc", "square")
    expected = (truth()[0][:, 4] + 1) % 3
    np.testing.assert_array_equal(found.objects[0][:, 4], expected)


def test_a_part_of_voc_is_read(tmp_path: Path) -> None:
    LAYOUTS["voc"](tmp_path, truth())
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("001\n002\n")
    assert [file.stem for file in read_annotations(tmp_path).files] == ["001", "002"]


def label(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "labels" / "val" / "000.txt").write_text(text) and None


def described(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / "data.yaml").write_text(text) and None


def no_labels(folder: Path) -> None:
    for file in (folder / "labels" / "val").iterdir():
        file.unlink()


def without(key: str) -> Callable[[Path], None]:
    def cut(folder: Path) -> None:
        file = folder / "annotations" / "instances_val2017.json"
        content = json.loads(file.read_text())
        del content[key]
        file.write_text(json.dumps(content))

    return cut


def coco(change: Callable[[dict], None]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        file = folder / "annotations" / "instances_val2017.json"
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))

    return edit


WRONG = {
    "no numbers": ("yolo", label("disc 0.5\n"), "'disc 0.5'; expected a class and numbers"),
    "in pixels": ("yolo", label("0 30 20 10 10\n"), "has sides beyond 0 to 1, shares of the image"),
    "of a class that is none": ("yolo", label("7 .5 .5 .1 .1\n"), "class 7; expected 0 to 2"),
    "too few": ("yolo", label("1 .5 .5 .1\n"), "3 numbers behind the class; expected x y width"),
    "no labels": ("yolo", no_labels, "4 images without a single box"),
    "not YAML": ("yolo", described("names: [a\n"), "not a readable YAML file"),
    "no names": ("yolo", described("path: .\nval: images/val\n"), "names is None; expected the cl"),
    "no parts": ("yolo", described("names: [a, b, c]\n"), "holds names; expected path, train, val"),
    "a lost folder": (
        "yolo",
        described("val: images/test\nnames: [a, b, c]\n"),
        "'images/test' is not in",
    ),
    "no json": (
        "coco",
        lambda folder: (folder / "annotations" / "instances_val2017.json").write_text("{") and None,
        "cannot be read as JSON",
    ),
    "no categories": ("coco", without("categories"), "has no 'categories'; expected images with"),
    "no images": ("coco", coco(lambda c: c.update(images=[], annotations=[])), "no images"),
    "a box of three": (
        "coco",
        coco(lambda c: c["annotations"][0].update(bbox=[1, 2, 3])),
        "annotations[0].bbox: expected a list of length 4",
    ),
    "a lost image": (
        "coco",
        coco(lambda c: c["images"][2].update(file_name="nothing.png")),
        "nothing.png is not there",
    ),
    "no images at all": (
        "coco",
        coco(lambda c: [one.update(file_name=f"no/{one['id']}.png") for one in c["images"]]),
        "no/0.png is neither beside it nor in a folder next to it",
    ),
    "an unknown category": (
        "coco",
        coco(lambda c: c["annotations"][0].update(category_id=99)),
        "is of category 99",
    ),
    "no box": (
        "voc",
        lambda folder: (
            (folder / "Annotations" / "000.xml").write_text(
                "<annotation><object><name>disc</name></object></annotation>"
            )
            and None
        ),
        "no bndbox/xmin",
    ),
    "no xml": (
        "voc",
        lambda folder: (folder / "Annotations" / "000.xml").write_text("<annotation>") and None,
        "not as VOC's annotations are",
    ),
    "a lost picture": (
        "voc",
        lambda folder: (folder / "JPEGImages" / "001.png").unlink(),
        "001.xml; expected 001.jpg",
    ),
    "an unlisted class": (
        "voc",
        lambda folder: (folder / "classes.txt").write_text("disc\nsquare\n") and None,
        "class 'triangle' is none of those that its list names",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    layout, spoil, said = WRONG[name]
    source = LAYOUTS[layout](tmp_path / "data", truth())
    spoil(tmp_path / "data")
    with pytest.raises(DataError, match=re.escape(said)) as error:
        read_annotations(source)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_several_files_are_not_chosen_from(tmp_path: Path) -> None:
    file = LAYOUTS["coco"](tmp_path, truth())
    (file.parent / "instances_train2017.json").write_text(file.read_text())
    with pytest.raises(DataError, match=r"holds the annotations .*train2017\.json, .*give one"):
        read_annotations(tmp_path)


def test_what_is_no_data_set_for_detectors_is_none(tmp_path: Path) -> None:
    write_images(tmp_path / "cats")
    assert annotation_kind(tmp_path) == ""
    assert annotation_kind(tmp_path / "nothing.yaml") == ""
    assert annotation_kind(["x"]) == ""


def numbers(found: Annotated) -> list[int]:
    return [int(k) for held in found.objects for k in held[:, 4]]


def test_classes_are_numbered_as_the_model_names_them(tmp_path: Path) -> None:
    found = read_annotations(LAYOUTS["coco"](tmp_path, truth()))
    names = ("person", "Triangle", "disc", "square ")
    moved = numbered(found, names)
    assert moved.classes == names
    assert numbers(moved) == [{0: 2, 1: 3, 2: 1}[k] for k in numbers(found)]
    assert numbers(numbered(found, ())) == numbers(found)
    assert numbers(numbered(found, ("a", "b", "c"))) == numbers(found), "other words, as many"


def test_a_class_that_the_model_does_not_name_is_refused(tmp_path: Path) -> None:
    found = read_annotations(LAYOUTS["coco"](tmp_path, truth()))
    with pytest.raises(DataError, match=r"class 'triangle' is none of the 4 .*nearest: triangel"):
        numbered(found, ("disc", "square", "triangel", "person"))


def test_a_limit_holds_for_each_class(tmp_path: Path) -> None:
    found = read_annotations(LAYOUTS["voc"](tmp_path, truth()))
    few = limited(found, 1)
    assert [file.stem for file in few.files] == ["000"], "the first image shows every class"
    assert limited(found, None) is found
    assert len(limited(found, 99).files) == len(found.files) - 1, "nothing is in the last one"
