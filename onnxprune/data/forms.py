"""The form that a model takes samples in: items are held against it, and joined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray, in_pieces, is_finite
from onnxprune.data.images import Form, shape_text
from onnxprune.data.inputs import Inputs, Rows, Samples, joined
from onnxprune.data.samples import ALL, Data
from onnxprune.data.streamed import Streamed
from onnxprune.data.targets import Room, are_class_numbers, name_by_number, read_labels
from onnxprune.errors import DataError

HOW = (
    "give a folder of images, with one folder per class or with images/ and masks/, an .npz with x "
    "and y or a folder of such, .tar or .parquet shards, data.yaml or COCO json of a detector, "
    "package.module:function, or (x, y) batches"
)
TARGET, CLASSES = "y", "classes"
"""The names under which an `.npz` or a dict holds targets and the names of classes."""


@dataclass(frozen=True)
class Item:
    """A batch of a source: its samples, and their targets where they have some."""

    x: Samples
    y: Any


@dataclass(frozen=True)
class Wanted(Form):
    """What the samples must become, and how many of each class are wanted.

    `inputs` are the shapes, with their batch axis, and types of several inputs by name, or of one
    where samples are `runs`; `name` is that of the first. `unread` may be given, and say nothing.
    """

    limit: int | None
    labelled: bool
    any_target: bool = False
    inputs: Mapping[str, tuple[tuple[int | None, ...], np.dtype[Any]]] = field(default_factory=dict)
    name: str = ""
    runs: bool = False
    unread: frozenset[str] = frozenset()

    @property
    def is_apart(self) -> bool:
        """Whether the inputs have no common batch axis; a sample is a whole run then."""
        if self.runs:
            return True
        sizes = {shape[0] if shape else 0 for shape, _ in self.inputs.values()}
        return len(sizes) > 1 or 0 in sizes

    def named(self, item: Mapping[str, Any], where: str) -> tuple[Any, Any]:
        """Return the samples of a dict, by name where there are several inputs, and its targets."""
        left = {
            str(n): v
            for n, v in item.items()
            if n in self.inputs or n not in (TARGET, CLASSES, *self.unread)
        }
        names = tuple(self.inputs) or (("x",) if "x" in left else (self.name or "x",))
        missing = [n for n in names if n not in left]
        if missing or len(left) > len(names):
            found, expected = ", ".join(map(str, item)) or "nothing", " and ".join(names)
            raise DataError(
                f"{where}: holds {found}, expected {expected}, and y for labels; save with "
                f"np.savez({names[0]}=..., y=...)"
            )
        x = {name: left[name] for name in names} if self.inputs else left[names[0]]
        return x, None if TARGET in self.inputs else item.get(TARGET)

    def item(self, x: Any, y: Any, where: str) -> Item:
        """Return a batch, or a single sample as a batch of one. Shapes: `[n, ...]` or `[...]`."""
        if not self.inputs:
            single = x.ndim == len(self.shape)
            return Item(_alone(x) if single else x, _batched(y, single))
        if not isinstance(x, dict) and len(self.inputs) == 1:
            x = {self.name: x}
        if not isinstance(x, dict):
            names = ", ".join(self.inputs)
            raise DataError(f"{where}: a sample is one array, expected inputs {names} by name")
        arrays, single = {}, True
        for name, (shape, _) in self.inputs.items():
            alone = x[name].ndim == len(shape) - (not self.is_apart)
            single = single and alone
            arrays[name] = _alone(x[name]) if alone else x[name]
        return Item(Inputs(arrays, self.is_apart), _batched(y, single))

    def fitted(self, x: Samples, where: str) -> tuple[Samples, Wanted]:
        """Return samples in the type that the model takes, and the form with their sizes.

        Raises: DataError where they do not fit.
        """
        if not isinstance(x, Inputs):
            sizes = _fit(x.shape[1:], self.shape, "a sample", where)
            return _cast(x, self.dtype, where), replace(self, shape=sizes)
        arrays: dict[str, Rows] = {}
        inputs: dict[str, Any] = {}
        for name, (shape, dtype) in self.inputs.items():
            want = shape if x.apart else shape[1:]
            found = _fit(x.arrays[name].shape[1:], want, f"input '{name}' of a sample", where)
            arrays[name] = _cast(x.arrays[name], dtype, where)
            inputs[name] = (found if x.apart else (shape[0], *found), dtype)
        if len({len(array) for array in arrays.values()}) != 1:
            counts = ", ".join(f"{len(a)} of '{n}'" for n, a in arrays.items())
            raise DataError(f"{where}: {counts}; expected as many samples of each input")
        return Inputs(arrays, x.apart), replace(self, inputs=inputs)


def _alone(x: Rows) -> Rows:
    """A sample as a batch of one. Shapes: `[...]` -> `[1, ...]`."""
    if not isinstance(x, Streamed):
        return x[None]
    return Streamed(partial(_whole, x), np.arange(1), x.shape, x.dtype)


def _whole(x: Streamed, numbers: IntArray) -> npt.NDArray[Any]:
    return np.asarray(x)[None][numbers]


def _batched(y: Any, single: bool) -> Any:
    """A target as a batch of one, where it is that of a single sample."""
    if y is None or not single:
        return y
    held = np.empty(1, object)
    held[0] = y
    array = np.asarray(y) if hasattr(y, "__array__") or np.isscalar(y) else None
    return held if array is None else array[None]


def _fit(
    found: tuple[int, ...], shape: tuple[int | None, ...], what: str, where: str
) -> tuple[int, ...]:
    fits = len(found) == len(shape) and all(
        want in (None, have) for want, have in zip(shape, found, strict=True)
    )
    if not fits:
        raise DataError(
            f"{where}: {what} is {list(found)}, expected {shape_text(shape)} as the "
            "model takes it; resize, transpose or batch the samples"
        )
    return found


def collect(
    items: Iterable[Item],
    form: Wanted,
    where: str,
    classes: tuple[str, ...] | None = None,
) -> Data:
    """Join batches that fit the model into one Data, checking each before it is kept.

    Raises: DataError for the first that does not fit, and where there is none.
    """
    room, left = Room(form.limit), form.limit
    xs: list[Samples] = []
    ys: list[npt.NDArray[Any]] = []
    labelled: bool | None = None
    for item in items:
        x, form = form.fitted(item.x, where)  # the first batch settles the axes left open
        if labelled is not None and labelled != (item.y is not None):
            raise DataError(f"{where}: some samples have labels and some have none")
        labelled = item.y is not None
        if not labelled:
            x = x[:left]
            left = None if left is None else left - len(x)
            y = np.zeros(len(x), np.int64)
        else:
            y = _targets(item.y, form, where)
            if len(y) != len(x):
                held = "x" if not isinstance(x, Inputs) else "each input"
                shape = [len(x)] if isinstance(x, Inputs) else list(x.shape)
                raise DataError(
                    f"{where}: {held} is {shape} and y is {list(y.shape)}, expected one label or "
                    "label map [H, W] per sample; y holds class numbers, not one-hot rows"
                )
        if ys and not form.any_target and y.shape[1:] != ys[0].shape[1:]:
            raise DataError(
                f"{where}: labels of a sample are {list(y.shape[1:])}, those before "
                f"{list(ys[0].shape[1:])}; resize the label maps to one size"
            )
        if labelled and form.limit is not None and y.dtype.kind in "iu":
            keep = [row for row, label in enumerate(y) if room.takes(label)]
            x, y = x[keep], y[keep]
        xs.append(x)
        ys.append(y)
    if not sum(map(len, ys)):
        raise DataError(f"{where}: no samples; {HOW}")
    return _data(joined(xs), _in_one(ys), classes, labelled and form.labelled, form, where)


def _targets(y: Any, form: Wanted, where: str) -> npt.NDArray[Any]:
    """The labels of a batch, or targets as they are."""
    if not form.any_target:
        return read_labels(np.asarray(y), where)
    try:
        return np.asarray(y)
    except ValueError:  # of different shapes
        return _objects(y)


def _in_one(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """All targets; as objects where they differ in shape, as the boxes of images do."""
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    return _objects([one for part in parts for one in part])


def _objects(rows: Any) -> npt.NDArray[Any]:
    found = np.empty(len(rows), object)
    for place, row in enumerate(rows):
        found[place] = row
    return found


def _data(
    x: Samples,
    y: npt.NDArray[Any],
    classes: tuple[str, ...] | None,
    labelled: bool | None,
    form: Wanted,
    where: str,
) -> Data:
    none: IntArray = np.zeros(len(y), np.int64)
    if not labelled:
        return Data(x, none, ALL, labelled=False)
    if not form.any_target:
        return Data(x, y, name_by_number(y, where) if classes is None else classes)
    if not are_class_numbers(y):
        return Data(x, none, ALL if classes is None else classes, targets=y)
    labels = read_labels(y, where)
    return Data(x, labels, name_by_number(labels, where) if classes is None else classes, targets=y)


def _cast(x: Rows, dtype: np.dtype[Any], where: str) -> Rows:
    """Cast to the model's type, refusing to lose a value; no copy where nothing changes."""
    if x.dtype.kind not in "iufb":
        raise DataError(f"{where}: x is {x.dtype}, expected numbers")
    if isinstance(x, Streamed):
        return x.changed(partial(_cast, dtype=dtype, where=where), dtype)  # type: ignore[arg-type]
    with np.errstate(invalid="ignore", over="ignore"):
        cast = np.ascontiguousarray(x, dtype)
    if dtype.kind in "iu" and not all(map(np.array_equal, in_pieces(cast), in_pieces(x))):
        raise DataError(f"{where}: x is {x.dtype} and the model takes {dtype}; round and clip it")
    if dtype.kind == "f" and not is_finite(cast):
        raise DataError(f"{where}: x holds NaN or infinity as {dtype}; clean the samples")
    return cast
