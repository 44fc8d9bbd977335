"""Build the VGG16 experiment: a pre-trained network on few labelled images.

    python -m tests.benchmarks.vgg16_cifar10 --reference reference.tar --test test.tar -o DIR

The convolutions of VGG16, trained on ImageNet, stay frozen. On top of them a linear head (logistic
regression with an L2 penalty) learns the classes of the reference images. The images may be
CIFAR-10's or any others with one folder per class. `tests.benchmarks.experiment` says what DIR
holds.

The graph is Sub, thirteen Conv and Relu, five MaxPool, Flatten and Gemm. The scale of the pixels
and the order of the colours are folded into the first convolution, which is exact. The mean cannot
be folded, because zeros are padded after it is subtracted: it is the one Sub.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.benchmarks.experiment import (
    Draw,
    draw_options,
    make_experiment,
    next_step,
    picture_options,
    refuse_mixture,
)
from tests.benchmarks.pictures import read_pictures

OPSET = 17
IR_VERSION = 8
SIZE = 64
BGR_MEAN = (103.939, 116.779, 123.68)  # of the Oxford weights, on 0..255

FloatArray = npt.NDArray[np.float32]
Weights = Mapping[str, FloatArray]


# --------------------------------------------------------------------------------------- weights


def read_weights(path: Path) -> tuple[dict[str, FloatArray], FloatArray]:
    """Read the Oxford weights, changed to take RGB images in 0..1, and the mean to subtract.

    The file holds `block1_conv1.weight` [out, in, 3, 3], `block1_conv1.bias` [out] and so on, for
    images in the order BGR, in 0..255 minus their mean.
    """
    try:
        with np.load(path) as file:
            weights = {name: file[name].astype(np.float32) for name in sorted(file)}
        first = weights["block1_conv1.weight"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise click.ClickException(
            f"cannot read VGG weights from {path}: {error}; expected an .npz with "
            "block1_conv1.weight, block1_conv1.bias, ..."
        ) from error
    weights["block1_conv1.weight"] = first[:, ::-1] * np.float32(255)
    return weights, np.array(BGR_MEAN[::-1], np.float32) / np.float32(255)


def download_weights() -> tuple[dict[str, FloatArray], FloatArray]:
    """Return the same from torchvision, whose weights take RGB: (image - mean) / (1 / 255)."""
    try:
        from torchvision.models import VGG16_Weights, vgg16
    except (ImportError, RuntimeError) as error:
        raise click.ClickException(
            f"torchvision cannot be imported ({error}); name a weight file with --weights"
        ) from error
    choice = VGG16_Weights.IMAGENET1K_FEATURES
    try:
        layers = vgg16(weights=choice).features
    except OSError as error:
        raise click.ClickException(
            f"cannot download {choice.url}: {error}; name a weight file with --weights"
        ) from error
    weights: dict[str, FloatArray] = {}
    block = conv = 1
    for layer in layers:
        kind = type(layer).__name__
        if kind == "Conv2d":
            weights[f"block{block}_conv{conv}.weight"] = layer.weight.detach().numpy()
            weights[f"block{block}_conv{conv}.bias"] = layer.bias.detach().numpy()
            conv += 1
        elif kind == "MaxPool2d":
            block, conv = block + 1, 1
    transforms = choice.transforms()
    scale = np.array(transforms.std, np.float32).reshape(1, 3, 1, 1)
    weights["block1_conv1.weight"] = weights["block1_conv1.weight"] / scale
    return weights, np.array(transforms.mean, np.float32)


# ----------------------------------------------------------------------------------------- model


def build(weights: Weights, mean: FloatArray, *, size: int) -> onnx.ModelProto:
    """Build the features of VGG as ONNX, as wide and as deep as the weights are.

    Shapes: image [batch, 3, size, size] in 0..1 -> features [batch, F].
    """
    constants: dict[str, FloatArray] = {"mean": mean.reshape(1, 3, 1, 1)}
    nodes = [helper.make_node("Sub", ["image", "mean"], ["centred"], "subtract_mean")]
    tensor, channels, side = "centred", 3, size

    def add(kind: str, name: str, *parameters: str, **attributes: int | list[int]) -> None:
        nonlocal tensor
        node = helper.make_node(kind, [tensor, *parameters], [name], name)
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        nodes.append(node)
        tensor = name

    names = [key.removesuffix(".weight") for key in sorted(weights) if key.endswith(".weight")]
    for index, name in enumerate(names):
        weight, bias = weights[f"{name}.weight"], weights.get(f"{name}.bias")
        expected = (len(weight), channels, 3, 3)
        if weight.shape != expected or bias is None or bias.shape != expected[:1]:
            raise click.ClickException(
                f"{name}.weight has the shape {weight.shape} and {name}.bias "
                f"{None if bias is None else bias.shape}; expected {expected} and {expected[:1]}"
            )
        constants |= {f"{name}.weight": weight, f"{name}.bias": bias}
        add("Conv", name, f"{name}.weight", f"{name}.bias", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        add("Relu", f"{name}_relu")
        channels = len(weight)
        block = name.split("_")[0]
        if index + 1 == len(names) or names[index + 1].split("_")[0] != block:
            add("MaxPool", f"{block}_pool", kernel_shape=[2, 2], strides=[2, 2])
            side //= 2
    if side < 1:
        raise click.ClickException(f"images of {size} pixels are too small for this network")
    add("Flatten", "features")
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])
    width = channels * side * side
    result = helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["batch", width])
    initializers = [
        numpy_helper.from_array(np.ascontiguousarray(value), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "vgg16", [image], [result], initializers)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="onnxprune tests.benchmarks.vgg16_cifar10",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


# --------------------------------------------------------------------------------------- program


@click.command(help=__doc__.split("\n")[0])
@picture_options
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Oxford weights as .npz.  [default: torchvision's IMAGENET1K_FEATURES]",
)
@click.option("--size", type=click.IntRange(min=1), default=SIZE, show_default=True)
@draw_options
def main(
    reference: Path, test: Path, weights: Path | None, size: int, chosen: Draw, output: Path
) -> None:
    refuse_mixture(output)
    references, tests = read_pictures(reference), read_pictures(test)
    parameters, mean = download_weights() if weights is None else read_weights(weights)
    make_experiment(build(parameters, mean, size=size), references, tests, chosen, output)
    click.echo(next_step(output))


if __name__ == "__main__":
    main()
