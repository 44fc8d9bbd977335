"""Feature pyramids: maps of several sizes, mixed, and read by one head that all of them share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tests.support.networks.blocks import Residual, conv

WIDTHS = (16, 24, 32)


class Backbone(nn.Module):
    """Three residual stages; gives the maps of all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(
                conv(before, width, 3, 2),
                Residual(nn.Sequential(conv(width, 12, 3), conv(12, width, 3, act="none"))),
            )
            for before, width in zip((8, *WIDTHS), WIDTHS, strict=False)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class TopDown(nn.Module):
    """Lin et al. 2017: the small maps are added to the large ones; one more level on top."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.across = nn.ModuleList(nn.Conv2d(w, width, 1) for w in WIDTHS)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in WIDTHS)
        self.extra = nn.Conv2d(width, width, 3, 2, 1)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [layer(x) for layer, x in zip(self.across, maps, strict=True)]
        for k in (1, 0):
            maps[k] = maps[k] + interpolate(maps[k + 1], size=maps[k].shape[2:], mode="nearest")
        maps = [layer(x) for layer, x in zip(self.smooth, maps, strict=True)]
        return [*maps, self.extra(maps[-1].relu())]


class SharedHead(nn.Module):
    """Lin et al. 2017 (RetinaNet): the same convolutions for every level; classes and boxes."""

    def __init__(self, width: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.classes = self.tower(width, 3 * 5, norm)
        self.boxes = self.tower(width, 3 * 4, norm)

    @staticmethod
    def tower(width: int, outputs: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(width, width, 3, padding=1), norm(width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(width, outputs, 3, padding=1))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.rows(self.classes, maps, 5), self.rows(self.boxes, maps, 4)

    @staticmethod
    def rows(tower: nn.Module, maps: list[Tensor], size: int) -> Tensor:
        """All levels and anchors one after another. Shapes: `[N, A, size]`."""
        found = []
        for x in maps:
            n, _, h, w = (y := tower(x)).shape
            y = y.view(n, -1, size, h, w).permute(0, 3, 4, 1, 2)
            found.append(y.reshape(n, -1, size))
        return torch.cat(found, 1)


class PerLevel(SharedHead):
    """Tan et al. 2020: convolutions shared by the levels, normalisation for each level alone."""

    def __init__(self, width: int) -> None:
        super().__init__(width, nn.Identity)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(4))

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        first, _, _, second, _, _, last = self.classes
        classes = []
        for norm, x in zip(self.norms, maps, strict=False):
            classes.append(last(second(norm(first(x)).relu()).relu()))
        flat = [y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 5) for y in classes]
        return torch.cat(flat, 1).sigmoid(), self.rows(self.boxes, maps, 4)


class Fused(nn.Module):
    """Tan et al. 2020 (BiFPN): every sum has learned weights, `relu(w) / sum(relu(w))`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.across = nn.ModuleList(conv(w, width, act="none") for w in WIDTHS)
        self.up = nn.ModuleList(separable(width) for _ in range(2))
        self.down = nn.ModuleList(separable(width) for _ in range(2))
        self.two = nn.Parameter(torch.rand(3, 2))
        self.three = nn.Parameter(torch.rand(3))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        low, middle, high = (layer(x) for layer, x in zip(self.across, maps, strict=True))
        raised = interpolate(high, scale_factor=2.0, mode="nearest")
        between = self.up[0](fuse(self.two[0], middle, raised))
        raised = interpolate(between, scale_factor=2.0, mode="nearest")
        low = self.up[1](fuse(self.two[1], low, raised))
        lowered = nn.functional.max_pool2d(low, 3, 2, 1)
        middle = self.down[0](fuse(self.three, middle, between, lowered))
        lowered = nn.functional.max_pool2d(middle, 3, 2, 1)
        return [low, middle, self.down[1](fuse(self.two[2], high, lowered))]


def fuse(weights: Tensor, *maps: Tensor) -> Tensor:
    """The weighted mean, through swish."""
    weights = weights.relu()
    weights = weights / (weights.sum() + 1e-4)
    total = sum(weights[k] * x for k, x in enumerate(maps))
    return nn.functional.silu(total)


def separable(width: int) -> nn.Sequential:
    depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))


def detector(neck: type[nn.Module], head: nn.Module, width: int) -> nn.Sequential:
    return nn.Sequential(Backbone(), neck(width), head)


def group_norm(width: int) -> nn.Module:
    """Eight groups of two channels."""
    norm = nn.GroupNorm(8, width)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return norm


NETWORKS = {
    "retinanet": lambda: detector(TopDown, SharedHead(16, nn.Identity), 16),
    "retinanet_groupnorm": lambda: detector(TopDown, SharedHead(16, group_norm), 16),
    "efficientdet": lambda: detector(Fused, PerLevel(16), 16),
    "bifpn_shared": lambda: detector(Fused, SharedHead(16, nn.BatchNorm2d), 16),
}
