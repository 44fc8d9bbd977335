"""torchvision's models to ONNX, by name: `resnet18`, `mobilenet_v2`, ..."""

import difflib
import functools
import importlib
import inspect
import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

from onnxprune.data import name_preset
from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import first_line

from ._checkpoints import class_count, fill, is_path, load_state
from ._export import Export, Options, busy, facts
from ._torch import export_network

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
    busy("importing torchvision")
    models = import_torchvision().models
    known = models.list_models()
    if source not in known:
        close = difflib.get_close_matches(source, known, n=3)
        hint = (
            f"did you mean {' or '.join(close)}?" if close else "see torchvision's list of models"
        )
        raise ConversionError(f"torchvision has no model {source!r}; {hint}")
    network = _build(models, source, options)
    if options.input_shape is None and not options.input_shapes:
        options = replace(options, input_shape=_input_shape(models, source))
    exported = export_network(network, source, options)
    if options.weights is None or is_path(options.weights):
        return exported
    return replace(exported, facts=_facts(models, source, options.weights))


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
            "torchvision is not installed: pip install 'onnxprune[torchvision]'"
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

    path = options.weights if options.weights and is_path(options.weights) else None
    published = None if path else options.weights
    state = load_state(path, trust=options.trust) if path else {}
    builder = models.get_model_builder(name)
    known = inspect.signature(builder).parameters.keys()
    # Detectors would download a backbone even when asked for no weights.
    more: dict[str, Any] = dict.fromkeys({"weights_backbone"} & known)
    if path and "kwargs" in known and (count := class_count(state)):
        more["num_classes"] = count
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network: torch.nn.Module = builder(weights=published, **more)
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
        fill(network, state, path)
    return network


def _facts(models: ModuleType, name: str, published: str) -> dict[str, str]:
    """What published weights come with: the scale of pixels, and the classes."""
    weights = models.get_model_weights(name)[published]
    transforms = weights.transforms()
    mean, std = getattr(transforms, "mean", None), getattr(transforms, "std", None)
    preset = name_preset(mean, std) if mean and std else ""
    return facts(preprocess=preset, names=weights.meta.get("categories", ()))


def _input_shape(models: ModuleType, name: str) -> tuple[int, ...] | None:
    """What the published weights were made for; None if that is not one size of picture."""
    for weights in models.get_model_weights(name):
        crop = getattr(weights.transforms(), "crop_size", None)
        if crop and len(crop) == 1:
            return 3, crop[0], crop[0]
    return None
