"""Which framework a source is of, as its name and its files say. No network is built or loaded."""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from onnxprune.errors import ConversionError
from onnxprune.plugins import find_function

from ._checkpoints import SUFFIXES as CHECKPOINTS
from ._checkpoints import code_in, is_script

SUFFIXES = {
    ".pt2": "pytorch",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".tflite": "tflite",
    ".pdmodel": "paddle",
}
"""Files that are of one framework."""

HUB = re.compile(r"[\w.-]+/[\w.-]+")
YOLO = re.compile(r"(yolo|rtdetr)[\w-]*\.(pt|ya?ml)")

OF_TORCH = ("torch", "torchvision", "timm", "transformers", "segmentation_models_pytorch")
OF_JAX = ("jax", "flax", "equinox", "haiku")
MODULES = {
    **dict.fromkeys(OF_TORCH, "pytorch"),
    **dict.fromkeys(OF_JAX, "jax"),
    "keras": "keras",
}
"""Packages, and whose networks are built with them."""

FILES = "a .pt2, .pt, .keras, .h5, .tflite or .pdmodel file, a folder of a SavedModel or of Paddle"


def is_foreign(source: str) -> bool:
    """Say whether a path is that of a model of another framework, and no ONNX file."""
    path = Path(source)
    if path.is_dir():
        return _folder(path) is not None
    return path.suffix.lower() in {*SUFFIXES, ".pt", ".pth", ".ckpt"} or _is_paddle(path)


def guess(source: str) -> str:
    """Return the name of the converter for a source.

    Raises:
        ConversionError: none fits, or several do; the message names them.
    """
    path, name = Path(source), Path(source).name
    if not path.exists() and ":" in source:
        return _of_function(source)
    if path.is_dir():
        found = _folder(path)
        if found is None:
            raise ConversionError(
                f"{source}: a folder without saved_model.pb, config.json or inference.json; "
                f"expected {FILES}"
            )
        return found
    if path.suffix.lower() in SUFFIXES:
        if not path.exists():
            raise ConversionError(f"{source}: no such file; give the path of a saved model")
        return SUFFIXES[path.suffix.lower()]
    if YOLO.fullmatch(name.lower()) and not path.is_file():
        return "ultralytics"
    if path.suffix.lower() in CHECKPOINTS:
        return _of_checkpoint(path)
    if path.is_file():
        return _of_file(path)
    if HUB.fullmatch(source) and not path.parent.exists():
        return "timm" if source.startswith("timm/") else "huggingface"
    return _of_name(source)


def _folder(path: Path) -> str | None:
    """The framework of a folder, None for another one."""
    if (path / "saved_model.pb").is_file():
        return "tensorflow"
    if any(map(_is_paddle, (*path.glob("*.pdmodel"), *path.glob("*.json")))):
        return "paddle"
    return "huggingface" if (path / "config.json").is_file() else None


def _is_paddle(path: Path) -> bool:
    """Whether a file is a program of Paddle, in its old form or the one in JSON."""
    if path.suffix == ".json" and path.is_file():
        with path.open("rb") as file:
            return b'"pir"' in file.read(200)
    return path.suffix == ".pdmodel"


def _of_checkpoint(path: Path) -> str:
    if not path.is_file():
        raise ConversionError(f"{path}: no such file; give the path of a saved model")
    if is_script(path):
        return "pytorch"
    return "ultralytics" if any(n.startswith("ultralytics.") for n in code_in(path)) else "pytorch"


def _of_file(path: Path) -> str:
    if _is_paddle(path):
        return "paddle"
    hints = {
        ".onnx": "it is ONNX already: prune it as it is",
        ".pdiparams": f"weights of Paddle: give {path.with_suffix('.pdmodel').name} beside it",
        ".pb": "a frozen graph: give the folder of the SavedModel it was made of",
        ".safetensors": "weights without a network: give the network, and these as --weights",
        ".py": f"which function? Give {path}:function",
    }
    hint = hints.get(path.suffix.lower(), f"expected {FILES}")
    raise ConversionError(f"{path}: no source that is known; {hint}")


def _of_function(source: str) -> str:
    """The framework whose network a function builds, told by what its module works with."""
    before = set(sys.modules)
    found: Any = find_function(source, "package.module:function or path/to/file.py:function")
    known = list(dict.fromkeys(_packages(found)))
    fits = list(dict.fromkeys(MODULES[name] for name in known))
    for loaded in (set(sys.modules) - before, set(sys.modules)):
        tops = {name.partition(".")[0] for name in loaded}
        fits = fits or list(dict.fromkeys(MODULES[name] for name in MODULES if name in tops))
    return _only(source, fits or ["pytorch", "jax"], "its module works with")


def _packages(found: Any) -> Iterator[str]:
    """The packages of `MODULES` that an object is of, or that its module imports."""
    kinds = [one.__module__ for one in (found if isinstance(found, type) else type(found)).__mro__]
    of_kind = [kind.partition(".")[0] for kind in kinds]
    if any(name in MODULES for name in of_kind):
        yield next(name for name in of_kind if name in MODULES)
        return
    for value in getattr(found, "__globals__", {}).values():
        module = getattr(value, "__name__", "") if _is_module(value) else _module_of(value)
        if (name := str(module).partition(".")[0]) in MODULES:
            yield name


def _is_module(value: Any) -> bool:
    return type(value).__name__ == "module"


def _module_of(value: Any) -> str:
    return getattr(value, "__module__", "") or ""


def _of_name(source: str) -> str:
    """The collection that has a model of this name."""
    fits, close, missing = [], list[str](), list[str]()
    for framework, names in COLLECTIONS.items():
        if importlib.util.find_spec(framework) is None:
            missing.append(framework)
            continue
        known = names()
        if source.partition(".")[0] in known:
            fits.append(framework)
        close += [name for name in known if _plain(name) == _plain(source)]
    if fits:
        return _only(source, fits, "there is a model of this name in")
    hint = f"; did you mean {close[0]!r}?" if close else ""
    hint += f"; not installed: {', '.join(missing)}" if missing else ""
    raise ConversionError(
        f"{source}: no such file, and no name of a model that is known; expected {FILES}, "
        f"module:function, or a name of torchvision, timm or Hugging Face{hint}"
    )


def _torchvision() -> list[str]:
    from .torchvision import import_torchvision

    return list(import_torchvision().models.list_models())


def _timm() -> list[str]:
    from .timm import import_timm

    return list(import_timm().list_models())


COLLECTIONS: dict[str, Callable[[], list[str]]] = {"torchvision": _torchvision, "timm": _timm}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _only(source: str, fits: list[str], why: str) -> str:
    """The one that fits."""
    if len(fits) == 1:
        return fits[0]
    options = " or ".join(f"--from {name}" for name in fits)
    raise ConversionError(f"{source}: {why} {' and '.join(fits)}; give {options}")
