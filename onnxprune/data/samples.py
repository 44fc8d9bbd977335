"""Labelled samples, from wherever they are: a folder, an `.npz`, or anything that yields `(x, y)`.

Every source becomes one `Data`: a single array in the shape and type the model takes, so that
scoring and evaluation only ever slice it. Only folders are decoded and preprocessed here; arrays
are fed as they are. A sample has a class, or a label map with the class of every pixel. What does
not fit the model is a `DataError` before anything runs.
"""

from __future__ import annotations

import logging
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.checks import Flag, Names, Number, Object, kind_of
from onnxprune.data.images import (
    PREPROCESS,
    Form,
    decode,
    find_images,
    find_pairs,
    has_masks,
    is_hidden,
    read_map,
    shape_text,
)
from onnxprune.data.label_maps import IGNORED, counted, fit_labels, resize
from onnxprune.data.layouts import check_layout
from onnxprune.errors import DataError, InvalidType, OnnxPruneError, UnknownName
from onnxprune.plugins import beside, find_function, first_line

logger = logging.getLogger(__name__)

IntArray: TypeAlias = npt.NDArray[np.int64]

CLASSES = Names(of="the names of the classes")

MAX_LABEL = 1_000_000
"""A greater label is a mistake (a date as a folder name), not the number of a class."""

PER_CLASS = Number(
    whole=True, least=1, optional=True, metavar="N", help="Use at most N samples of each class."
)

_HOW = (
    "give a folder with one folder per class or with images/ and masks/, an .npz with x and y, "
    "package.module:function, or (x, y) batches"
)
_USER_FUNCTION = (
    "package.module:function or path/to/file.py:function that takes nothing and returns samples"
)


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled samples as the model takes them; `classes[k]` names label k.

    `preprocess` is the preset that scaled the pixels of files, empty where it was none.

    Shapes: x `[n, ...]`, `x[i]` is one sample; y `[n]`, or maps `[n, H, W]`, 255 not counting.
    Raises: DataError, when they are no such arrays or do not pair up.
    """

    x: npt.NDArray[Any]
    y: IntArray
    classes: tuple[str, ...]
    preprocess: str = ""

    def __post_init__(self) -> None:
        for name, array, kinds in (("x", self.x, "iufb"), ("y", self.y, "iu")):
            if not isinstance(array, np.ndarray):
                raise DataError(f"samples: {name} is {kind_of(array)}, expected a NumPy array")
            if array.dtype.kind not in kinds:
                expected = "numbers" if name == "x" else "class numbers 0, 1, 2, ..."
                raise DataError(f"samples: {name} is {array.dtype}, expected {expected}")
        object.__setattr__(self, "classes", CLASSES("classes", self.classes))
        if self.y.ndim not in (1, 3) or self.x.ndim < 1 or len(self.x) != len(self.y):
            raise DataError(
                f"samples: x is {list(self.x.shape)} and y is {list(self.y.shape)}, expected one "
                "label or label map [H, W] per sample; y holds class numbers, not one-hot rows"
            )

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[Any], IntArray]]:
        """Yield views of at most `size` samples, in order.

        Shapes: x `[size, ...]`, y `[size]` or `[size, H, W]`; the last batch may be shorter.
        """
        for start in range(0, len(self), size):
            yield self.x[start : start + size], self.y[start : start + size]

    def every(self, step: int, first: int = 0) -> Data:
        """Return every `step`-th sample, from the `first` on."""
        return replace(self, x=self.x[first::step], y=self.y[first::step])

    def fitted(self, output: Sequence[int]) -> Data:
        """Return the same samples with label maps of an output's height and width.

        Shapes: `output` is `[n, K, H, W]` or `[n, H, W, K]`.
        """
        return replace(self, y=fit_labels(self.y, output))


DATA = Object(kind=Data, how="as load_data returns it")
"""The rule of an argument that is samples in the form of the model."""

SampleSource: TypeAlias = (
    str | Path | Data | tuple[Any, Any] | Iterable[tuple[Any, Any]] | Callable[[], Any]
)


@dataclass(frozen=True)
class _Wanted(Form):
    """What the samples must become, and how many of each class are wanted."""

    limit: int | None
    labelled: bool


def load_data(
    source: SampleSource,
    *,
    shape: Sequence[int | None],
    dtype: npt.DTypeLike = np.float32,
    preprocess: str = "auto",
    limit: int | None = None,
    labelled: bool = True,
) -> Data:
    """Read labelled samples in the form the model takes, at most `limit` of each class.

    `source` is a folder with one folder per class, a folder of `images/` with their label maps in
    `masks/` (and class names in `classes.txt`), an `.npz` with x and y (and class names in
    `classes`), `package.module:function` or `file.py:function` that returns any of these, an
    `(x, y)`, or an iterable of `(x, y)` batches or `(sample, label)` pairs. The labels of class
    folders are the positions of their sorted names, or those names where all are plain integers.
    A sample with a label map counts for each class in it; it is taken while one of them has room.
    Without `labelled` the images of a folder may lie anywhere in it, and labels say nothing.
    `preprocess` names one of `PRESETS` and serves folders only; `auto` is `imagenet` for three
    channels, `unit` for one, and `raw` where the model takes integers.

    Shapes: `shape` is the model's input without its batch axis, None where it is dynamic.
    Raises: DataError, when the samples cannot be read or do not fit; InvalidType, InvalidValue or
    UnknownName for another argument that is not as it should be.
    """
    form = _Wanted(
        _shape(shape),
        _dtype(dtype),
        PREPROCESS("preprocess", preprocess),
        PER_CLASS("limit", limit),
        Flag()("labelled", labelled),
    )
    return _load(source, form, "samples")


def _shape(shape: Sequence[int | None]) -> tuple[int | None, ...]:
    """Read the shape of a sample."""
    size = Number(whole=True, least=1, optional=True)
    if isinstance(shape, str) or not isinstance(shape, Iterable):
        raise InvalidType(f"shape: is {kind_of(shape)}; expected sizes, as in (3, 224, 224)")
    return tuple(size("shape", one) for one in shape)


def _dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    try:
        return np.dtype(dtype)
    except TypeError as error:
        raise InvalidType(f"dtype: {first_line(error)}; expected a type as np.float32") from error


def _load(source: SampleSource, form: _Wanted, where: str) -> Data:
    """Turn any kind of source into Data."""
    if isinstance(source, Data):
        return _collect([(source.x, source.y)], form, where, source.classes)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            masks = has_masks(path)
            return _from_pairs(path, form) if masks else _from_folder(path, form)
        if path.suffix == ".npz" and path.is_file():
            return _from_npz(path, form)
        if ":" in str(source) and not path.exists():
            return _from_function(str(source), form)
        found = "is neither folder nor .npz" if path.exists() else "no such file or folder"
        raise DataError(f"{source}: {found}; {_HOW}")
    if callable(source) and not hasattr(source, "__iter__"):
        return _load(source(), form, where)
    return _collect(_batches(source, len(form.shape), where), form, where)


def _from_npz(path: Path, form: _Wanted) -> Data:
    """Read x, y and, where they are there, the names of the classes."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz ({first_line(error)})") from error
    if not {"x", "y"} <= arrays.keys():
        found = ", ".join(arrays) or "nothing"
        raise DataError(
            f"{path}: holds {found}, expected x and y; save with np.savez(x=..., y=...)"
        )
    names = tuple(map(str, arrays["classes"].ravel())) if "classes" in arrays else None
    return _collect([(arrays["x"], arrays["y"])], form, str(path), names)


def _from_function(text: str, form: _Wanted) -> Data:
    """Import `package.module:function` or `file.py:function`, call it, read what it returns."""
    try:
        with beside(text):
            return _load(find_function(text, _USER_FUNCTION)(), form, text)
    except UnknownName as error:
        raise DataError(str(error)) from error
    except OnnxPruneError:
        raise
    except Exception as error:  # the code is the user's: it may raise anything
        raise DataError(f"{text}: {first_line(error)}; expected {_USER_FUNCTION}") from error


def _batches(
    source: Any, rank: int, where: str
) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield batches, whether the source is one, yields some, or yields single samples.

    A sample has `rank` axes.
    """
    one = isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], tuple)
    try:
        items = iter((source,) if one else source)
    except TypeError as error:
        raise DataError(f"{where}: cannot read {type(source).__name__}; {_HOW}") from error
    for position, item in enumerate(items):
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            kind = type(item).__name__
            raise DataError(f"{where}: item {position} is {kind}, expected (x, y); {_HOW}")
        try:
            x, y = (np.asarray(part) for part in item)
        except Exception as error:  # a tensor of any framework may raise anything
            raise DataError(
                f"{where}: item {position} is not an array ({first_line(error)}); "
                "convert tensors to NumPy first"
            ) from error
        single = y.ndim == 0 or (y.ndim == 2 and x.ndim == rank)
        yield (x[None], y[None]) if single else (x, y)


def _collect(
    batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    form: _Wanted,
    where: str,
    classes: tuple[str, ...] | None = None,
) -> Data:
    """Join batches that fit the model into one Data, checking each before it is kept."""
    shape, room = form.shape, _Room(form.limit)
    xs: list[npt.NDArray[Any]] = []
    ys: list[IntArray] = []
    for x, labels in batches:
        y = _labels(labels, where)
        found = x.shape[1:]
        fits = len(found) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found, strict=True)
        )
        if not fits:
            raise DataError(
                f"{where}: a sample is {list(found)}, expected {shape_text(form.shape)} as the "
                "model takes it; resize, transpose or batch the samples"
            )
        shape = found  # where the model leaves an axis open, the first batch settles it
        Data(x, y, ())
        if ys and y.shape[1:] != ys[0].shape[1:]:
            raise DataError(
                f"{where}: labels of a sample are {list(y.shape[1:])}, those before "
                f"{list(ys[0].shape[1:])}; resize the label maps to one size"
            )
        if form.limit is not None:
            keep = [row for row, label in enumerate(y) if room.takes(label)]
            x, y = x[keep], y[keep]
        xs.append(_cast(x, form.dtype, where))
        ys.append(y)
    if not sum(map(len, ys)):
        raise DataError(f"{where}: no samples; {_HOW}")
    y = np.concatenate(ys)
    classes = _numbers(y, where) if classes is None else classes
    return Data(xs[0] if len(xs) == 1 else np.concatenate(xs), y, classes)


class _Room:
    """How many samples of each class are still wanted."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._taken = Counter[int]()

    def takes(self, label: Any) -> bool:
        """Whether a sample is wanted for a class in it; if so it counts. Shapes: `[]`, `[H, W]`."""
        held = np.unique(counted(np.atleast_1d(label))).tolist()
        if self._limit is not None and all(self._taken[k] >= self._limit for k in held):
            return False
        self._taken.update(held)
        return True


def _numbers(y: IntArray, where: str) -> tuple[str, ...]:
    """Name the classes by their numbers."""
    labels = counted(y)
    if not labels.size:
        raise _nothing_counts(where)
    return tuple(map(str, range(int(labels.max()) + 1)))


def _nothing_counts(where: str) -> DataError:
    return DataError(f"{where}: every pixel is labelled {IGNORED}, which does not count")


def _labels(labels: npt.NDArray[Any], where: str) -> IntArray:
    """Make class numbers of what the source calls labels.

    Shapes: `[n]`, `[n, 1]` -> `[n]`; `[n, H, W]`, `[n, 1, H, W]` -> `[n, H, W]`.
    """
    if labels.ndim in (2, 4) and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "iufb":
        raise DataError(f"{where}: y is {labels.dtype}, expected class numbers 0, 1, 2, ...")
    with np.errstate(invalid="ignore"):
        y = labels.astype(np.int64)
    wrong = labels[(y != labels) | (y < 0) | (y > MAX_LABEL)]
    if wrong.size:
        raise DataError(f"{where}: label {wrong[0]}, expected class numbers 0, 1, 2, ...")
    return y


def _cast(x: npt.NDArray[Any], dtype: np.dtype[Any], where: str) -> npt.NDArray[Any]:
    """Cast to the model's type, refusing to lose a value; no copy where nothing changes."""
    if x.dtype.kind not in "iufb":
        raise DataError(f"{where}: x is {x.dtype}, expected numbers")
    with np.errstate(invalid="ignore", over="ignore"):
        cast = np.ascontiguousarray(x, dtype)
    if dtype.kind in "iu" and not np.array_equal(cast, x):
        raise DataError(f"{where}: x is {x.dtype} and the model takes {dtype}; round and clip it")
    if dtype.kind == "f" and not np.isfinite(cast).all():
        raise DataError(f"{where}: x holds NaN or infinity as {dtype}; clean the samples")
    return cast


def _from_folder(folder: Path, form: _Wanted) -> Data:
    """Read a folder of class folders."""
    if form.labelled:
        check_layout(folder)
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir() and not is_hidden(one)]
    found = {
        one.name: find_images(one)[: form.limit] for one in (folders if form.labelled else [folder])
    }
    files = [file for group in found.values() for file in group]
    if not files:
        raise DataError(
            f"{folder}: no images, expected one folder of images per class, or images/ and masks/"
        )
    labels, classes = list(range(len(found))), tuple(found)
    if all(name.isascii() and name.isdecimal() and int(name) <= MAX_LABEL for name in found):
        labels = [int(name) for name in found]
        classes = tuple(map(str, range(max(labels) + 1)))
    y = np.repeat(np.array(labels, np.int64), [len(group) for group in found.values()])
    for name, group in found.items():
        if not group:
            logger.warning("%s: class folder %r has no images", folder, name)
    return Data(decode(files, form), y, classes, form.preprocess)


def _from_pairs(folder: Path, form: _Wanted) -> Data:
    """Read images with their label maps, these resized as the images are, by the nearest pixel."""
    pairs = find_pairs(folder)
    if not pairs:
        raise DataError(f"{folder}: no images, expected images/NAME.* and masks/NAME.png")
    if not form.labelled:
        x, y = decode([image for image, _ in pairs], form), np.zeros(len(pairs), np.int64)
        return Data(x, y, (), form.preprocess)
    maps = [_labels(read_map(mask)[None], str(mask))[0] for _, mask in pairs]
    room = _Room(form.limit)
    rows = [row for row, one in enumerate(maps) if room.takes(one)]
    if not rows:
        raise _nothing_counts(str(folder))
    x = decode([pairs[row][0] for row in rows], form)
    size = x.shape[1:3] if form.is_last else x.shape[2:]
    y = np.stack([resize(maps[row], size) for row in rows])
    names = folder / "classes.txt"
    if not names.is_file():
        return Data(x, y, _numbers(y, str(folder)), form.preprocess)
    classes = tuple(filter(None, map(str.strip, names.read_text("utf-8").splitlines())))
    return Data(x, y, classes, form.preprocess)
