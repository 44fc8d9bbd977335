"""What a module that is cut states afterwards, and what cannot be cut."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onnxprune
from onnxprune.errors import UnmatchedModule
from onnxprune.modules import tracing
from onnxprune.modules.cutting import restate, with_state
from onnxprune.modules.tracing import outputs_of, trace
from tests.modules.test_back import RATE, images

STATED: dict[str, tuple[nn.Module, tuple[int, ...], dict[str, Any]]] = {
    "conv": (
        nn.Conv2d(6, 8, 3, groups=2),
        (4, 2, 3, 3),
        {"in_channels": 4, "out_channels": 4, "groups": 2},
    ),
    "transposed": (
        nn.ConvTranspose2d(6, 8, 3, groups=2),
        (4, 3, 3, 3),
        {"in_channels": 4, "out_channels": 6, "groups": 2},
    ),
    "dense": (nn.Linear(8, 6), (5, 7), {"in_features": 7, "out_features": 5}),
    "batch": (nn.BatchNorm2d(8), (5,), {"num_features": 5}),
    "groups": (nn.GroupNorm(4, 8), (6,), {"num_channels": 6, "num_groups": 3}),
    "layer": (nn.LayerNorm(8), (5,), {"normalized_shape": (5,)}),
    "slopes": (nn.PReLU(8), (5,), {"num_parameters": 5}),
}


@pytest.mark.parametrize("name", STATED)
def test_a_layer_states_what_its_tensors_are(name: str) -> None:
    layer, shape, stated = STATED[name]
    layer.weight = nn.Parameter(torch.zeros(shape))
    restate(layer)
    assert {one: getattr(layer, one) for one in stated} == stated


def test_a_normalisation_without_weights_states_its_statistics() -> None:
    layer = nn.BatchNorm2d(8, affine=False)
    layer.running_mean = torch.zeros(5)
    restate(layer)
    assert layer.num_features == 5


def test_a_layer_gets_the_groups_that_are_left() -> None:
    module = nn.Sequential(nn.Conv2d(6, 6, 1, groups=6))
    done = with_state(module, {"0.weight": torch.zeros(2, 1, 1, 1).numpy()}, {"0": 2})
    assert (done[0].groups, done[0].in_channels) == (2, 2)
    assert module[0].groups == 6


class Sharing(nn.Module):
    """Two layers that add one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.last = nn.Conv2d(8, 4, 3)
        self.shift = nn.Parameter(torch.rand(8, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x) + self.shift)
        return self.last(torch.relu(self.two(x) + self.shift))


def test_a_vector_of_layers_that_keep_different_channels_is_named(one_thread: None) -> None:
    torch.manual_seed(0)
    with pytest.raises(UnmatchedModule, match="'shift' is read by layers that keep different chan"):
        onnxprune.prune_module(Sharing(), [images()], compensate="none", **RATE)


class Branching(nn.Module):
    """A residual sum, whose branch can go as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.down, self.up = nn.Conv2d(8, 5, 1), nn.Conv2d(5, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        return self.last(x + self.up(torch.relu(self.down(x))))


def test_a_branch_that_went_as_a_whole_is_named(one_thread: None) -> None:
    torch.manual_seed(0)
    module = Branching()
    proto = trace(module, [images(2)], "classic")
    (down,) = [node.name for node in proto.graph.node if "down.weight" in node.input]
    plan = onnxprune.Plan({down: tuple(range(5))}, also=("branches",))
    for small in (onnxprune.apply(proto, plan), proto):
        with pytest.raises(UnmatchedModule, match="takes whole branches out"):
            onnxprune.cut_module(module, small, plan)


def test_a_module_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.9))
    for training in (True, False):
        module.train(training)
        (found,) = outputs_of(module, [images(2)])
        assert module.training is training
        assert torch.equal(found, module[0](images(2)))
        assert not found.requires_grad


def test_a_newer_file_format_of_an_exporter_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    classic = tracing.EXPORTERS["classic"]

    def newer(*given: Any) -> Any:
        model = classic(*given)
        model.ir_version = 13
        return model

    monkeypatch.setitem(tracing.EXPORTERS, "classic", newer)
    assert trace(nn.Conv2d(3, 4, 1), [images(2)], "classic").ir_version == tracing.IR_VERSION


@pytest.mark.parametrize("exporter", sorted(tracing.EXPORTERS))
def test_a_normalisation_is_traced_as_one(exporter: str) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)).eval()
    found = trace(module, [images(2)], exporter)
    assert "BatchNormalization" in {node.op_type for node in found.graph.node}
    held = {tensor.name for tensor in found.graph.initializer}
    assert held >= {"0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"}
