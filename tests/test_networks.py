"""torchvision's networks, both exporters: pruned equals masked, and nothing else changes."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
import torch

from onnxprune.channels import BoolArray, find_groups
from onnxprune.converters import convert
from onnxprune.converters.torchvision import import_torchvision
from onnxprune.cost import find_costs
from onnxprune.graph import Graph
from onnxprune.plan import Limits, Picker
from onnxprune.surgery import mask, prune
from tests.models import images, relative_error, run

pytestmark = pytest.mark.slow

EXACT = 1e-5
"""Relative; sums over fewer channels are ordered differently."""

NETWORKS = {
    "vgg16": 4224,
    "vgg16_bn": 4224,
    "resnet18": 4800,
    "resnet50": 26560,
    "mobilenet_v2": 17056,
}
"""Filters in all convolutions; every one of them may go."""


@pytest.fixture(scope="module", params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, with statistics that make batch normalisation do something."""
    name = request.param
    folder: Path = tmp_path_factory.mktemp(name)
    torch.manual_seed(0)
    net = import_torchvision().models.get_model(name, weights=None)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    torch.save(net.state_dict(), folder / f"{name}.pth")
    return folder / f"{name}.pth"


def half(graph: Graph, order: np.ndarray) -> BoolArray:
    groups = find_groups(graph)
    dead = np.zeros(len(groups), np.bool_)
    chosen = Picker(groups, Limits()).pick(order, dead)
    filters = np.cumsum(groups.filter_count[chosen])
    dead[chosen[: np.searchsorted(filters, groups.removable_filters / 2) + 1]] = True
    return dead


def by_magnitude(graph: Graph) -> np.ndarray:
    from onnxprune.criteria import score

    return np.argsort(score(graph, find_groups(graph), None, "magnitude").total(), kind="stable")


def at_random(graph: Graph) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(find_groups(graph)))


@pytest.mark.parametrize("keep_batchnorm", [False, True], ids=["folded", "batchnorm"])
@pytest.mark.parametrize("exporter", ["classic", "dynamo"])
def test_half_of_the_filters_can_go(
    network: Path, exporter: Literal["classic", "dynamo"], keep_batchnorm: bool, tmp_path: Path
) -> None:
    name = network.stem
    if keep_batchnorm and name.startswith("vgg16"):
        pytest.skip("vgg16 has no normalisation to keep; that of vgg16_bn is resnet18's, but large")
    path = convert(
        name,
        tmp_path / "model.onnx",
        framework="torchvision",
        weights=str(network),
        exporter=exporter,
        keep_batchnorm=keep_batchnorm,
    )
    proto = onnx.load(path)
    path.unlink()
    graph = Graph(proto)
    groups = find_groups(graph)
    assert groups.removable_filters == NETWORKS[name]
    for order in (by_magnitude(graph), at_random(graph)):
        dead = half(graph, order)
        small, zeroed = prune(graph, groups, dead), mask(graph, groups, dead)
        onnx.checker.check_model(small, full_check=True)
        for batch in (1, 3):
            x = images(proto, batch)
            assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < EXACT
        assert find_costs(graph, groups).of(dead).params == parameters(small)
        assert_same_frame(small, proto)


def parameters(proto: onnx.ModelProto) -> int:
    return sum(
        int(np.prod(tensor.dims))
        for tensor in Graph(proto).constant_tensors.values()
        if tensor.data_type == onnx.TensorProto.FLOAT
    )


def assert_same_frame(small: onnx.ModelProto, proto: onnx.ModelProto) -> None:
    assert small.ir_version == proto.ir_version
    assert small.opset_import == proto.opset_import
    assert small.metadata_props == proto.metadata_props
    assert small.graph.input == proto.graph.input
    assert small.graph.output == proto.graph.output
    assert [n.name for n in small.graph.node] == [n.name for n in proto.graph.node]
    assert [n.output for n in small.graph.node] == [n.output for n in proto.graph.node]
