"""Pascal VOC's layout: an xml file for each image, in `Annotations/` or beside the images.

A box is `xmin, ymin, xmax, ymax` in pixels. An object that is marked `difficult` is not counted.
Where `ImageSets/Main/val.txt` lists a part, that part is read. The classes are in alphabetical
order, as the layout numbers none, unless a `classes.txt` or `labels.txt` lists them.
Source: Everingham et al. 2010, the development kit.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.data import find_images
from onnxprune.detection.annotations import PREFERRED, Annotated
from onnxprune.errors import DataError
from onnxprune.plugins import first_line
from onnxprune.records import read_bytes, read_text

LISTS = ("classes.txt", "labels.txt")
SIDES = ("xmin", "ymin", "xmax", "ymax")
LARGEST = 1 << 24
"""Bytes of an image's annotations."""
FARTHEST = 1e15
"""Pixels; no image is as large."""


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
            return read_text(listed, DataError).split(), f"part '{name}' of {source}"
    return stems, f"{source}"


def _listed(source: Path) -> tuple[str, ...]:
    file = next((source / name for name in LISTS if (source / name).is_file()), None)
    lines = [] if file is None else read_text(file, DataError).splitlines()
    return tuple(filter(None, map(str.strip, lines)))


def _objects(file: Path) -> list[tuple[str, list[float]]]:
    """The class of each object, its box and whether it is not counted."""
    try:
        return [
            (
                _text(one, "name"),
                [*(_number(_text(one, f"bndbox/{side}")) for side in SIDES), _skip(one)],
            )
            for one in _parsed(read_bytes(file, DataError, LARGEST)).iter("object")
        ]
    except (expat.ExpatError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{file}: not as VOC's annotations are ({first_line(error)}); expected object with "
            "name and bndbox"
        ) from error


def _parsed(content: bytes) -> ElementTree.Element:
    """The elements of an XML document that defines none of its own: entities can grow without end.

    Raises: ValueError or ExpatError for what is none.
    """
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()
    parser.StartDoctypeDeclHandler = _refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.Parse(content, True)
    return builder.close()


def _refuse(*_: object) -> None:
    raise ValueError("it has a DOCTYPE, which is not read")


def _number(text: str) -> float:
    number = float(text)
    if not abs(number) <= FARTHEST:
        raise ValueError(f"{text} is no place in an image")
    return number


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
