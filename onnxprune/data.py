"""Labelled samples, from wherever they are: a folder, an `.npz`, or anything that yields `(x, y)`.

Every source becomes one `Data`: a single array in the shape and type the model takes, so that
scoring and evaluation only ever slice it. Only folders are decoded and preprocessed here; arrays
are fed as they are. What does not fit the model is a `DataError` before anything runs.
"""

from __future__ import annotations

import importlib
import logging
import runpy
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.errors import DataError, OnnxPruneError

logger = logging.getLogger(__name__)

IntArray: TypeAlias = npt.NDArray[np.int64]

MAX_LABEL = 1_000_000
"""A greater label is a mistake (a date as a folder name), not the number of a class."""

_HOW = (
    "give a folder with one folder per class, an .npz with x and y, package.module:function, "
    "or (x, y) batches"
)


@dataclass(frozen=True)
class Preprocess:
    """What the training pipeline did to a pixel: `(pixel / divisor - mean) / std`, per channel.

    Units: `mean` and `std` are those of `pixel / divisor`, in the order the model takes (`bgr`).
    Source: torchvision `ToTensor` and `Normalize`; `keras.applications.imagenet_utils`.
    """

    divisor: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __call__(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Preprocess one image.

        Shapes: `[H, W, C]` -> `[H, W, C]`.
        """
        x = (pixels[..., ::-1] if self.bgr else pixels).astype(np.float32)
        x /= np.float32(self.divisor)
        x -= np.array(self.mean, np.float32)
        x /= np.array(self.std, np.float32)
        return x


PRESETS: Mapping[str, Preprocess] = MappingProxyType(
    {
        "unit": Preprocess(divisor=255.0),
        "imagenet": Preprocess(255.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        "caffe": Preprocess(mean=(103.939, 116.779, 123.68), bgr=True),
        "tf": Preprocess(127.5, mean=(1.0,)),
        "raw": Preprocess(),
    }
)
"""unit: 0 to 1. imagenet: torchvision. caffe: BGR less its mean. tf: -1 to 1. raw: 0 to 255."""


@dataclass(frozen=True, eq=False)
class Data:
    """Labelled samples as the model takes them; `classes[k]` names label k.

    Shapes: x `[n, ...]`, `x[i]` is one sample; y `[n]`.
    Raises: DataError, when x and y do not pair up.
    """

    x: npt.NDArray[Any]
    y: IntArray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.y.ndim != 1 or self.x.ndim < 1 or len(self.x) != len(self.y):
            raise DataError(
                f"samples: x is {list(self.x.shape)} and y is {list(self.y.shape)}, "
                "expected one label per sample; y holds class numbers, not one-hot rows"
            )

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int) -> Iterator[tuple[npt.NDArray[Any], IntArray]]:
        """Yield views of at most `size` samples, in order."""
        for start in range(0, len(self), size):
            yield self.x[start : start + size], self.y[start : start + size]


Source: TypeAlias = (
    str | Path | Data | tuple[Any, Any] | Iterable[tuple[Any, Any]] | Callable[[], Any]
)


@dataclass(frozen=True)
class _Form:
    """What the samples must become: the model's input, from a folder of classes or of anything."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    preprocess: str
    limit: int | None
    labelled: bool


def load_data(
    source: Source,
    *,
    shape: Sequence[int | None],
    dtype: npt.DTypeLike = np.float32,
    preprocess: str = "auto",
    limit: int | None = None,
    labelled: bool = True,
) -> Data:
    """Read labelled samples in the form the model takes, at most `limit` of each class.

    `source` is a folder with one folder per class, an `.npz` with x and y (and class names in
    `classes`), `package.module:function` or `file.py:function` that returns any of these, an
    `(x, y)`, or an iterable of `(x, y)` batches or `(sample, label)` pairs. The labels of a folder
    are the positions of its sorted class names, or those names where all are plain integers.
    Without `labelled` the images of a folder may lie anywhere in it, and labels say nothing.
    `preprocess` names one of `PRESETS` and serves folders only; `auto` is `imagenet` for three
    channels, `unit` for one, and `raw` where the model takes integers.

    Shapes: `shape` is the model's input without its batch axis, None where it is dynamic.
    Raises: DataError, when the samples cannot be read or do not fit.
    """
    if preprocess not in (have := ("auto", *PRESETS)):
        raise DataError(f"preprocess: {preprocess!r} is unknown, expected one of {', '.join(have)}")
    form = _Form(tuple(shape), np.dtype(dtype), preprocess, limit, labelled)
    return _load(source, form, "samples")


def _load(source: Source, form: _Form, where: str) -> Data:
    """Turn any kind of source into Data."""
    if isinstance(source, Data):
        return _collect([(source.x, source.y)], form, where, source.classes)
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.is_dir():
            return _from_folder(path, form)
        if path.suffix == ".npz" and path.is_file():
            return _from_npz(path, form)
        if ":" in str(source) and not path.exists():
            return _from_function(str(source), form)
        found = "is neither folder nor .npz" if path.exists() else "no such file or folder"
        raise DataError(f"{source}: {found}; {_HOW}")
    if callable(source) and not hasattr(source, "__iter__"):
        return _load(source(), form, where)
    return _collect(_batches(source, where), form, where)


def _from_npz(path: Path, form: _Form) -> Data:
    """Read x, y and, where they are there, the names of the classes."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable .npz ({_first_line(error)})") from error
    if not {"x", "y"} <= arrays.keys():
        found = ", ".join(arrays) or "nothing"
        raise DataError(
            f"{path}: holds {found}, expected x and y; save with np.savez(x=..., y=...)"
        )
    names = tuple(map(str, arrays["classes"].ravel())) if "classes" in arrays else None
    return _collect([(arrays["x"], arrays["y"])], form, str(path), names)


def _from_function(text: str, form: _Form) -> Data:
    """Import `package.module:function` or `file.py:function`, call it, read what it returns."""
    module, _, name = text.rpartition(":")
    path = Path(module).resolve()
    is_file = path.suffix == ".py"
    folder = str(path.parent if is_file else Path.cwd())
    sys.path.insert(0, folder)  # as `python file.py` and `python -m package.module` do
    try:
        names = runpy.run_path(str(path)) if is_file else vars(importlib.import_module(module))
        return _load(names[name](), form, text)
    except OnnxPruneError:
        raise
    except Exception as error:  # the code is the user's: it may raise anything
        raise DataError(
            f"{text}: {_first_line(error)}; expected package.module:function or "
            "path/to/file.py:function that takes nothing and returns samples"
        ) from error
    finally:
        sys.path[:] = [entry for entry in sys.path if entry is not folder]


def _batches(source: Any, where: str) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
    """Yield batches, whether the source is one, yields some, or yields single samples."""
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
                f"{where}: item {position} is not an array ({_first_line(error)}); "
                "convert tensors to NumPy first"
            ) from error
        yield (x[None], y[None]) if y.ndim == 0 else (x, y)


def _collect(
    batches: Iterable[tuple[npt.NDArray[Any], npt.NDArray[Any]]],
    form: _Form,
    where: str,
    classes: tuple[str, ...] | None = None,
) -> Data:
    """Join batches that fit the model into one Data, checking each before it is kept."""
    shape, seen, xs, ys = form.shape, Counter[int](), [], []
    for x, labels in batches:
        y = _labels(labels, where)
        found = x.shape[1:]
        fits = len(found) == len(shape) and all(
            want in (None, have) for want, have in zip(shape, found, strict=True)
        )
        if not fits:
            raise DataError(
                f"{where}: a sample is {list(found)}, expected {_text(form.shape)} as the model "
                "takes it; resize, transpose or batch the samples"
            )
        shape = found  # where the model leaves an axis open, the first batch settles it
        Data(x, y, ())
        if form.limit is not None:
            keep = []
            for row, label in enumerate(y.tolist()):
                seen[label] += 1
                if seen[label] <= form.limit:
                    keep.append(row)
            x, y = x[keep], y[keep]
        xs.append(_cast(x, form.dtype, where))
        ys.append(y)
    if not sum(map(len, ys)):
        raise DataError(f"{where}: no samples; {_HOW}")
    y = np.concatenate(ys)
    if classes is None:
        classes = tuple(map(str, range(int(y.max()) + 1)))
    return Data(xs[0] if len(xs) == 1 else np.concatenate(xs), y, classes)


def _labels(labels: npt.NDArray[Any], where: str) -> IntArray:
    """Make class numbers of what the source calls labels; a column `[n, 1]` is one too."""
    if labels.ndim == 2 and labels.shape[1] == 1:
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


def _from_folder(folder: Path, form: _Form) -> Data:
    """Read a folder of class folders; what Pillow has no reader for is not an image."""
    from PIL import Image

    Image.init()
    readable = {s for s, name in Image.registered_extensions().items() if name in Image.OPEN}
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name[0] != "."]
    found = {
        one.name: [
            file
            for file in sorted(one.rglob("*"))
            if file.suffix.lower() in readable and not file.name.startswith(".")
        ][: form.limit]
        for one in (folders if form.labelled else [folder])
    }
    files = [file for group in found.values() for file in group]
    if not files:
        raise DataError(f"{folder}: no images, expected one folder of images per class")
    labels, classes = list(range(len(found))), tuple(found)
    if all(name.isascii() and name.isdecimal() and int(name) <= MAX_LABEL for name in found):
        labels = [int(name) for name in found]
        classes = tuple(map(str, range(max(labels) + 1)))
    y = np.repeat(np.array(labels, np.int64), [len(group) for group in found.values()])
    for name, group in found.items():
        if not group:
            logger.warning("%s: class folder %r has no images", folder, name)
    return Data(_decode(files, form), y, classes)


def _decode(files: Sequence[Path], form: _Form) -> npt.NDArray[Any]:
    """Read, resize and preprocess images into one array, on several threads.

    Shapes: `[n, C, H, W]`, or `[n, H, W, C]` where only the last axis of `form.shape` is 1 or 3.
    """
    from PIL import Image

    shape = form.shape
    last = len(shape) == 3 and shape[2] in (1, 3) and shape[0] not in (1, 3)
    channels = shape[2 if last else 0] if len(shape) == 3 else None
    if channels not in (1, 3):
        raise DataError(
            f"{files[0]}: the model takes {_text(shape)}, an image needs [C, H, W] or [H, W, C] "
            "with 1 or 3 channels; give an .npz or a function instead"
        )
    preset, mode = _preset(form, channels), "L" if channels == 1 else "RGB"
    first = _read(files[0], mode)
    height, width = shape[:2] if last else shape[1:]
    height, width = height or first.height, width or first.width
    sample = (height, width, channels) if last else (channels, height, width)
    x = np.empty((len(files), *sample), form.dtype)

    def decode(row: int) -> None:
        image = _read(files[row], mode)
        if image.size != first.size and None in shape:
            raise DataError(
                f"{files[row]}: {image.width} x {image.height} pixels, {files[0].name} has "
                f"{first.width} x {first.height}, and the model leaves its size open; "
                "resize the images to one size"
            )
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        values = preset(np.asarray(image).reshape(height, width, channels))
        x[row] = values if last else values.transpose(2, 0, 1)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, range(len(files))):  # raises the first file's error
            pass
    return x


def _preset(form: _Form, channels: int) -> Preprocess:
    """Choose the preset, refusing one that the model's channels or type cannot hold."""
    name = form.preprocess
    if name == "auto":
        name = "raw" if form.dtype.kind in "iu" else "imagenet" if channels == 3 else "unit"
    preset = PRESETS[name]
    if len(preset.mean) not in (1, channels):
        raise DataError(f"preprocess: {name!r} is for 3 channels, the model takes {channels}")
    if form.dtype.kind in "iu" and (name != "raw" or np.iinfo(form.dtype).max < 255):
        raise DataError(f"preprocess: {name!r} does not fit {form.dtype}, which the model takes")
    return preset


def _read(path: Path, mode: str) -> Any:
    """Decode one image as 8-bit `L` or `RGB`."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith("I;16"):  # Pillow would clip at 255
                high = np.asarray(image) >> 8
                return Image.fromarray(high.astype(np.uint8)).convert(mode)
            if image.mode not in ("I", "F"):
                return image.convert(mode)
    except Exception as error:  # decoders raise whatever a broken file leads them to
        raise DataError(
            f"{path}: not a readable image ({_first_line(error)}); replace or remove it"
        ) from error
    raise DataError(f"{path}: pixels of 32 bits, expected 8 or 16; convert the image")


def _text(shape: Sequence[int | None]) -> str:
    """Write a shape as ONNX does, with ? for an open axis."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _first_line(error: BaseException) -> str:
    """Name an error in one line."""
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]
