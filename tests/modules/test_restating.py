"""Modules whose code states numbers of channels come back, too."""

import copy
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import onnxprune
from onnxprune.errors import UnmatchedModule
from onnxprune.evaluation import session
from onnxprune.modules.checking import TOLERANCE
from tests.modules.test_back import RATE, difference, images, numbers, trains


class Shuffling(nn.Module):
    """ShuffleNet's shuffle of channels, with their number in the code."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 16, 1, groups=2)
        self.three = nn.Conv2d(16, 8, 3, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(torch.relu(self.one(x)))
        n, _, h, w = x.shape
        x = x.view(n, 2, 8, h, w).transpose(1, 2).reshape((n, 16, h, w))
        return self.three(torch.relu(x))


class Viewed(nn.Module):
    """All pixels of a channel on one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        return self.last(x.view((x.shape[0], 16, x[0, 0].numel())).amax(2))


class Unevenly(nn.Module):
    """ShuffleNet's second block: the halves of what was shuffled lose different numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.norm, self.last = nn.BatchNorm2d(16), nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        for branch in (self.one, self.two):
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, torch.relu(branch(right))), 1)
            n, c, h, w = x.size()
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return self.last(x)


class Ghost(nn.Module):
    """The first of the channels that are there, as GhostNet takes them."""

    def __init__(self, out: int = 12) -> None:
        super().__init__()
        self.out = out
        self.one, self.cheap = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 8, 3, padding=1, groups=2)
        self.last = nn.Conv2d(out, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        return self.last(torch.cat([x, torch.relu(self.cheap(x))], 1)[:, : self.out, :, :])


class Parted(nn.Module):
    """Two halves of unequal use, listed, as YOLOv8 does."""

    def __init__(self) -> None:
        super().__init__()
        self.half = 8
        self.one, self.part = nn.Conv2d(3, 16, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(24, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.one(x).split((self.half, self.half), 1))
        parts.append(torch.relu(self.part(parts[-1])))
        return self.last(torch.cat(parts, 1))


class Sliced(nn.Module):
    """Chunks, and slices from the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 24, 3), nn.Conv2d(8, 4, 1)
        self.two = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.one(x))
        x = self.last(x[:, :8] + x[:, 8:16] * x[:, 16:])
        first, second = torch.chunk(torch.relu(self.two(x)), 2, dim=1)
        return first.mean((2, 3)) + 2 * second.mean((2, 3))


@pytest.mark.parametrize("kind", [Shuffling, Viewed, Unevenly, Ghost, Parted, Sliced])
def test_numbers_in_the_code_are_restated(kind: Any, tmp_path: Path, one_thread: None) -> None:
    torch.manual_seed(0)
    module, x = kind(), images()
    options = {**RATE, "rate": 0.6 if kind is Shuffling else 0.4}
    pruned, result = onnxprune.prune_module(module, [x], compensate="none", **options)
    assert isinstance(pruned, torch.fx.GraphModule) and pruned.training
    assert difference(pruned, result.model, x) <= TOLERANCE
    assert numbers(pruned) < 0.8 * numbers(module)
    path = onnxprune.save_pruned_module(pruned, tmp_path / "small.pt")
    loaded = onnxprune.load_pruned_module(kind(), path)
    assert difference(loaded, result.model, x) <= TOLERANCE
    trains(loaded, x)


def test_a_module_that_trains_stays_as_it_is(one_thread: None) -> None:
    torch.manual_seed(0)
    module, x = Unevenly(), images()
    module.two.eval()
    before = copy.deepcopy(module.state_dict())
    pruned, result = onnxprune.prune_module(module, [x], compensate="none", **RATE | {"rate": 0.4})
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())
    for one in (module, pruned):
        assert one.training and one.norm.training and not one.two.training
    assert difference(pruned, result.model, x) <= TOLERANCE


class Halves(nn.Module):
    """A block that parts what it gets, in a network that knows where its inputs come from."""

    def __init__(self, wide: int, of: int) -> None:
        super().__init__()
        self.one, self.part = nn.Conv2d(wide, 16, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Conv2d(24, 12, 1)
        self.of = of

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.one(x).chunk(2, 1))
        parts.append(torch.relu(self.part(parts[-1])))
        return torch.relu(self.last(torch.cat(parts, 1)))


class Reading(nn.Module):
    """Its loop asks what its input is, so that torch.fx cannot follow it, as Ultralytics' does."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Halves(3, of=-1), nn.Sequential(Halves(12, of=0))])
        self.head = nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        if not isinstance(x, Tensor) or len(more) or float(x.abs().max()) > 1e9:
            raise TypeError
        found = [self.layers[0](x)]
        found.append(self.layers[1](found[getattr(self.layers[0], "of", 7)]))
        return self.head(torch.cat(found, 1))


def test_parts_are_restated_where_the_whole_cannot_be_followed(
    tmp_path: Path, one_thread: None
) -> None:
    torch.manual_seed(0)
    module, x = Reading(), images()
    pruned, result = onnxprune.prune_module(module, [x], compensate="none", **RATE)
    assert isinstance(pruned, Reading) and isinstance(pruned.layers[0], torch.fx.GraphModule)
    assert numbers(pruned) < 0.8 * numbers(module)
    path = onnxprune.save_pruned_module(pruned, tmp_path / "small.pt")
    loaded = onnxprune.load_pruned_module(Reading(), path)
    for one in (pruned, loaded, copy.deepcopy(loaded)):
        assert difference(one, result.model, x) <= TOLERANCE
    trains(loaded, x)


COUNTING = """
import torch
from torch import nn


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        x = torch.relu(self.one(x))
        if x.shape[1] != 8:
            raise ValueError("expected 8 channels")
        return self.two(x)
"""


@pytest.mark.parametrize("folder", ["mine", "torch", "onnxprune"])
def test_a_line_that_does_not_run_is_named(folder: str, tmp_path: Path, one_thread: None) -> None:
    """Wherever the code lies: a clone of onnxprune is in a folder of that name, too."""
    file = tmp_path / folder / "counting.py"
    file.parent.mkdir()
    file.write_text(COUNTING)
    with pytest.raises(UnmatchedModule, match=r"'one', counting\.py:14: ValueError: expected 8"):
        onnxprune.prune_module(
            runpy.run_path(str(file))["Counting"](), [images()], compensate="none", **RATE
        )


def test_a_file_of_other_code_is_refused(tmp_path: Path, one_thread: None) -> None:
    torch.manual_seed(0)
    pruned, _ = onnxprune.prune_module(Ghost(), [images()], compensate="none", **RATE)
    path = onnxprune.save_pruned_module(pruned, tmp_path / "small.pt")

    class Other(Ghost):
        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.cat([self.one(x), self.cheap(self.one(x))], 1))

    with pytest.raises(UnmatchedModule, match="code is not the one"):
        onnxprune.load_pruned_module(Other(14), path)


class Joined(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(1, 8, 3)
        self.last = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(torch.relu(self.one(x) + self.two(y)))


def test_a_module_of_several_inputs_comes_back(one_thread: None) -> None:
    torch.manual_seed(0)
    module, x, y = Joined(), images(), images()[:, :1]
    for batch in (((x, y),), ((x, y), torch.arange(12 * 900).reshape(12, 30, 30) % 4)):
        pruned, result = onnxprune.prune_module(module, [batch], compensate="none", **RATE)
        names = [value.name for value in result.model.graph.input]
        feeds = dict(zip(names, (x.numpy(), y.numpy()), strict=True))
        (expected,) = session(result.model, device="cpu").run(None, feeds)
        with torch.no_grad():
            found = pruned.eval()(x, y).numpy()
        assert abs(found - expected).max() <= TOLERANCE * abs(expected).max()
        assert numbers(pruned) < numbers(module)
