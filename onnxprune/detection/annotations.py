"""Annotations: images with the boxes and classes of their objects, in three layouts.

They are those of Ultralytics (`yolo`), of COCO (`coco`) and of Pascal VOC (`voc`); each has a short
reader of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from onnxprune.arrays import FloatArray
from onnxprune.data import boxes_layout

KINDS = {".yaml": "yolo", ".yml": "yolo", ".json": "coco"}
"""What files are annotations, by their suffix."""
PREFERRED = ("val", "valid", "validation", "test", "train")
"""Which part of a data set is read where the user names none, the first that is there."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """Images with their objects; `said` names the layout and the part that were read.

    Shapes: objects `[m, 6]` for each file, as `onnxprune.detection.boxes` says.
    Units: pixels of the file.
    """

    files: tuple[Path, ...]
    objects: tuple[FloatArray, ...]
    classes: tuple[str, ...]
    said: str

    def chosen(self, rows: list[int]) -> Annotated:
        """Return some of the images. Shapes: rows, positions of files."""
        files = tuple(self.files[row] for row in rows)
        return replace(self, files=files, objects=tuple(self.objects[row] for row in rows))


def annotation_kind(source: object) -> str:
    """Return which layout a source is of, `yolo`, `coco` or `voc`, or an empty text.

    A file is recognised by its suffix, a folder by what it holds.
    """
    if not isinstance(source, (str, Path)):
        return ""
    path = Path(source)
    if path.is_dir():
        return boxes_layout(path)[0]
    return KINDS.get(path.suffix.lower(), "") if path.is_file() else ""
