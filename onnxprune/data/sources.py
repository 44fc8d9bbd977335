"""Samples from wherever they are: a folder, an `.npz`, or anything that yields them.

Every source becomes one `Data`: arrays in the shape and type the model takes, so that scoring and
evaluation only ever slice them. Only images are decoded and preprocessed here; arrays are fed as
they are. What does not fit the model is a `DataError` before anything runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.checks import Flag, Number, kind_of
from onnxprune.data.archives import read_arrays
from onnxprune.data.folders import read_folder
from onnxprune.data.forms import HOW, Item, Wanted, collect
from onnxprune.data.inputs import Rows
from onnxprune.data.presets import PREPROCESS
from onnxprune.data.samples import Data
from onnxprune.data.shards import read_shards, shards_in
from onnxprune.data.streamed import Streamed
from onnxprune.errors import DataError, InvalidType, OnnxPruneError, UnknownName
from onnxprune.plugins import WHATEVER, beside, find_function, first_line

MEMORY = Number(
    whole=True,
    least=1,
    optional=True,
    metavar="MB",
    help="Memory for samples, which beyond it are read whenever they are needed, and for "
    "activations during relevance and least squares, in batches that fit. By default a quarter of "
    "what is free, for each.",
)

PER_CLASS = Number(
    whole=True, least=1, optional=True, metavar="N", help="Use at most N samples of each class."
)

_USER_FUNCTION = (
    "package.module:function or path/to/file.py:function that takes nothing and returns samples"
)

InputForm: TypeAlias = tuple[Sequence[int | None], npt.DTypeLike]
"""The shape of an input with its batch axis, None where it is open, and its type."""

SampleSource: TypeAlias = (
    str
    | Path
    | Data
    | npt.NDArray[Any]
    | Mapping[str, Any]
    | tuple[Any, Any]
    | Iterable[Any]
    | Callable[[], Any]
)


def load_data(
    source: SampleSource,
    *,
    shape: Sequence[int | None] = (),
    dtype: npt.DTypeLike = np.float32,
    inputs: Mapping[str, InputForm] | None = None,
    preprocess: str = "auto",
    limit: int | None = None,
    labelled: bool = True,
    any_target: bool = False,
    memory: int | None = None,
    runs: bool = False,
    unread: Collection[str] = (),
) -> Data:
    """Read samples in the form the model takes, at most `limit` of each class.

    `source` is a folder with one folder per class, a folder of `images/` with their label maps in
    `masks/` (and class names in `classes.txt`), a folder of images, or of `.npz` files with the
    inputs of a sample by name; an `.npz` with x, or the inputs by name, and y (and class names in
    `classes`); a `.tar` of WebDataset or a `.parquet`, or a folder of such;
    `package.module:function` or `file.py:function` that returns any of these; an array, a dict of
    inputs by name, an `(x, y)`, or an iterable of such batches or single samples. What has no
    labels gives samples that are not `labelled`. The labels of class folders are the positions of
    their sorted names, or those names where all are plain integers.
    A sample with a label map counts for each class in it; it is taken while one of them has room.
    Without `labelled` the images of a folder may lie anywhere in it, and labels say nothing. With
    `any_target`, targets may be of any shape and type. Inputs that are `unread`, as the model reads
    them nowhere, may be there and are left.
    `preprocess` names one of `PRESETS` and serves images only; `auto` is `imagenet` for three
    channels, `unit` for one, and `raw` where the model takes integers.
    Samples of a folder or file that take more than `memory` are read whenever they are needed.

    Units: memory, MB; None, a quarter of what is free.
    Shapes: `shape` is the model's one input without its batch axis, None where it is dynamic;
    `inputs` gives those of a model with several inputs, or the name of the one. Where samples are
    `runs` they have no batch axis, and each has all axes of the inputs.
    Raises: DataError, when the samples cannot be read or do not fit; InvalidType, InvalidValue or
    UnknownName for another argument that is not as it should be.
    """
    alone = inputs is not None and len(inputs) == 1 and not runs
    if inputs is not None and alone:
        ((shape, dtype),) = ((s[1:], t) for s, t in inputs.values())
    several = {} if inputs is None or alone else inputs
    form = Wanted(
        () if several else _shape(shape),
        _dtype(dtype),
        PREPROCESS("preprocess", preprocess),
        PER_CLASS("limit", limit),
        Flag()("labelled", labelled),
        any_target,
        {name: (_shape(s), _dtype(t)) for name, (s, t) in several.items()},
        next(iter(inputs or ()), ""),
        runs=Flag()("runs", runs),
        unread=frozenset(unread),
        memory=MEMORY("memory", memory),
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


def _load(source: SampleSource, form: Wanted, where: str) -> Data:
    """Turn any kind of source into Data."""
    if isinstance(source, Data):
        y = source.y if source.targets is None else source.targets
        one = Item(source.x, y if source.labelled else None)
        return collect([one], form, where, source.classes if source.labelled else None)
    if isinstance(source, (str, Path)):
        return _from_place(source, form)
    if callable(source) and not hasattr(source, "__iter__"):
        return _load(source(), form, where)
    names = source.get("classes") if isinstance(source, Mapping) else None
    return collect(_items(source, form, where), form, where, _names(names, where))


def _from_place(source: str | Path, form: Wanted) -> Data:
    """Read a folder or an `.npz`, or what a function returns."""
    path = Path(source)
    if path.exists() and not (path.is_dir() or path.is_file()):
        raise DataError(f"{source}: is a pipe or a device; {HOW}")
    if path.exists() and (shards := shards_in(path)):
        return read_shards(shards, form, str(path))
    if path.is_dir():
        files = _archives(path)
        if not files:
            return read_folder(path, form)
        whole = sum(file.stat().st_size for file in files)
        items = (_items(read_arrays(file, form.memory, whole), form, str(file)) for file in files)
        return collect((item for one in items for item in one), form, str(path))
    if path.suffix in (".npz", ".npy") and path.is_file():
        return _load(read_arrays(path, form.memory), form, str(path))
    if ":" in str(source) and not path.exists():
        return _from_function(str(source), form)
    found = "is neither folder nor .npz or .npy" if path.exists() else "no such file or folder"
    raise DataError(f"{source}: {found}; {HOW}")


def _archives(folder: Path) -> list[Path]:
    """The `.npz` files of a folder that holds them beside nothing else."""
    files = [one for one in sorted(folder.iterdir()) if not one.name.startswith(".")]
    return files if all(one.suffix == ".npz" and one.is_file() for one in files) else []


def _from_function(text: str, form: Wanted) -> Data:
    """Import `package.module:function` or `file.py:function`, call it, read what it returns."""
    try:
        with beside(text):
            return _load(find_function(text, _USER_FUNCTION)(), form, text)
    except UnknownName as error:
        raise DataError(str(error)) from error
    except OnnxPruneError:
        raise
    except WHATEVER as error:
        raise DataError(f"{text}: {first_line(error)}; expected {_USER_FUNCTION}") from error


def _names(names: Any, where: str) -> tuple[str, ...] | None:
    try:
        return None if names is None else tuple(map(str, np.ravel(names)))
    except (SystemError, ValueError) as error:  # an array may hold what is no letter
        raise DataError(f"{where}: classes hold no text ({first_line(error)})") from error


def _items(source: Any, form: Wanted, where: str) -> Iterator[Item]:
    """Yield batches, whether the source is one, yields some, or yields single samples."""
    one = isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], tuple)
    if one or isinstance(source, (np.ndarray, Mapping)):
        source = (source,)
    try:
        items = iter(source)
    except TypeError as error:
        raise DataError(f"{where}: cannot read {type(source).__name__}; {HOW}") from error
    for position, item in enumerate(items):
        yield form.item(*_parts(item, form, f"{where}: item {position}", where), where)


def _parts(item: Any, form: Wanted, here: str, where: str) -> tuple[Any, Any]:
    """The inputs of an item, by name where there are several, and its target, None without one."""
    if isinstance(item, Mapping):
        x, y = form.named(item, where)
    elif isinstance(item, (tuple, list)) and len(item) == 2:
        x, y = item
        x = form.named(x, where)[0] if isinstance(x, Mapping) else x
    elif hasattr(item, "__array__"):
        x, y = item, None
    else:
        raise DataError(
            f"{here} is {type(item).__name__}, expected (x, y) or inputs by name; {HOW}"
        )
    try:
        x = {n: _rows(v) for n, v in x.items()} if isinstance(x, dict) else _rows(x)
        return x, y if y is None or form.any_target else np.asarray(y)
    except Exception as error:  # a tensor of any framework may raise anything
        raise DataError(
            f"{here} is not an array ({first_line(error)}); convert tensors to NumPy first"
        ) from error


def _rows(x: Any) -> Rows:
    """An array, or what stands for one that is read later."""
    return x if isinstance(x, Streamed) else np.asarray(x)
