"""A torch module comes out as its model was pruned, and can be trained."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import ModelProto
from torch import Tensor, nn

import onnxprune
from onnxprune.errors import DataError, InvalidModel, InvalidPlan, InvalidType, UnmatchedModule
from onnxprune.modules.checking import TOLERANCE, rounding
from onnxprune.modules.tracing import outputs_of, trace
from tests.support.exports import EXPORTERS
from tests.support.models import run
from tests.support.networks import build, shaken

RATE: dict[str, Any] = {
    "control": "one-shot",
    "criterion": "magnitude",
    "rate": 0.3,
    "round_to": 1,
    "trust_baseline": True,
}
SIZE = 32


class Block(nn.Module):
    """A layer that is applied twice, a join, a depthwise and a grouped convolution, PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.slopes = nn.PReLU(8)
        self.joined = nn.Conv2d(16, 12, 1, bias=False)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12, bias=False)
        self.depthwise_norm = nn.BatchNorm2d(12, affine=False)
        self.grouped = nn.Conv2d(12, 8, 1, groups=2)
        self.scale = nn.Parameter(torch.rand(8, 1, 1) + 0.5)
        self.group_norm = nn.GroupNorm(4, 8)
        self.up = nn.ConvTranspose2d(8, 6, 2, 2)
        self.up_norm = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.slopes(self.norm(self.stem(x)))
        first = self.slopes(self.shared(x))
        x = torch.cat([first, self.slopes(self.shared(first))], 1)
        x = torch.relu(self.depthwise_norm(self.depthwise(self.joined(x))))
        x = self.group_norm(self.grouped(x) * self.scale)
        x = torch.relu(self.up_norm(self.up(x)))
        return self.last(torch.relu(self.head(x.amax((2, 3)))))


def custom() -> nn.Module:
    torch.manual_seed(3)
    block = shaken(Block())
    for name, parameter in block.named_parameters():
        if name in ("slopes.weight", "group_norm.weight", "group_norm.bias"):
            nn.init.uniform_(parameter, 0.1, 0.9)
    return block


def images(count: int = 12) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(5).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)
    )


def alive(module: nn.Module) -> nn.Module:
    """The module with batch statistics of its own, so that its outputs follow its input."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = 1.0
    with torch.no_grad():
        module.train()(images())
    return module


def difference(module: nn.Module, model: ModelProto, x: Tensor) -> float:
    """The largest difference of the outputs, relative to the largest output."""
    found, expected = outputs_of(module, [x])[0].numpy(), run(model, x.numpy())[0]
    assert np.abs(expected - expected.mean(0)).max() > 1e-4 * np.abs(expected).max()
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def trains(module: nn.Module, x: Tensor) -> None:
    """One step moves every parameter, in training mode."""
    module.train()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(x).square().sum().backward()
    optimizer.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True)]
    assert sum(moved) > 0.9 * len(moved)


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize(
    ("make", "compensate", "also"),
    [
        (custom, "least-squares", ()),
        (custom, "bias", ("dense",)),
        (lambda: build("own/unet_transpose"), "least-squares", ()),
        pytest.param(lambda: build("resnet18"), "least-squares", (), marks=pytest.mark.slow),
        pytest.param(lambda: build("mobilenet_v2"), "bias", (), marks=pytest.mark.slow),
    ],
    ids=["custom", "custom-dense", "unet", "resnet18", "mobilenet_v2"],
)
def test_a_module_is_pruned_and_trains(
    make: Any, compensate: str, also: Any, one_thread: None
) -> None:
    module, x = alive(make()), images()
    before, widths = state_of(module), repr(module)
    pruned, result = onnxprune.prune_module(module, [x], compensate=compensate, also=also, **RATE)
    assert result.report["corrected"] and pruned.training
    assert difference(pruned, result.model, x) <= TOLERANCE
    assert numbers(pruned) < 0.9 * numbers(module)
    assert repr(module) == widths
    assert all(torch.equal(before[name], now) for name, now in module.state_dict().items())
    trains(pruned, x)


@pytest.mark.parametrize("form", ["classic-13", "classic-13-batchnorm", "dynamo"])
@pytest.mark.parametrize("compensate", ["none", "least-squares"])
def test_a_module_is_cut_as_its_exported_model_was(
    form: str, compensate: str, one_thread: None
) -> None:
    module, x = small(), images()
    proto = EXPORTERS[form](module, "small", SIZE)
    result = onnxprune.prune(proto, x.numpy(), compensate=compensate, **RATE)
    pruned = onnxprune.cut_module(module, result.model, result.plan)
    assert difference(pruned, result.model, x) <= TOLERANCE
    assert pruned[0].out_channels == pruned[1].num_features == pruned[0].weight.shape[0] < 8


def small() -> nn.Sequential:
    torch.manual_seed(1)
    return shaken(
        nn.Sequential(
            *(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            nn.Linear(8, 3),
        )
    ).eval()  # type: ignore[return-value]


def pruned_small(module: nn.Module, **options: Any) -> onnxprune.Result:
    proto = trace(module, [images(2)], "classic")
    return onnxprune.prune(proto, images().numpy(), **{**RATE, **options})


def test_names_that_say_nothing_are_matched_in_order(one_thread: None) -> None:
    module = small()
    proto = trace(module, [images(2)], "classic")
    for k, tensor in enumerate(proto.graph.initializer):
        for node in proto.graph.node:
            places = [i for i, name in enumerate(node.input) if name == tensor.name]
            for place in places:
                node.input[place] = f"constant{k}"
        tensor.name = f"constant{k}"
    for k, node in enumerate(proto.graph.node):
        node.name = f"n{k}"
    result = onnxprune.prune(proto, images().numpy(), compensate="bias", **RATE)
    pruned = onnxprune.cut_module(module, result.model, result.plan)
    assert difference(pruned, result.model, images()) <= TOLERANCE


def test_weights_that_were_not_corrected_are_the_modules_own(one_thread: None) -> None:
    module = small()
    result = pruned_small(module, compensate="none")
    pruned = onnxprune.cut_module(module, result.model, result.plan)
    (node,) = [name for name in result.plan.removed if name.startswith("/0/")]
    alive = [k for k in range(8) if k not in result.plan.removed[node]]
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(pruned[1], name), getattr(module[1], name)[alive])
    assert torch.equal(pruned[0].weight, module[0].weight[alive])


def test_the_running_mean_is_the_mean_after_a_correction(one_thread: None) -> None:
    """The mean that training meets: the one that evaluation takes away."""
    torch.manual_seed(2)
    module = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3, bias=False), nn.BatchNorm2d(8)),
        *(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)),
    )
    x = images(64)
    module.train()
    module[3].momentum = 1.0
    with torch.no_grad():
        module(x)
    pruned, _ = onnxprune.prune_module(
        module, [x], compensate="bias", include=("0*",), **{**RATE, "rate": 0.5}
    )
    kept = module.eval()[3].running_mean
    met = pruned.eval()[2](torch.relu(pruned[0](x))).mean((0, 2, 3))
    moved = (met - kept).abs().max()
    assert (pruned[3].running_mean - met).abs().max() < 0.05 * moved


def test_a_closed_normalisation_stays_closed_or_opens(one_thread: None) -> None:
    module = small()
    with torch.no_grad():
        module[1].weight[:3] = 0.0
    for compensate in ("none", "bias"):
        result = pruned_small(module, compensate=compensate, exclude=("0*",))
        pruned = onnxprune.cut_module(module, result.model, result.plan)
        assert difference(pruned, result.model, images()) <= TOLERANCE


def test_a_file_brings_it_back_without_executing_anything(tmp_path: Path, one_thread: None) -> None:
    module, x = custom(), images()
    pruned, result = onnxprune.prune_module(module, [x], compensate="least-squares", **RATE)
    path = onnxprune.export_weights(result.model, result.plan, module, tmp_path / "small.pt")
    other = Block()
    loaded = onnxprune.load_pruned_module(other, path)
    assert numbers(other) == numbers(module)
    assert difference(loaded, result.model, x) <= TOLERANCE
    assert repr(loaded) == repr(pruned)
    content = torch.load(path, weights_only=True)
    assert content["state_dict"].keys() == loaded.state_dict().keys()
    trains(loaded, x)
    onnxprune.save_pruned_module(loaded, path)
    again = onnxprune.load_pruned_module(Block(), path)
    assert torch.equal(outputs_of(again, [x])[0], outputs_of(loaded, [x])[0])


def test_a_bias_that_a_correction_added_is_loaded(tmp_path: Path, one_thread: None) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3, bias=False))
    pruned, _ = onnxprune.prune_module(module, [images()], compensate="bias", **RATE)
    assert pruned[2].bias is not None and module[2].bias is None
    path = onnxprune.save_pruned_module(pruned, tmp_path / "small.pt")
    loaded = onnxprune.load_pruned_module(module, path)
    assert torch.equal(loaded[2].bias, pruned[2].bias)


def test_what_is_shared_and_what_is_frozen_stays_so(one_thread: None) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
            self.two.weight = self.one.weight
            self.one.bias.requires_grad_(False)
            self.last = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(self.one(x) + self.two(x)))

    pruned, result = onnxprune.prune_module(Tied(), [images()], compensate="none", **RATE)
    assert pruned.one.weight is pruned.two.weight and not pruned.one.bias.requires_grad
    assert difference(pruned, result.model, images()) <= TOLERANCE


class Viewed(nn.Module):
    """Code that states a number of channels, or computes something else."""

    def __init__(self, *, loudly: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.loudly = loudly

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        if self.loudly:
            assert x.shape[1] == 8
        return self.two(x if self.loudly else 1.5 * x)


@pytest.mark.parametrize(
    ("loudly", "says"),
    [(True, "does not run .* behind 'one'"), (False, "outputs differ .* first behind 'two'")],
)
def test_where_code_does_not_fit_is_named(
    loudly: bool, says: str, tmp_path: Path, one_thread: None
) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential()
    plain.one, plain.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)  # type: ignore[assignment]
    result = pruned_small(nn.Sequential(plain.one, nn.ReLU(), plain.two), compensate="none")
    module = Viewed(loudly=loudly)
    module.load_state_dict(plain.state_dict())
    with pytest.raises(UnmatchedModule, match=f"^[^\n]*{says}[^\n]*$"):
        onnxprune.export_weights(result.model, result.plan, module, tmp_path / "small.pt")
    assert not list(tmp_path.iterdir())


def test_another_module_is_named(one_thread: None) -> None:
    result = pruned_small(small(), compensate="none")
    fewer = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(3))
    fewer(images(2))
    with pytest.raises(UnmatchedModule, match=r"has 0 convolution ones .*the model 1 \(3\)"):
        onnxprune.cut_module(fewer, result.model, result.plan)
    wider = small()
    wider[3], wider[7] = nn.Conv2d(8, 9, 3), nn.Linear(9, 3)
    with pytest.raises((UnmatchedModule, InvalidPlan), match=r"'3|'/3"):
        onnxprune.cut_module(wider, result.model, result.plan)
    empty = onnxprune.Plan({})
    with pytest.raises(UnmatchedModule, match=r"would be .* without the filters of the plan"):
        onnxprune.cut_module(small(), result.model, empty)
    with pytest.raises(InvalidPlan, match="names 'nothing'"):
        onnxprune.cut_module(small(), result.model, onnxprune.Plan({"nothing": (1,)}))


def test_a_module_that_returns_more_than_was_exported_is_told_so(one_thread: None) -> None:
    """The plan may cut its maps, which are no outputs of the model: that is not the fault."""

    class Telling(nn.Module):
        def __init__(self, inner: nn.Sequential) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            maps = self.inner[:2](x)
            return self.inner[2:](maps), maps

    net = small()
    result = pruned_small(net, compensate="none")
    with pytest.raises(UnmatchedModule, match=r"returns 2 tensors, the model 1; .* was exported"):
        onnxprune.cut_module(Telling(net), result.model, result.plan)


def test_a_layer_that_was_corrected_in_two_ways_is_named(one_thread: None) -> None:
    module, x = custom(), images()
    proto = EXPORTERS["classic-13"](module, "block", SIZE)
    folded = onnxprune.prune(proto, x.numpy(), compensate="none", **RATE)
    weight = next(node for node in folded.model.graph.node if "shared" in node.name).input[1]
    own = next(t for t in folded.model.graph.initializer if t.name == weight)
    twice = copy.deepcopy(own)
    twice.name = "twice"
    twice.raw_data = (np.frombuffer(own.raw_data, np.float32) * 1.5).tobytes()
    folded.model.graph.initializer.append(twice)
    second = [node for node in folded.model.graph.node if weight in node.input][1]
    second.input[1] = "twice"
    with pytest.raises(UnmatchedModule, match="'shared' is applied more than once"):
        onnxprune.cut_module(module, folded.model, folded.plan)


def test_wrong_arguments_are_one_line(tmp_path: Path) -> None:
    anything: Any = {"x": 1}
    for call in (
        lambda: onnxprune.prune_module(anything, [images()]),
        lambda: onnxprune.cut_module(anything, "small.onnx", "plan.json"),
        lambda: onnxprune.save_pruned_module(anything, tmp_path / "x.pt"),
        lambda: onnxprune.load_pruned_module(anything, tmp_path / "x.pt"),
    ):
        with pytest.raises(InvalidType, match=r"expected a torch\.nn\.Module"):
            call()
    with pytest.raises(DataError, match="yields no batch"):
        onnxprune.prune_module(small(), [])
    with pytest.raises(InvalidModel, match="no such file"):
        onnxprune.load_pruned_module(small(), tmp_path / "nothing.pt")
    torch.save({"w": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(InvalidModel, match="not a pruned module"):
        onnxprune.load_pruned_module(small(), tmp_path / "other.pt")
    torch.save(small(), tmp_path / "pickle.pt")
    with pytest.raises(InvalidModel, match="not a pruned module"):
        onnxprune.load_pruned_module(small(), tmp_path / "pickle.pt")
    path = onnxprune.save_pruned_module(small(), tmp_path / "small.pt")
    with pytest.raises(UnmatchedModule, match=r"has no '0\.weight'"):
        onnxprune.load_pruned_module(nn.Linear(1, 1), path)


def test_a_module_may_differ_by_its_own_rounding() -> None:
    class Lost(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (1e6 * x + x) - 1e6 * x

    x = images(3)
    for module, low, high in ((Lost(), 1e-2, 1.0), (small(), 0.0, TOLERANCE)):
        outputs = [tensor.numpy() for tensor in outputs_of(module, [x])]
        assert low <= rounding(module, [x], outputs) <= high
