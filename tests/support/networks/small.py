"""torchvision's architectures at a width and depth that tests can afford."""

from __future__ import annotations

from functools import partial
from types import ModuleType

from torch import nn

from onnxprune.converters.torchvision import import_torchvision

CLASSES = 10


def models() -> ModuleType:
    found: ModuleType = import_torchvision().models
    return found


def vgg() -> nn.Module:
    layers: list[str | int] = [8, "M", 12, "M", 16, 16, "M", 20, 20, "M"]
    features = models().vgg.make_layers(layers, batch_norm=True)
    network: nn.Module = models().VGG(nn.Identity(), CLASSES)
    network.features, network.avgpool = features, nn.AdaptiveAvgPool2d(2)
    network.classifier = nn.Sequential(
        nn.Linear(80, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, CLASSES)
    )
    return network


def resnet() -> nn.Module:
    block = models().resnet.BasicBlock
    return models().ResNet(block, [2, 1, 1, 1], CLASSES)


def resnext() -> nn.Module:
    block = models().resnet.Bottleneck
    return models().ResNet(block, [1, 2, 1, 1], CLASSES, groups=4, width_per_group=4)


def densenet() -> nn.Module:
    return models().DenseNet(8, (2, 3, 2), 16, num_classes=CLASSES)


def shufflenet() -> nn.Module:
    return models().ShuffleNetV2([2, 2, 2], [16, 32, 64, 128, 64], CLASSES)


def mobilenet_v3() -> nn.Module:
    kind = models().mobilenetv3.InvertedResidualConfig
    settings = [
        kind(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        kind(16, 3, 48, 24, False, "RE", 2, 1, 1.0),
        kind(24, 5, 64, 24, True, "HS", 1, 1, 1.0),
        kind(24, 5, 64, 32, True, "HS", 2, 1, 1.0),
    ]
    return models().MobileNetV3(settings, 64, CLASSES)


def efficientnet() -> nn.Module:
    inverted = partial(models().efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    fused = models().efficientnet.FusedMBConvConfig
    settings = [
        fused(1, 3, 1, 16, 16, 1),
        fused(4, 3, 2, 16, 24, 1),
        inverted(4, 5, 2, 24, 32, 2),
        inverted(4, 3, 1, 32, 40, 1),
    ]
    return models().EfficientNet(settings, 0.2, num_classes=CLASSES, last_channel=96)


def regnet() -> nn.Module:
    parameters = models().regnet.BlockParams.from_init_params(
        depth=6, w_0=16, w_a=16.0, w_m=2.0, group_width=8, se_ratio=0.25
    )
    return models().RegNet(parameters, CLASSES)


def convnext() -> nn.Module:
    kind = models().convnext.CNBlockConfig
    return models().ConvNeXt([kind(16, 24, 1), kind(24, None, 2)], num_classes=CLASSES)


NETWORKS = {
    "vgg": vgg,
    "resnet": resnet,
    "resnext": resnext,
    "densenet": densenet,
    "shufflenet": shufflenet,
    "mobilenet_v2": lambda: models().MobileNetV2(CLASSES, width_mult=0.25),
    "mobilenet_v3": mobilenet_v3,
    "mnasnet": lambda: models().MNASNet(0.25, CLASSES),
    "efficientnet": efficientnet,
    "regnet": regnet,
    "squeezenet": lambda: models().SqueezeNet("1_1", CLASSES),
    "googlenet": lambda: models().GoogLeNet(CLASSES, aux_logits=False, init_weights=False),
    "convnext": convnext,
}
