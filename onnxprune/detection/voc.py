"""Pascal VOC's layout: an xml file for each image, in `Annotations/` or beside the images.

A box is `xmin, ymin, xmax, ymax` in pixels. An object that is marked `difficult` is not counted.
Where `ImageSets/Main/val.txt` lists a part, that part is read. The classes are in alphabetical
order, as the layout numbers none, unless a `classes.txt` or `labels.txt` lists them.
Source: Everingham et al. 2010, the development kit.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.data import find_images
from onnxprune.detection.annotations import PREFERRED, Annotated
from onnxprune.errors import DataError
from onnxprune.plugins import first_line

LISTS = ("classes.txt", "labels.txt")
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_voc(source: Path) -> Annotated:
    """Read a data set by its folder.

    Raises: DataError for a file that is missing or not as this layout has it.
    """
    images = {file.stem: file for file in find_images(source)}
    notes = {file.stem: file for file in sorted(source.rglob("*.xml"))}
    stems, part = _part(source, sorted(notes))
    lost = next((stem for stem in stems if stem not in images), None)
    if lost is not None:
        raise DataError(f"{source}: no image for {notes.get(lost, lost)}; expected {lost}.jpg")
    read = [_objects(notes[stem]) if stem in notes else [] for stem in stems]
    classes = _listed(source) or tuple(sorted({name for held in read for name, _ in held}))
    unknown = next((name for held in read for name, _ in held if name not in classes), None)
    if unknown is not None:
        raise DataError(f"{source}: class '{unknown}' is none of those that its list names")
    objects = tuple(_numbered(held, classes) for held in read)
    return Annotated(tuple(images[stem] for stem in stems), objects, classes, f"VOC labels, {part}")


def _part(source: Path, stems: list[str]) -> tuple[list[str], str]:
    """The names of the images that are read, and the part that they are."""
    for name in PREFERRED:
        listed = source / "ImageSets" / "Main" / f"{name}.txt"
        if listed.is_file():
            return listed.read_text("utf-8").split(), f"part '{name}' of {source}"
    return stems, f"{source}"


def _listed(source: Path) -> tuple[str, ...]:
    file = next((source / name for name in LISTS if (source / name).is_file()), None)
    lines = [] if file is None else file.read_text("utf-8").splitlines()
    return tuple(filter(None, map(str.strip, lines)))


def _objects(file: Path) -> list[tuple[str, list[float]]]:
    """The class of each object, its box and whether it is not counted."""
    try:
        root = ElementTree.parse(file).getroot()
        return [
            (
                _text(one, "name"),
                [*(float(_text(one, f"bndbox/{side}")) for side in SIDES), _skip(one)],
            )
            for one in root.iter("object")
        ]
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise DataError(
            f"{file}: not as VOC's annotations are ({first_line(error)}); expected object with "
            "name and bndbox"
        ) from error


def _text(element: ElementTree.Element, path: str) -> str:
    found = element.findtext(path)
    if found is None:
        raise ValueError(f"no {path}")
    return found.strip()


def _skip(element: ElementTree.Element) -> float:
    return float(element.findtext("difficult", "0").strip() == "1")


def _numbered(held: list[tuple[str, list[float]]], classes: tuple[str, ...]) -> FloatArray:
    """Shapes: `[m, 6]`."""
    rows = [[*sides[:4], classes.index(name), sides[4]] for name, sides in held]
    return np.array(rows, np.float64).reshape(-1, 6)
