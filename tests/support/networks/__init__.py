"""Networks by name, with random weights: torchvision's, timm's and our own.

A name is torchvision's (`resnet18`), `timm/<name>`, or one of the modules of this package:
`small/<name>` for torchvision's architectures made small, `own/<name>` for the others.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onnxprune.converters.torchvision import import_torchvision

OWN_MODULES = ("attention", "modules", "maps", "pyramid", "yolo")
"""The modules of this package; each lists its networks in `NETWORKS`."""

SIZES = {
    **dict.fromkeys(("alexnet", "vgg16", "vgg16_bn"), 224),
    **dict.fromkeys(("inception_v3", "timm/inception_v4", "timm/inception_resnet_v2"), 107),
    **dict.fromkeys(("timm/nasnetalarge", "timm/pnasnet5large", "timm/selecsls42b"), 128),
    **dict.fromkeys(("timm/botnet26t_256", "timm/halonet26t", "timm/lambda_resnet26t"), 256),
    "timm/bat_resnext26ts": 256,
    **dict.fromkeys(("timm/mobilevit_xxs", "timm/efficientvit_b0"), 128),
    **dict.fromkeys(("timm/levit_128s", "timm/visformer_tiny", "timm/efficientformer_l1"), 224),
    **dict.fromkeys(("timm/coatnet_nano_rw_224", "timm/mobilenetv4_hybrid_medium"), 224),
}
"""Pixels, where `SIZE` does not do: small maps run out, classic exports want adaptive pools that
divide evenly, and position embeddings belong to one size."""

UNSEEN = 1e-3
"""A parameter that is nowhere larger scales away what is before it."""

SIZE = 64
"""Pixels of height and width of the images that most networks are exported for."""


def made_here(family: str) -> dict[str, Callable[[], nn.Module]]:
    """The networks `own/...` or `small/...`: name -> function without arguments."""
    return {
        f"{family}/{name}": make
        for module in (OWN_MODULES if family == "own" else (family,))
        for name, make in importlib.import_module(
            f"tests.support.networks.{module}"
        ).NETWORKS.items()
    }


def build(name: str, **options: Any) -> nn.Module:
    """Make a network in evaluation mode; `options` go to torchvision's or timm's constructor."""
    torch.manual_seed(0)
    family = name.partition("/")[0]
    if family in ("own", "small"):
        network = made_here(family)[name]()
    elif family == "timm":
        import_torchvision()
        timm = importlib.import_module("timm")
        network = timm.create_model(name.removeprefix("timm/"), pretrained=False, **options)
    else:
        network = _torchvision(name, **options)
    return shaken(network).eval()


def size_of(name: str) -> int:
    """Pixels of the images that a network is exported for."""
    return SIZES.get(name, SIZE)


def shaken(network: nn.Module) -> nn.Module:
    """Give batch normalisation statistics, and scales that start at 0, what makes them matter.

    Behind a scale of 1e-6, as of ConvNeXt's residual branches, nothing that is pruned would show.
    """
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    for name, parameter in network.named_parameters():
        if not name.endswith("bias") and parameter.abs().max() < UNSEEN:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def _torchvision(name: str, **options: Any) -> nn.Module:
    models = import_torchvision().models
    builder = models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options |= {"aux_logits": False, "init_weights": False}
    network = builder(weights=None, **options)
    if hasattr(network, "anchor_generator"):
        return RawDetector(network)
    return network


class RawDetector(nn.Module):
    """A torchvision detector without its resizing, boxes and non-maximum suppression."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))
