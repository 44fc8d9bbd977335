"""Networks from maps to maps: segmentation, key points, super-resolution."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tests.support.networks.blocks import Residual, conv


def twice(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(conv(inputs, outputs, 3), conv(outputs, outputs, 3))


class UNet(nn.Module):
    """Ronneberger et al. 2015: down four times, up again, joined with the maps of the way down.

    `up` is "transpose" (a transposed convolution) or a mode of interpolation.
    """

    WIDTHS = (8, 16, 24, 32)

    def __init__(self, up: str, classes: int = 3) -> None:
        super().__init__()
        self.up, widths = up, self.WIDTHS
        pairs = list(pairwise(widths))
        self.first = twice(3, widths[0])
        self.down = nn.ModuleList(twice(a, b) for a, b in pairs)
        self.raise_ = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, 2) if up == "transpose" else conv(b, a)
            for a, b in reversed(pairs)
        )
        self.join = nn.ModuleList(twice(2 * a, a) for a, _ in reversed(pairs))
        self.last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        maps = []
        for layer in self.down:
            maps.append(x)
            x = layer(nn.functional.max_pool2d(x, 2))
        for raise_, join, across in zip(self.raise_, self.join, reversed(maps), strict=True):
            if self.up != "transpose":
                align = None if self.up == "nearest" else True
                x = interpolate(x, size=across.shape[2:], mode=self.up, align_corners=align)
            x = join(torch.cat([across, raise_(x)], 1))
        return self.last(x)


class Attended(UNet):
    """Oktay et al. 2018: what crosses is gated by one map made of both sides."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__("bilinear", classes)
        widths = self.WIDTHS[-2::-1]
        self.mine = nn.ModuleList(nn.Conv2d(w, 6, 1) for w in widths)
        self.theirs = nn.ModuleList(nn.Conv2d(w, 6, 1) for w in widths)
        self.gate = nn.ModuleList(nn.Conv2d(6, 1, 1) for w in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        maps = []
        for layer in self.down:
            maps.append(x)
            x = layer(nn.functional.max_pool2d(x, 2))
        for k, across in enumerate(reversed(maps)):
            x = interpolate(self.raise_[k](x), scale_factor=2, mode="bilinear")
            gate = self.gate[k]((self.mine[k](x) + self.theirs[k](across)).relu()).sigmoid()
            x = self.join[k](torch.cat([across * gate, x], 1))
        return self.last(x)


class Hourglass(nn.Module):
    """Newell et al. 2016: down and up recursively, a residual branch at every size."""

    def __init__(self, depth: int, width: int) -> None:
        super().__init__()
        self.across = bottleneck(width)
        self.before = bottleneck(width)
        self.inside = Hourglass(depth - 1, width) if depth > 1 else bottleneck(width)
        self.after = bottleneck(width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.after(self.inside(self.before(nn.functional.max_pool2d(x, 2))))
        return self.across(x) + interpolate(y, scale_factor=2, mode="nearest")


def bottleneck(width: int) -> nn.Module:
    return Residual(nn.Sequential(conv(width, width // 2), conv(width // 2, width, 3, act="none")))


class StackedHourglass(nn.Module):
    """Two hourglasses; the key points that the first one finds are fed back. Two outputs."""

    def __init__(self, width: int = 16, points: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv(3, width, 7, 2), bottleneck(width))
        self.first, self.second = Hourglass(3, width), Hourglass(3, width)
        self.found = nn.ModuleList(nn.Conv2d(width, points, 1) for _ in range(2))
        self.back, self.on = nn.Conv2d(points, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        y = self.first(x)
        points = self.found[0](y)
        return points, self.found[1](self.second(x + self.on(y) + self.back(points)))


class Espcn(nn.Module):
    """Shi et al. 2016: super-resolution by a pixel shuffle of the last convolution."""

    def __init__(self, scale: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 32, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(32, 16, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(16, 3 * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Edsr(nn.Module):
    """Lim et al. 2017: residual blocks without normalisation, two pixel shuffles, then filters."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.body = nn.Sequential(*(self.block(width) for _ in range(3)))
        self.up = nn.Sequential(
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.Conv2d(width, 4 * width, 3, padding=1),
            nn.PixelShuffle(2),
            nn.PReLU(width),
            nn.Conv2d(width, 3, 3, padding=1),
        )

    @staticmethod
    def block(width: int) -> nn.Module:
        layers = (nn.Conv2d(width, 20, 3, padding=1), nn.PReLU(20), nn.Conv2d(20, width, 1))
        return Residual(nn.Sequential(*layers), scale=0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.up(x + self.body(x))


class PyramidPooling(nn.Module):
    """Zhao et al. 2017 (PSPNet): maps pooled to several sizes, resized and joined."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(3, width, 3, 2), twice(width, width), conv(width, width, 3, 2)
        )
        self.parts = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), conv(width, 6)) for size in (1, 2, 4, 8)
        )
        self.last = nn.Sequential(conv(2 * width, 12, 3), nn.Dropout(0.1), nn.Conv2d(12, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        size = y.shape[2:]
        maps = [interpolate(p(y), size, mode="bilinear", align_corners=False) for p in self.parts]
        return interpolate(self.last(torch.cat([y, *maps], 1)), x.shape[2:], mode="bilinear")


class StyleTransfer(nn.Module):
    """Johnson et al. 2016: reflected borders, instance normalisation, nearest up-sampling."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        layers = [*self.layer(3, width, 9), *self.layer(width, 2 * width, 3, 2)]
        layers += [Residual(nn.Sequential(*self.layer(2 * width, 2 * width, 3))) for _ in range(2)]
        layers += [nn.Upsample(scale_factor=2), *self.layer(2 * width, width, 3)]
        layers += [nn.ReflectionPad2d(4), nn.Conv2d(width, 3, 9)]
        self.body = nn.Sequential(*layers)

    @staticmethod
    def layer(inputs: int, outputs: int, size: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.ReflectionPad2d(size // 2),
            nn.Conv2d(inputs, outputs, size, stride),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.ReLU(),
        ]

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


NETWORKS = {
    "unet_transpose": lambda: UNet("transpose"),
    "unet_nearest": lambda: UNet("nearest"),
    "unet_bilinear": lambda: UNet("bilinear"),
    "unet_attention": Attended,
    "hourglass": StackedHourglass,
    "espcn": Espcn,
    "edsr": Edsr,
    "pyramid_pooling": PyramidPooling,
    "style_transfer": StyleTransfer,
}
