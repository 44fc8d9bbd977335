"""Relevance of whole networks against zennit, and on a GPU against the CPU."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance, start
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.routes import find_logits
from onnxprune.relevance.rules import RULES, Composite, Rule, Span
from tests.support.dense import NORM, REPLICAS, WITH_BIAS, every, mirror_of, residual, sums
from tests.support.models import images

ORACLE = 1e-4
"""Relative: zennit adds its stabilisers at other places."""


# zennit

NETWORKS = {"vgg16": "VGGCanonizer", "resnet18": "ResNetCanonizer"}


def network(name: str) -> nn.Module:
    """A network with random weights; normalisation without epsilon, which zennit applies twice."""
    from onnxprune.converters.torchvision import import_torchvision

    torch.manual_seed(0xC0FFEE)
    net: nn.Module = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    if name == "vgg16":
        net.avgpool = nn.Identity()
        net.classifier = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.05)
    return net.eval()


def zennit_relevance(
    net: nn.Module, canonizer: str, rule: str, x: Tensor, y: Tensor
) -> list[Tensor]:
    """The relevance at the output of each convolution, in the order in which they run."""
    import zennit.torchvision
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import AlphaBeta, Epsilon, Gamma, ZPlus
    from zennit.types import Convolution

    hook = {
        "epsilon": Epsilon(),
        "zplus": ZPlus(zero_params="bias"),
        "gamma": Gamma(),
        "alpha-beta": AlphaBeta(),
    }[rule]
    composite = LayerMapComposite(
        layer_map=[*layer_map_base(), (Convolution, hook), (nn.Linear, hook)],
        canonizers=[getattr(zennit.torchvision, canonizer)()],
    )
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    with composite.context(net) as modified:
        convs = [m for m in modified.modules() if isinstance(m, nn.Conv2d)]
        handles = [conv.register_forward_hook(keep) for conv in convs]
        logits = modified(x.clone().requires_grad_())
        logits.backward(start(logits.detach(), y))
        for handle in handles:
            handle.remove()
    return [output.grad for output in outputs if output.grad is not None]


@pytest.fixture
def quiet() -> Iterator[None]:
    """The exporters and zennit warn of their own affairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", NETWORKS)
def test_filters_have_the_relevance_that_zennit_gives_them(name: str) -> None:
    from onnxprune.converters import Options
    from onnxprune.converters.pytorch import export_network

    net = network(name)
    options = Options(input_shape=(3, 32, 32), exporter="classic", keep_batchnorm=True)
    mirror = mirror_of(export_network(net, name, options).model)
    outputs = [filters.output for filters in find_groups(mirror.graph).filters]
    net = net.double()
    x, y = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 7])
    for rule in REPLICAS:
        found = relevance(mirror, x, y, RULES[rule], outputs, reduce=lambda _, r: r.sum((2, 3)))
        expected = zennit_relevance(net, NETWORKS[name], rule, x, y)
        assert len(expected) == len(outputs) == {"vgg16": 13, "resnet18": 20}[name]
        for output, theirs in zip(outputs, expected, strict=True):
            theirs = theirs.sum((2, 3))
            difference = (found[output] - theirs).abs()
            assert theirs.abs().max() > 0
            assert (difference <= ORACLE * theirs.abs() + 1e-9 * theirs.abs().max()).all(), output


UNBIASED = ("mobilenet_v3_small", "convnext_tiny")


def unbiased(name: str) -> nn.Module:
    """A network whose activations are of the size of trained ones, and in which no bias adds."""
    from onnxprune.converters.torchvision import import_torchvision

    torch.manual_seed(0xBEE)
    net: nn.Module = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
    with torch.no_grad():
        for _ in range(4 if norms else 0):
            net.train()(torch.randn(8, 3, 64, 64))
        for norm in norms:
            norm.running_mean.zero_()
        for key, value in net.named_parameters():
            if key.endswith("bias"):
                value.zero_()
    return net.eval()


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", UNBIASED)
def test_whole_networks_lose_only_what_biases_and_the_stabiliser_take(name: str) -> None:
    from onnxprune.converters import Options
    from onnxprune.converters.pytorch import export_network

    options = Options(input_shape=(3, 64, 64), exporter="classic", keep_batchnorm=True)
    mirror = mirror_of(export_network(unbiased(name), name, options).model)
    outputs = [filters.output for filters in find_groups(mirror.graph).filters]
    logits = find_logits(mirror)
    exact = Rule("epsilon", epsilon=1e-13)
    composite = Composite("exact", (Span(1.0, exact, exact),))
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64))
    found = relevance(mirror, x, np.array([1, 3]), composite, [logits, *outputs])
    assert set(outputs) <= found.keys()
    first, last = sums(found, f"{outputs[0]} {logits}")
    size = float(found[outputs[0]].abs().sum())
    assert first == pytest.approx(last, abs=1e-6 * max(size, 1))


@pytest.mark.gpu
@pytest.mark.parametrize("rule", RULES)
def test_the_gpu_agrees(rule: str) -> None:
    proto = residual(**WITH_BIAS, **NORM)
    x = images(proto, 3)
    mirrors = [folded(Mirror(Graph(proto), device=d, dtype=torch.float64)) for d in ("cpu", "cuda")]
    expected, found = (every(mirror, x, [0, 1, 3], rule) for mirror in mirrors)
    assert torch.allclose(found["a"].cpu(), expected["a"], rtol=1e-6, atol=1e-12)
