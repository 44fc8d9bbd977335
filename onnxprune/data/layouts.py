"""Layouts of folders that hold no class folders, recognised so that they are not read as such."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from onnxprune.data.images import find_images, is_hidden
from onnxprune.errors import DataError

SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval")
"""How people name the parts of a data set; a year may follow, as in train2017."""
CLASS_FOLDERS = "give a folder with one folder of images per class"
BOXES = "its labels are boxes, not classes"


def check_layout(folder: Path) -> None:
    """Refuse a folder that is not one of class folders.

    Raises: DataError saying what it seems to be, and what to give.
    """
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_hidden(one)]
    kind, seen = boxes_layout(folder)
    if kind:
        raise DataError(
            f"{folder}: looks like {DETECTION[kind]} ({seen}): {BOXES}; {CLASS_FOLDERS}"
        )
    splits = [one.name for one in folders if is_split(one.name)]
    if splits and len(splits) == len(folders):
        raise DataError(
            f"{folder}: holds the parts {_listed(splits)} of a data set, not classes; give one of "
            f"them, as {folder / splits[0]}"
        )


def holds_images_only(folder: Path) -> bool:
    """Say whether images lie in the folder itself and in no folder of it: they have no classes."""
    folders = [one for one in folder.iterdir() if one.is_dir() and not is_hidden(one)]
    return not any(map(find_images, folders)) and bool(find_images(folder))


def boxes_layout(folder: Path) -> tuple[str, str]:
    """Return the kind of data set for detectors that a folder is, and what shows it; often none.

    Kinds are those of `DETECTION`.
    """
    found = ((kind, holds(folder)) for kind, holds in _HOLDS.items())
    return next(((kind, seen) for kind, seen in found if seen), ("", ""))


def is_split(name: str) -> bool:
    """Say whether a folder is named as a part of a data set.

    >>> [is_split(name) for name in ("train", "Val2017", "test_images", "trainer")]
    [True, True, False, False]
    """
    return name.lower().rstrip("0123456789") in SPLITS


def check_classes(folder: Path) -> None:
    """Refuse a folder with images of one class.

    Raises: DataError saying where its classes are, if they lie deeper.
    """
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_hidden(one)]
    only, *others = [one for one in folders if find_images(one)] or [folder]
    if others or only == folder:
        return
    inside = [one for one in sorted(only.iterdir()) if one.is_dir() and find_images(one)]
    if len(inside) > 1:
        names = _listed([one.name for one in inside])
        raise DataError(f"{folder}: its only folder {only.name}/ holds {names}; give {only}")
    raise DataError(
        f"{folder}: one class folder only ('{only.name}'), which does not show what tells classes "
        f"apart; {CLASS_FOLDERS}"
    )


def _coco(folder: Path) -> str:
    return next((str(file.relative_to(folder)) for file in annotation_files(folder)), "")


def annotation_files(folder: Path) -> Iterator[Path]:
    """Yield the files that begin as COCO's annotations do, in the folder or one below."""
    for file in sorted((*folder.glob("*.json"), *folder.glob("*/*.json"))):
        if not file.is_file():
            continue
        with file.open("rb") as text:
            start = text.read(4096)
        if file.name.endswith(".coco.json") or b'"annotations"' in start or b'"images"' in start:
            yield file


def _yolo(folder: Path) -> str:
    names = {one.name for one in folder.iterdir() if one.is_dir()}
    if {"images", "labels"} <= names:
        return "images/ and labels/"
    inside = next((d for d in sorted(names) if {"images", "labels"} <= _names(folder / d)), "")
    if inside:
        return f"{inside}/images and {inside}/labels"
    parts = folder.resolve().parts
    if "images" not in parts[-3:]:
        return ""
    at = len(parts) - 1 - parts[::-1].index("images")
    labels = Path(*parts[:at], "labels", *parts[at + 1 :])
    return str(labels) if labels.is_dir() else ""


def _voc(folder: Path) -> str:
    if {"Annotations", "JPEGImages"} <= _names(folder):
        return "Annotations/ and JPEGImages/"
    files = [*folder.glob("*.xml"), *folder.glob("*/*.xml")]
    return str(files[0].relative_to(folder)) if files and find_images(folder) else ""


def _names(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir() if one.is_dir()}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


DETECTION = {
    "yolo": "a YOLO data set",
    "coco": "a COCO data set",
    "voc": "a Pascal VOC data set",
}
"""Layouts of data for detectors."""

_HOLDS: dict[str, Callable[[Path], str]] = {"yolo": _yolo, "coco": _coco, "voc": _voc}
"""What in a folder shows that it is of a layout, else an empty text."""
