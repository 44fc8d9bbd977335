"""timm's models to ONNX, by name: `resnet18`, `mobilenetv3_small_050.lamb_in1k`, ..."""

import difflib
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnxprune.data import name_preset
from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import first_line

from ._checkpoints import class_count, fill, is_path, load_state
from ._export import Export, Options, busy, facts
from ._torch import export_network
from .torchvision import import_torchvision

if TYPE_CHECKING:
    import torch

HUB = "timm/"
"""What names begin with on the hub."""


def export(source: str, options: Options) -> Export:
    """Export the model named `source`.

    `options.weights` is None (random, from `options.seed`), DEFAULT or a tag of timm's, such as
    a1_in1k (downloaded), or the path of a checkpoint, whose last layer says how many classes there
    are. The shape of a sample is that of the model's configuration, unless given.

    Raises:
        ConversionError: no such model or weights, or a model that cannot be exported.
        MissingPackage: torch, timm or onnxscript is not installed.
    """
    busy("importing timm")
    timm = import_timm()
    busy("building it")
    name = source.removeprefix(HUB)
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "see timm.list_models()"
        raise ConversionError(f"timm has no model {name!r}; {hint}")
    network = _build(timm, name, options)
    config = timm.data.resolve_model_data_config(network)
    if options.input_shape is None and not options.input_shapes:
        options = replace(options, input_shape=tuple(config["input_size"]))
    exported = export_network(network, source, options)
    preset = name_preset(config["mean"], config["std"])
    published = options.weights is not None and not is_path(options.weights)
    names = _names(timm, network) if published else ()
    return replace(exported, facts=facts(preprocess=preset, names=names))


def import_timm() -> ModuleType:
    """Return timm.

    Raises: MissingPackage: it is not installed.
    """
    try:
        import_torchvision()  # timm imports it, and it needs help beside some builds of torch
        import timm
    except ImportError as error:
        raise MissingPackage("timm is not installed: pip install 'onnxprune[timm]'") from error
    module: ModuleType = timm
    return module


def _build(timm: ModuleType, name: str, options: Options) -> "torch.nn.Module":
    import torch

    path = options.weights if options.weights and is_path(options.weights) else None
    tag = None if path else options.weights
    state = load_state(path, trust=options.trust) if path else {}
    more: dict[str, Any] = {}
    if count := class_count(state):
        more["num_classes"] = count
    wanted = f"{name.partition('.')[0]}.{tag}" if tag not in (None, "DEFAULT") else name
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network: torch.nn.Module = timm.create_model(wanted, pretrained=bool(tag), **more)
    except Exception as error:  # the hub's client raises anything
        raise ConversionError(
            f"{name}: weights {tag!r} cannot be had: {first_line(error)}; "
            "give the path of a checkpoint, or none for random weights"
        ) from error
    if path:
        fill(network, state, path)
    return network


def _names(timm: ModuleType, network: Any) -> list[str]:
    """The names that folders of ImageNet have, where the classes are ImageNet's."""
    subset = timm.data.infer_imagenet_subset(network)
    return list(timm.data.ImageNetInfo(subset).label_names()) if subset else []
