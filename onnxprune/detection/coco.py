"""COCO's layout: one json file with `images`, `annotations` and `categories`.

A box is `x, y, width, height` in pixels. A crowd (`iscrowd`) is not counted. The images lie beside
the file, in `images/`, or in a folder next to that of the file.
Source: https://cocodataset.org/#format-data
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from onnxprune.data import annotation_files
from onnxprune.detection.annotations import Annotated
from onnxprune.errors import DataError
from onnxprune.records import read_large

EXPECTED = (
    "expected images with id and file_name, annotations with image_id, category_id and bbox, and "
    "categories with id and name, as COCO has them"
)


def read_coco(source: Path) -> Annotated:
    """Read a data set by its json file, or by the folder that holds one.

    Raises: DataError for a file that is missing or not as this layout has it.
    """
    file = source if source.is_file() else _only_file(source)
    said = read_large(file, "coco", lambda line: DataError(f"{line}; {EXPECTED}"))
    categories = sorted(said.categories, key=lambda one: one.id)
    numbers = {one.id: number for number, one in enumerate(categories)}
    held: dict[int | str, list[list[float]]] = {image.id: [] for image in said.images}
    for place, note in enumerate(said.annotations):
        if note.category_id not in numbers or note.image_id not in held:
            raise DataError(
                f"{file}: annotations[{place}] is of category {note.category_id} and image "
                f"{note.image_id}; expected ids that categories and images list"
            )
        x, y, width, height = note.bbox
        number = numbers[note.category_id]
        held[note.image_id].append([x, y, x + width, y + height, number, note.iscrowd])
    root = _root(file, [image.file_name for image in said.images])
    return Annotated(
        tuple(root / image.file_name for image in said.images),
        tuple(np.array(held[image.id], np.float64).reshape(-1, 6) for image in said.images),
        tuple(one.name for one in categories),
        f"COCO annotations {file}",
    )


def _only_file(folder: Path) -> Path:
    files = list(annotation_files(folder))
    if len(files) != 1:
        names = ", ".join(str(one.relative_to(folder)) for one in files[:4])
        raise DataError(f"{folder}: holds the annotations {names}; give one of these files")
    return files[0]


def _root(file: Path, names: list[str]) -> Path:
    """The folder that the files of the images are named from."""
    if not names:
        return file.parent
    for root in _places(file):
        if (root / names[0]).is_file():
            missing = next((name for name in names if not (root / name).is_file()), None)
            if missing is not None:
                raise DataError(f"{file}: its image {root / missing} is not there")
            return root
    raise DataError(
        f"{file}: its image {names[0]} is neither beside it nor in a folder next to it; lay the "
        "images there"
    )


def _places(file: Path) -> Iterator[Path]:
    """Where images usually lie: beside the file, or in a folder beside it or above it."""
    for top in (file.parent, file.resolve().parent.parent):
        yield top
        yield from (one for one in sorted(top.iterdir()) if one.is_dir())
        yield from (one for one in sorted(top.glob("images/*")) if one.is_dir())
