"""torchvision's models to ONNX, by name: `resnet18`, `mobilenet_v2`, ..."""

import difflib
import functools
import importlib
import inspect
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.error import URLError

from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import first_line

from ._export import Export, Options
from .pytorch import export_network, load_weights

if TYPE_CHECKING:
    import torch


def export(source: str, options: Options) -> Export:
    """Export the model named `source`.

    `options.weights` is None (random, from `options.seed`), a name that torchvision knows, such as
    DEFAULT (downloaded), or the path of a state dict. The shape of a sample is what the model's
    published weights were made for, unless given.

    Raises:
        ConversionError: no such model or weights, or a model that cannot be exported.
        MissingPackage: torch, torchvision or onnxscript is not installed.
    """
    models = import_torchvision().models
    known = models.list_models()
    if source not in known:
        close = difflib.get_close_matches(source, known, n=3)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else "see torchvision's list of models"
        )
        raise ConversionError(f"torchvision has no model {source!r}; {hint}")
    network = _build(models, source, options)
    if options.input_shape is None:
        options = replace(options, input_shape=_input_shape(models, source))
    return export_network(network, source, options)


@functools.cache
def import_torchvision() -> ModuleType:
    """torchvision, also where its compiled part does not fit the installed torch.

    Its models, transforms and data sets need no compiled operators; `nms` and `read_image` do, and
    stay unusable there.

    Raises:
        MissingPackage: torchvision is not installed.
    """
    try:
        return _import()
    except ImportError as error:
        raise MissingPackage(
            "torchvision is not installed: pip install 'onnxprune[convert]'"
        ) from error


def _import() -> ModuleType:
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:  # "operator torchvision::nms does not exist"
        if "torchvision::" not in str(error):
            raise
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    module = importlib.import_module("torchvision")
    vars(module)["_onnxprune_operators"] = library  # they live as long as this object
    return module


def _build(models: ModuleType, name: str, options: Options) -> "torch.nn.Module":
    import torch

    path = options.weights if options.weights and _is_path(options.weights) else None
    published = None if path else options.weights
    builder = models.get_model_builder(name)
    # Detectors would download a backbone even when asked for no weights.
    parts = {"weights_backbone"} & inspect.signature(builder).parameters.keys()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network: torch.nn.Module = builder(weights=published, **dict.fromkeys(parts))
    except (KeyError, ValueError) as error:
        raise ConversionError(
            f"{name}: unknown weights {published!r}; expected one of "
            f"{', '.join(weights.name for weights in models.get_model_weights(name))}, "
            "DEFAULT, or the path of a state dict"
        ) from error
    except (URLError, OSError) as error:
        raise ConversionError(
            f"{name}: weights {published!r} cannot be downloaded: {first_line(error)}; "
            "give the path of a state dict, or none for random weights"
        ) from error
    if path:
        load_weights(network, path)
    return network


def _is_path(weights: str) -> bool:
    return Path(weights).suffix in (".pt", ".pth") or Path(weights).exists()


def _input_shape(models: ModuleType, name: str) -> tuple[int, ...] | None:
    """What the published weights were made for; None if that is not one size of picture."""
    for weights in models.get_model_weights(name):
        crop = getattr(weights.transforms(), "crop_size", None)
        if crop and len(crop) == 1:
            return 3, crop[0], crop[0]
    return None
