"""Samples in shards: WebDataset's tar files, and Parquet.

A shard holds many samples in one file, so that data sets of millions stay a few thousand files. Of
images, only where they lie is read at first; an image is read when it is asked for, also by a
process that was told no more than that.

    shard-000.tar       cat/1.jpg, cat/1.cls, ...: files of one name but for the ending are a sample
    part-000.parquet    a column of images, or of numbers, and one of labels
"""

from __future__ import annotations

import importlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.data.forms import Item, Wanted, collect
from onnxprune.data.images import decode
from onnxprune.data.pictures import suffixes
from onnxprune.data.samples import ALL, Data
from onnxprune.data.streamed import Streamed
from onnxprune.data.targets import Room, name_by_number, read_labels
from onnxprune.errors import DataError, MissingPackage
from onnxprune.memory import fits
from onnxprune.plugins import first_line

TAR, PARQUET = ".tar", ".parquet"
LABEL = "cls"
"""The ending of a label in a tar file: a whole number, as text."""
LABELS = ("label", "labels", "y", "cls", "class", "target")
"""Columns that hold labels."""
HELD = 2
"""Groups of rows of Parquet that are kept: batches are read one after the other."""
ENTRY = "a tar file of images (or .npy) and .cls, or Parquet with images and labels"


@dataclass(frozen=True)
class Member:
    """A file that lies in a tar file. Units: start, size: bytes."""

    path: str
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Return what is in it. Raises: DataError where the tar file changed."""
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) < self.size:
            raise DataError(f"{self.path}: changed while it was read; start again")
        return content

    def __str__(self) -> str:
        return f"{self.path}: {self.name}"


@dataclass(frozen=True)
class Cell:
    """A value in a file of Parquet: in a column, a group of rows, and a row of that."""

    path: str
    column: str
    group: int
    row: int

    @property
    def name(self) -> str:
        """What it is called among others of its file."""
        return f"{self.group}:{self.row}"

    def value(self) -> Any:
        """Return the value, as pyarrow holds it."""
        with _reading:
            return _column(self.path, self.column, self.group)[self.row]

    def read(self) -> bytes:
        """Return the bytes of an image. Raises: DataError where there are none."""
        found = self.value().as_py()
        held = found.get("bytes") if isinstance(found, dict) else found
        if not isinstance(held, bytes):
            raise DataError(f"{self}: holds no bytes of an image; expected the image in the file")
        return held

    def __str__(self) -> str:
        return f"{self.path}: row {self.row} of group {self.group} of column {self.column!r}"


Sample = tuple[Member | Cell, int | None]
"""Where a sample lies, and its label."""

_reading = threading.Lock()


def shards_in(place: Path) -> list[Path]:
    """Return a file of samples, or those of a folder that holds nothing else; none for others."""
    if place.is_file():
        return [place] if place.suffix in (TAR, PARQUET) else []
    files = [one for one in sorted(place.iterdir()) if not one.name.startswith((".", "_"))]
    alike = {one.suffix for one in files} in ({TAR}, {PARQUET})
    return files if alike and all(map(Path.is_file, files)) else []


def read_shards(files: Sequence[Path], form: Wanted, where: str) -> Data:
    """Read samples in shards, at most so many of each class as the form says.

    Raises: DataError where a file is none, or its samples do not fit; MissingPackage for Parquet
    without pyarrow.
    """
    if form.inputs:
        raise DataError(
            f"{where}: the model has {len(form.inputs)} inputs; give a folder of .npz files with "
            "the inputs of a sample by name"
        )
    room, names = Room(form.limit), None
    places: list[Member | Cell] = []
    labels: list[int | None] = []
    for file in files:
        found = _tar(file) if file.suffix == TAR else _parquet(file)
        names = names or _names(file)
        for place, label in found:
            if label is None or room.takes(np.int64(label)):
                places.append(place)
                labels.append(label)
    if not places:
        raise DataError(f"{where}: no samples; expected {ENTRY}")
    if len({label is None for label in labels}) > 1:
        raise DataError(f"{where}: some samples have labels and some have none")
    if labels[0] is None:
        places = places[: form.limit]
    y = None if labels[0] is None else read_labels(np.array(labels), where)
    if not _is_image(places[0]):
        reader = Numbers(tuple(places), *_form_of(places[0], form))
        rows = Streamed(reader, np.arange(len(places)), reader.shape, reader.dtype)
        rows = replace(rows, together=isinstance(places[0], Cell))
        x = np.asarray(rows) if fits(rows.nbytes, form.memory) else rows
        return collect([Item(x, y)], form, where, names)
    images = decode(places, form)
    if isinstance(images, Streamed) and isinstance(places[0], Cell):
        images = replace(images, together=True)
    called = tuple(f"{Path(one.path).name}/{one.name}" for one in places)
    if y is None or not form.labelled:
        none: IntArray = np.zeros(len(places), np.int64)
        return Data(images, none, ALL, form.preprocess, labelled=False, names=called)
    classes = name_by_number(y, where) if names is None else names
    return Data(images, y, classes, form.preprocess, names=called)


def _is_image(place: Member | Cell) -> bool:
    if isinstance(place, Member):
        return not place.name.lower().endswith(".npy")
    kind = str(place.value().type)
    return "binary" in kind


def _tar(path: Path) -> Iterator[Sample]:
    """The samples of a tar file: what has one name but for the ending, in the order of the file."""
    key, member, label = "", None, None
    try:
        with tarfile.open(path, "r:") as tar:
            for entry in tar:
                folder, _, file = entry.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if not entry.isfile() or not stem:
                    continue
                if (own := f"{folder}/{stem}") != key:
                    if member is not None:
                        yield member, label
                    key, member, label = own, None, None
                ending = ending.lower()
                if ending == LABEL:
                    label = _label(tar, entry, path)
                elif ending == "npy" or f".{ending}" in suffixes():
                    member = Member(str(path), entry.name, entry.offset_data, entry.size)
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path}: not a readable tar file ({first_line(error)}); one that is compressed is "
            "unpacked first"
        ) from error
    if member is not None:
        yield member, label


def _label(tar: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> int:
    opened = tar.extractfile(entry) if entry.size < 32 else None
    text = b"" if opened is None else opened.read().strip()
    if not text.isdigit():
        raise DataError(
            f"{path}: {entry.name} holds no label; expected a class number 0, 1, 2, ..."
        )
    return int(text)


def _parquet(path: Path) -> Iterator[Sample]:
    """The samples of a file of Parquet, row by row."""
    file = _opened(path)
    schema = file.schema_arrow
    labels = next((one for one in LABELS if one in schema.names), None)
    columns = [one for one in schema.names if one != labels and _is_sample(schema.field(one).type)]
    if len(columns) != 1:
        found = ", ".join(columns) or ", ".join(schema.names)
        raise DataError(
            f"{path}: columns {found}; expected one of images or of lists of numbers, and one of "
            f"labels, named {' or '.join(LABELS[:3])}"
        )
    for group in range(file.num_row_groups):
        given = None
        if labels is not None:
            given = file.read_row_group(group, [labels]).column(0).to_pylist()
            if not all(isinstance(one, int) and one >= 0 for one in given):
                raise DataError(f"{path}: column {labels!r} holds no class numbers 0, 1, 2, ...")
        for row in range(file.metadata.row_group(group).num_rows):
            yield Cell(str(path), columns[0], group, row), None if given is None else given[row]


def _is_sample(kind: Any) -> bool:
    """Whether a column holds images, as bytes or with their file names, or lists of numbers."""
    return str(kind).startswith(("binary", "large_binary", "struct<bytes", "list", "fixed_size"))


def _names(path: Path) -> tuple[str, ...] | None:
    """The names of the classes, where a file of Parquet was written with them.

    Source: the schema's metadata that Hugging Face's datasets write.
    """
    if path.suffix != PARQUET:
        return None
    schema = _opened(path).schema_arrow
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = next(features[one]["names"] for one in LABELS if one in features)
        return tuple(map(str, found))
    except (KeyError, TypeError, ValueError, StopIteration):
        return None


@lru_cache(HELD)
def _column(path: str, column: str, group: int) -> Any:
    return _opened(Path(path)).read_row_group(group, [column]).column(0)


def _opened(path: Path) -> Any:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingPackage(
            f'{path}: Parquet needs pyarrow; pip install "onnxprune[parquet]"'
        ) from error
    try:
        return parquet.ParquetFile(path)
    except Exception as error:  # pyarrow's errors, OSError and ValueError, have no root
        raise DataError(f"{path}: not a readable Parquet file ({first_line(error)})") from error


@dataclass(frozen=True, eq=False)
class Numbers:
    """Reads samples that are arrays, whichever are asked for. Shapes: shape, of one sample."""

    places: tuple[Member | Cell, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __call__(self, numbers: IntArray) -> npt.NDArray[Any]:
        """Return the samples of these numbers.

        Shapes: numbers `[m]` -> `[m, *shape]`.
        Raises: DataError where one has another shape than the first.
        """
        rows = np.empty((len(numbers), *self.shape), self.dtype)
        for row, number in enumerate(numbers.tolist()):
            values = _array(self.places[number])
            if values.size != rows[row].size:
                raise DataError(
                    f"{self.places[number]}: {list(values.shape)} numbers, expected "
                    f"{list(self.shape)} as the first sample has"
                )
            rows[row] = values.reshape(self.shape)
        return rows


def _form_of(place: Member | Cell, form: Wanted) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and type of a sample; lists have the shape that the model takes."""
    values = _array(place)
    if isinstance(place, Member):
        return values.shape, values.dtype
    known = tuple(size for size in form.shape if size is not None)
    fits_model = len(known) == len(form.shape) and int(np.prod(known)) == values.size
    return known if fits_model else values.shape, values.dtype


def _array(place: Member | Cell) -> npt.NDArray[Any]:
    if isinstance(place, Cell):
        values = place.value().values
        while hasattr(values, "flatten") and "list" in str(values.type):
            values = values.flatten()
        return np.asarray(values.to_numpy(zero_copy_only=False))
    try:
        return np.asarray(np.load(io.BytesIO(place.read()), allow_pickle=False))
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        raise DataError(f"{place}: not a readable .npy ({first_line(error)})") from error
