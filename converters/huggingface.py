"""Hugging Face's models for images and sound to ONNX: by name, or a folder of `save_pretrained`."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from onnxprune.data import name_preset
from onnxprune.errors import ConversionError, MissingPackage
from onnxprune.plugins import first_line

from ._checkpoints import load_weights
from ._export import Export, Options, busy, facts
from ._inputs import samples_of
from ._names import output_names
from ._torch import export_network, import_torch, placed
from .torchvision import import_torchvision

if TYPE_CHECKING:
    import torch


PIXELS = "pixel_values"
SOUND = ("input_values", "input_features")
"""What transformers calls the input of networks for images, and for sound."""


def export(source: str, options: Options) -> Export:
    """Export the model that a name on the hub or a folder of `save_pretrained` stands for.

    Its head is the one that it was saved with: classes, boxes or label maps. The shape of a sample
    is that of its image processor, unless given; a network for sound needs it.

    Raises:
        ConversionError: no such model, or one that takes something else than pixels or sound.
        MissingPackage: torch, transformers or onnxscript is not installed.
    """
    busy("importing transformers")
    transformers = _import()
    busy("loading it")
    network = _load(transformers, source, options)
    if options.weights is not None:
        load_weights(network, options.weights, trust=options.trust)
    taken = getattr(network, "main_input_name", PIXELS)
    if taken not in (PIXELS, *SOUND):
        raise ConversionError(f"{source}: takes {taken}, expected {PIXELS} or {' or '.join(SOUND)}")
    known = _processor(transformers, source)
    given = samples_of(options.input_shape, options.input_shapes, [taken], source)
    shape = given.get(taken) or (_shape(known, network.config) if taken == PIXELS else None)
    options = replace(options, input_shape=shape, input_shapes=())
    exported = export_network(_wrapped(network, taken), source, options)
    return replace(exported, facts=_facts(known, network.config))


def _import() -> ModuleType:
    import_torch()
    try:
        import_torchvision()  # transformers imports it, if it is there
    except MissingPackage:
        pass
    try:
        import transformers
    except ImportError as error:
        raise MissingPackage(
            "transformers is not installed: pip install 'onnxprune[huggingface]'"
        ) from error
    module: ModuleType = transformers
    return module


def _load(transformers: ModuleType, source: str, options: Options) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=options.trust)
        named = [getattr(transformers, name, None) for name in config.architectures or ()]
        kind = next(filter(None, named), transformers.AutoModelForImageClassification)
        extra = {} if hasattr(kind, "forward") else {"trust_remote_code": options.trust}
        return kind.from_pretrained(source, **extra)
    except Exception as error:  # the hub's client raises anything
        known = "is no folder, and" if not Path(source).exists() else "a model of transformers"
        raise ConversionError(
            f"{source}: {known} cannot be loaded: {first_line(error)}; give a name on the hub that "
            "is reachable, or a folder of save_pretrained"
        ) from error


def _wrapped(network: Any, taken: str) -> "torch.nn.Module":
    """The network as a function of its input that returns tensors, no object of transformers."""
    import torch

    class Function(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: "torch.Tensor") -> "dict[str, torch.Tensor]":
            found = placed(self.network(**{taken: x}, return_dict=True))
            names = output_names([place for place, _ in found])
            return {name: tensor for name, (_, tensor) in zip(names, found, strict=True)}

    return Function()


def _processor(transformers: ModuleType, source: str) -> dict[str, Any]:
    """What the image processor of a model says, empty where it has none."""
    try:
        known, _ = transformers.ImageProcessingMixin.get_image_processor_dict(source)
        return dict(known)
    except Exception:  # a model may come without one
        return {}


def _shape(known: dict[str, Any], config: Any) -> tuple[int, ...] | None:
    """The shape that images are brought to before the network sees them."""
    channels = getattr(config, "num_channels", 3)
    size = (known.get("crop_size") if known.get("do_center_crop") else None) or known.get("size")
    size = size or getattr(config, "image_size", None)
    if isinstance(size, dict):
        size = (
            (size.get("height"), size.get("width"))
            if "height" in size
            else size.get("shortest_edge")
        )
    sizes = (size, size) if isinstance(size, int) else tuple(size or ())
    return (channels, *sizes) if len(sizes) == 2 and all(sizes) else None


def _facts(known: dict[str, Any], config: Any) -> dict[str, str]:
    """The scale of the pixels, and the classes unless they are only numbered."""
    mean, std = known.get("image_mean") or (0.0,), known.get("image_std") or (1.0,)
    if not known.get("do_normalize", "image_mean" in known):
        mean, std = (0.0,), (1.0,)
    factor = known.get("rescale_factor", 1 / 255) if known.get("do_rescale", True) else 1.0
    preset = name_preset(mean, std, divisor=1 / factor) if known else ""
    names = {int(k): str(v) for k, v in (getattr(config, "id2label", None) or {}).items()}
    numbered = all(name == f"LABEL_{k}" for k, name in names.items())
    return facts(preprocess=preset, names={} if numbered else names)
