"""Classifiers made of the building blocks of efficient and of branched networks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.support.networks.blocks import Residual, conv, head


class Ghost(nn.Module):
    """Han et al. 2020: half of the maps by a convolution, the others cheaply from those, cut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.outputs, half = outputs, (outputs + 1) // 2
        self.primary = conv(inputs, half)
        self.cheap = conv(half, half, 3, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        first = self.primary(x)
        return torch.cat([first, self.cheap(first)], 1)[:, : self.outputs]


class Shuffle(nn.Module):
    """Ma et al. 2018: half of the channels pass, the others are convolved, both are shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.body = nn.Sequential(
            conv(half, half), conv(half, half, 3, groups=half, act="none"), conv(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        joined = torch.cat([left, self.body(right)], 1)
        n, c, h, w = joined.shape
        return joined.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class GroupedShuffle(nn.Module):
    """Zhang et al. 2018: grouped 1x1, channel shuffle, depthwise, grouped 1x1."""

    def __init__(self, width: int, groups: int = 3) -> None:
        super().__init__()
        self.groups, inside = groups, width // 2
        self.reduce = conv(width, inside, groups=groups)
        self.expand = nn.Sequential(
            conv(inside, inside, 3, groups=inside, act="none"),
            conv(inside, width, groups=groups, act="none"),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.reduce(x)
        n, c, h, w = y.shape
        y = y.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)
        return (x + self.expand(y)).relu()


class Branches(nn.Module):
    """Szegedy et al. 2017: three branches joined, projected, scaled and added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv(width, 12),
                nn.Sequential(conv(width, 12), conv(12, 14, 3)),
                nn.Sequential(conv(width, 12), conv(12, 16, 3), conv(16, 18, 3)),
            ]
        )
        self.project = nn.Conv2d(44, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([branch(x) for branch in self.branches], 1)
        return (x + 0.17 * self.project(joined)).relu()


class Hierarchy(nn.Module):
    """Gao et al. 2021 (Res2Net): each part of the channels is added to the one before it."""

    def __init__(self, width: int, parts: int = 4) -> None:
        super().__init__()
        self.parts, self.part = parts, width // parts
        self.first = conv(width, width)
        self.convs = nn.ModuleList(conv(self.part, self.part, 3) for _ in range(parts - 1))
        self.last = conv(width, width, act="none")

    def forward(self, x: Tensor) -> Tensor:
        parts = self.first(x).split(self.part, 1)
        done, y = [parts[0]], parts[0]
        for part, layer in zip(parts[1:], self.convs, strict=True):
            y = layer(y + part)
            done.append(y)
        return (x + self.last(torch.cat(done, 1))).relu()


class Inverted(nn.Module):
    """Sandler et al. 2018: wide, depthwise, narrow; depthwise in two kernels as MixNet has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = conv(width, 3 * width)
        part = 3 * width // 2
        self.mixed = nn.ModuleList(conv(part, part, k, groups=part) for k in (3, 5))
        self.narrow = conv(3 * width, width, act="none")

    def forward(self, x: Tensor) -> Tensor:
        parts = self.expand(x).chunk(2, 1)
        mixed = [layer(part) for layer, part in zip(self.mixed, parts, strict=True)]
        return x + self.narrow(torch.cat(mixed, 1))


class Dense(nn.Module):
    """Huang et al. 2017: every layer reads all maps before it, and normalises them anew."""

    def __init__(self, width: int, growth: int = 8, layers: int = 3) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(width + k * growth),
                nn.ReLU(),
                nn.Conv2d(width + k * growth, growth, 3, padding=1, bias=False),
            )
            for k in range(layers)
        )
        self.transition = conv(width + layers * growth, width)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return self.transition(torch.cat(maps, 1))


class Padded(nn.Module):
    """He et al. 2016, option A: the shortcut is subsampled and padded with empty channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(width, width, 3, 2), conv(width, width + 8, 3, act="none"), nn.Identity()
        )
        self.narrow = conv(width + 8, width)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4))
        return self.narrow((shortcut + self.body(x)).relu())


class LastChannel(nn.Module):
    """Liu et al. 2022 (ConvNeXt), with the inner dense layers over the last axis."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.inside = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.inside(y)).permute(0, 3, 1, 2)


def stacked(block: Callable[[int], nn.Module], width: int = 24) -> nn.Sequential:
    """A stem, a block, a wider stage of two more, and a head."""
    return nn.Sequential(
        conv(3, width, 3, 2),
        block(width),
        conv(width, 2 * width, 3, 2),
        block(2 * width),
        block(2 * width),
        head(2 * width),
    )


def ghost(width: int) -> nn.Module:
    return Residual(nn.Sequential(Ghost(width, 35), Ghost(35, width)))


NETWORKS = {
    "ghost": lambda: stacked(ghost),
    "shuffle": lambda: stacked(Shuffle),
    "grouped_shuffle": lambda: stacked(GroupedShuffle),
    "inception_resnet": lambda: stacked(Branches),
    "hierarchy": lambda: stacked(Hierarchy),
    "mixed_depthwise": lambda: stacked(Inverted),
    "dense": lambda: stacked(Dense),
    "padded_shortcut": lambda: stacked(Padded),
    "last_channel": lambda: stacked(LastChannel),
}
