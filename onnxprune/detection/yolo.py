"""Ultralytics' layout: `data.yaml`, images, and a text file of labels for each image.

The labels of `.../images/val/cat.jpg` are in `.../labels/val/cat.txt`, one object a line: its class
and the centre and size of its box, as shares of the width and height; or a polygon's points.
Source: https://docs.ultralytics.com/datasets/detect/
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.checks import shown
from onnxprune.data import MAX_LABEL, find_images, image_size
from onnxprune.detection.annotations import PREFERRED, Annotated
from onnxprune.detection.boxes import corners
from onnxprune.errors import DataError, OnnxPruneError
from onnxprune.plugins import first_line
from onnxprune.records import read_text

LARGEST, LABELS = 1 << 19, 1 << 22
"""Bytes of a description, which is read slowly, and of an image's labels."""
DEEPEST = 16
"""Lists in lists of a description."""
BEYOND = 0.01
"""How far, as a share of the image, a label may reach beyond it."""


def read_yolo(source: Path) -> Annotated:
    """Read a data set by its `data.yaml`, its folder, or the folder of one part's images.

    Raises: DataError for a file that is missing or not as this layout has it.
    """
    described = source if source.is_file() else _description(source)
    said = _read_yaml(described) if described else {}
    names = _names(said.get("names"), described)
    if source.is_dir() and described and source.resolve() != described.parent.resolve():
        files, part = _images(source), f"{source}"
    elif described:
        files, part = _part(described, said)
    else:
        files, part = _part_of_folder(source)
    objects = tuple(_objects(file, len(names)) for file in files)
    if not names:
        most = max((int(held[:, 4].max()) for held in objects if len(held)), default=0)
        names = tuple(map(str, range(most + 1)))
    return Annotated(tuple(files), objects, names, f"YOLO labels, {part}")


def _description(folder: Path) -> Path | None:
    """The yaml file of a data set that a folder is, or lies in."""
    for above in (folder, *folder.resolve().parents[:3]):
        for file in sorted((*above.glob("*.yaml"), *above.glob("*.yml"))):
            if "names" in _read_yaml(file):
                return file
        if (above / "images").is_dir():
            return None
    return None


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise OnnxPruneError(
            f"{file}: reading YAML needs PyYAML: pip install 'onnxprune[detection]'"
        ) from error

    class Plain(yaml.SafeLoader):  # type: ignore[misc]
        """Reads no aliases, of which a few lines can stand for more than a memory holds.

        Nor deep lists, for which the time of each token grows with the depth.
        """

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError(f"*{self.peek_event().anchor} stands for another part")
            return super().compose_node(parent, index)

        def fetch_flow_collection_start(self, token: Any) -> None:
            if self.flow_level > DEEPEST:
                raise yaml.YAMLError(f"it is nested deeper than {DEEPEST}")
            super().fetch_flow_collection_start(token)

    text = read_text(file, DataError, LARGEST)
    try:
        said = yaml.load(text, Plain)
    except Exception as error:  # what it makes of a wrong date, a deep list, an odd key
        raise DataError(f"{file}: not a readable YAML file ({first_line(error)})") from error
    return said if isinstance(said, dict) else {}


def _names(said: Any, file: Path | None) -> tuple[str, ...]:
    """The classes, which are a list, or a dictionary by numbers from 0."""
    if isinstance(said, dict) and set(said) == set(range(len(said))):
        said = [said[number] for number in range(len(said))]
    if file is None:
        return ()
    if not isinstance(said, list) or not said or not all(map(_is_name, said)):
        raise DataError(f"{file}: names is {shown(said)}; expected the class names, as a list")
    return tuple(map(str, said))


def _is_name(said: Any) -> bool:
    """Whether a value can name a class; YAML reads no, 3 and 2024-01-01 as what they look like."""
    return isinstance(said, str | int | float | date)


def _part(file: Path, said: dict[str, Any]) -> tuple[list[Path], str]:
    """The images of the part that is read, and its name."""
    part = next((name for name in PREFERRED if said.get(name)), None)
    if part is None:
        found = ", ".join(map(str, said)) or "nothing"
        raise DataError(f"{file}: holds {found}; expected path, train, val and names")
    given = said[part] if isinstance(said[part], list) else [said[part]]
    images: list[Path] = []
    for one in given:
        images += _images(_place(file, str(said.get("path") or "."), str(one)))
    return images, f"part '{part}' of {file}"


def _place(file: Path, top: str, part: str) -> Path:
    """Where the images of a part lie: below `path`, which is beside the yaml file."""
    tried = [file.parent / top / part, file.parent / part, Path(top) / part]
    for place in tried:
        if place.exists():
            return place
    raise DataError(f"{file}: '{part}' is not in {tried[0].parent}; set path to the data's folder")


def _part_of_folder(folder: Path) -> tuple[list[Path], str]:
    """The images below `images/`, of one part where it has parts, or of a folder of images."""
    below = folder / "images"
    if not below.is_dir():
        inside = [folder / name for name in PREFERRED if (folder / name / "images").is_dir()]
        below = inside[0] / "images" if inside else folder
    parts = [below / name for name in PREFERRED if (below / name).is_dir()]
    chosen = parts[0] if parts else below
    return _images(chosen), f"{chosen}"


def _images(place: Path) -> list[Path]:
    """The images of a folder, or of a text file that lists them."""
    if place.is_dir():
        return find_images(place)
    lines = filter(None, map(str.strip, read_text(place, DataError).splitlines()))
    return [Path(line) if Path(line).is_absolute() else place.parent / line for line in lines]


def _objects(image: Path, classes: int) -> FloatArray:
    """The objects of an image; none where it has no labels. Shapes: `[m, 6]`."""
    parts = list(image.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    labels = Path(*parts).with_suffix(".txt")
    if not labels.is_file():
        return np.zeros((0, 6))
    width, height = image_size(image)
    text = read_text(labels, DataError, LABELS)
    lines = enumerate(filter(None, map(str.strip, text.splitlines())), 1)
    rows = [_object(line, f"{labels}:{number}", classes) for number, line in lines]
    scale = np.array([width, height, width, height, 1, 1])
    return np.asarray(np.array(rows).reshape(-1, 6) * scale)


def _object(line: str, where: str, classes: int) -> list[float]:
    """One object, its box in shares of the image."""
    try:
        kind, *sides = map(float, line.split())
    except ValueError as error:
        raise DataError(f"{where}: {line[:60]!r}; expected a class and numbers") from error
    if len(sides) < 4 or (len(sides) > 4 and len(sides) % 2):
        raise DataError(
            f"{where}: {len(sides)} numbers behind the class; expected x y width height"
        )
    if not all(-BEYOND <= side <= 1 + BEYOND for side in sides):
        raise DataError(f"{where}: {line[:60]!r} has sides beyond 0 to 1, shares of the image")
    if kind % 1 or not 0 <= kind <= MAX_LABEL or (classes and kind >= classes):
        expected = f"expected 0 to {classes - 1}" if classes else "expected a class number"
        raise DataError(f"{where}: class {kind:g}; {expected}")
    if len(sides) == 4:
        box = corners(np.array(sides)).tolist()
    else:
        points = np.array(sides).reshape(-1, 2)
        box = [*points.min(0).tolist(), *points.max(0).tolist()]
    return [*np.clip(box, 0, 1).tolist(), kind, 0.0]
