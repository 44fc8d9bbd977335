"""Whole networks as exporters write them: all is found, pruned equals masked, no more changes."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.cost import Costs, find_costs
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.support.exports import EXPORTERS
from tests.support.halving import EXACT, ORDERS, coverage, difference, half_of_every_group, order_of
from tests.support.models import images, relative_error, run
from tests.support.networks import build, made_here, size_of

pytestmark = pytest.mark.slow

OWN_EXPORTERS = ("classic-11", "classic-13-batchnorm", "dynamo")
SMALL_EXPORTERS = ("classic-13-batchnorm", "dynamo")
"""How the networks of our own are exported, and torchvision's architectures made small."""

STAY = {
    **dict.fromkeys(("own/unet_transpose", "own/unet_nearest", "own/unet_bilinear"), 3),
    **dict.fromkeys(("own/edsr", "own/style_transfer"), 3),
    **dict.fromkeys(("own/retinanet", "own/retinanet_groupnorm"), 4 * (15 + 12)),
    **dict.fromkeys(("own/efficientdet", "own/bifpn_shared"), 3 * (15 + 12)),
    **dict.fromkeys(("own/yolo_v5", "own/yolo_v7"), 3 * 3 * 9),
    "own/unet_attention": 3 + 3 * 1,  # every gate is one map
    "own/hourglass": 2 * 5,
    "own/espcn": 3 * 3**2,
    "own/pyramid_pooling": 4,
    "own/yolo_v8": 3 * (4 * 8 + 4) + 1,  # the average over bins is one filter
    "own/yolo_v8_segment": 4 * 2**2,
    "small/squeezenet": 10,
    # What is reduced or slid over the channels needs all of them, and the residuals tied to it.
    "own/global_response": 2 * 24 + 3 * 48,
    "own/eca": 2 * 24 + 3 * 48 + 3 * 1,
    "own/cbam": 4 * 24 + 7 * 48 + 3 * 1,
    # Layer normalisation needs all channels of the residual; the inner width may go.
    "own/last_channel": 3 * 24 + 5 * 48,
    "small/convnext": 3 * 16 + 5 * 24,
}
"""Filters that stay: those of outputs, and what is said beside them. All others may go."""


SHUFFLES = {"Constant", "Reshape", "Transpose", "Gather", "Shape", "Unsqueeze", "Concat"}
"""What a channel shuffle is written with; one operator takes their place."""


@pytest.mark.parametrize("name", [*made_here("small"), *made_here("own")])
def test_half_of_every_group_can_go_in_every_export(name: str) -> None:
    network = build(name)
    filters = count_filters(network, size_of(name))
    for exporter in SMALL_EXPORTERS if name.startswith("small/") else OWN_EXPORTERS:
        graph = Graph(EXPORTERS[exporter](network, name, size_of(name)))
        groups = find_groups(graph)
        costs = find_costs(graph, groups)
        found = coverage(graph, groups, costs)
        said = f"{exporter}: {dict(found.undefined + found.avoidable)}"
        assert found.filters == filters, said
        assert filters - found.removable == STAY.get(name, 0), said
        for how in ORDERS:
            dead = half_of_every_group(groups, order_of(graph, groups, how, seed=0))
            small = remove_channels(graph, groups, dead)
            onnx.checker.check_model(small, full_check=True)
            assert difference(small, mask(graph, groups, dead)) < EXACT, exporter
            assert_as_announced(small, graph, costs, dead)


@pytest.mark.campaign
@pytest.mark.parametrize("exporter", ["dynamo"])
def test_half_of_vgg16_can_go(exporter: str) -> None:
    """The largest of torchvision's, whole: 138 million parameters."""
    graph = Graph(EXPORTERS[exporter](build("vgg16"), "vgg16", size_of("vgg16")))
    groups = find_groups(graph)
    assert groups.removable_filters == 4224
    dead = half_of_every_group(groups, order_of(graph, groups, "magnitude", seed=0))
    small, x = remove_channels(graph, groups, dead), images(graph.model, batch=1)
    assert relative_error(run(small, x)[0], run(mask(graph, groups, dead), x)[0]) < EXACT
    assert_as_announced(small, graph, find_costs(graph, groups), dead)


def count_filters(network: nn.Module, size: int) -> int:
    """The filters of all convolutions that run, counted by torch, as often as they run."""
    with counted(network) as counts, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return sum(counts)


@contextmanager
def counted(network: nn.Module) -> Iterator[list[int]]:
    """Dense layers over the last of several axes are convolutions, written otherwise."""
    counts: list[int] = []

    def count(module: nn.Module, _: object, y: torch.Tensor) -> None:
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            counts.append(module.out_channels)
        elif isinstance(module, nn.Linear) and y.ndim > 2:
            counts.append(module.out_features)

    hooks = [module.register_forward_hook(count) for module in network.modules()]
    yield counts
    for hook in hooks:
        hook.remove()


def assert_as_announced(
    small: onnx.ModelProto, graph: Graph, costs: Costs, dead: BoolArray
) -> None:
    """The parameters are as many as the costs say, and nothing but the weights has changed."""
    assert costs.of(dead).params == parameters(small)
    whole = graph.model
    assert small.ir_version == whole.ir_version
    assert small.opset_import == whole.opset_import
    assert small.metadata_props == whole.metadata_props
    assert small.graph.input == whole.graph.input
    assert small.graph.output == whole.graph.output
    left = {node.name for node in small.graph.node}
    gone = {node.op_type for node in whole.graph.node if node.name not in left}
    assert gone <= SHUFFLES
    outputs = [node.output for node in whole.graph.node if node.name in left]
    assert [node.output for node in small.graph.node] == outputs


def parameters(model: onnx.ModelProto) -> int:
    """The elements of floating-point constants."""
    held = [attribute.t for node in model.graph.node for attribute in node.attribute]
    tensors = [*model.graph.initializer, *held]
    floats = [tensor for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT]
    return sum(int(np.prod(tensor.dims)) for tensor in floats)
