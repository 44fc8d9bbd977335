"""The same images and objects in each layout that is read."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import yaml
from PIL import Image

CLASSES = ("disc", "square", "triangle")
SIZES = ((60, 40), (40, 60), (50, 50), (64, 48))
"""Width and height of each image."""


def truth(seed: int = 0) -> list[np.ndarray]:
    """Objects with whole sides, none in the last image. Shapes: [m, 6]."""
    rng = np.random.default_rng(seed)
    result = []
    for number, (width, height) in enumerate(SIZES):
        low = rng.integers(0, [width - 20, height - 20], (3, 2))
        high = low + rng.integers(5, 20, (3, 2))
        kinds = np.array([[0], [1], [2]]) if number == 0 else rng.integers(0, 3, (3, 1))
        rows = np.concatenate([low, high, kinds, np.zeros((3, 1))], 1).astype(float)
        result.append(rows if number < len(SIZES) - 1 else rows[:0])
    return result


def write_images(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    names = []
    for number, (width, height) in enumerate(SIZES):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        names.append(f"{number:03d}.png")
        Image.fromarray(pixels).save(folder / names[-1])
    return names


def write_yolo(folder: Path, objects: Sequence[np.ndarray]) -> Path:
    names = write_images(folder / "images" / "val")
    labels = folder / "labels" / "val"
    labels.mkdir(parents=True)
    for name, held, (width, height) in zip(names, objects, SIZES, strict=True):
        lines = [
            f"{int(k)} {(x1 + x2) / 2 / width:.9f} {(y1 + y2) / 2 / height:.9f} "
            f"{(x2 - x1) / width:.9f} {(y2 - y1) / height:.9f}\n"
            for x1, y1, x2, y2, k, _ in held
        ]
        if lines:
            (labels / name).with_suffix(".txt").write_text("".join(lines))
    described = {"path": ".", "train": "images/val", "val": "images/val"}
    names_by_number = dict(enumerate(CLASSES))
    (folder / "data.yaml").write_text(yaml.safe_dump({**described, "names": names_by_number}))
    return folder / "data.yaml"


def write_coco(folder: Path, objects: Sequence[np.ndarray]) -> Path:
    names = write_images(folder / "val2017")
    notes = [
        {
            "id": 100 * image + number,
            "image_id": 7 * image,
            "category_id": 10 * int(k) + 3,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(crowd),
        }
        for image, held in enumerate(objects)
        for number, (x1, y1, x2, y2, k, crowd) in enumerate(held)
    ]
    content = {
        "images": [{"id": 7 * k, "file_name": name} for k, name in enumerate(names)],
        "annotations": notes,
        "categories": [{"id": 10 * k + 3, "name": n} for k, n in enumerate(CLASSES)][::-1],
    }
    file = folder / "annotations" / "instances_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    return file


def write_voc(folder: Path, objects: Sequence[np.ndarray]) -> Path:
    names = write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name, held in zip(names, objects, strict=True):
        root = ElementTree.Element("annotation")
        for *sides, kind, skip in held:
            one = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(one, "name").text = CLASSES[int(kind)]
            ElementTree.SubElement(one, "difficult").text = str(int(skip))
            box = ElementTree.SubElement(one, "bndbox")
            for side, value in zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True):
                ElementTree.SubElement(box, side).text = str(value)
        ElementTree.ElementTree(root).write((folder / "Annotations" / name).with_suffix(".xml"))
    return folder


LAYOUTS: dict[str, Callable[[Path, Sequence[np.ndarray]], Path]] = {
    "yolo": write_yolo,
    "coco": write_coco,
    "voc": write_voc,
}
