"""Detectors of the YOLO family, with their heads: focus or strided stems, C3, C2f, ELAN, SPPF."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d

from tests.support.networks.blocks import conv

CLASSES = 4
BINS = 8


def swish(inputs: int, outputs: int, size: int = 1, stride: int = 1) -> nn.Module:
    return conv(inputs, outputs, size, stride, act="silu")


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, with a shortcut or without."""

    def __init__(self, width: int, shortcut: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(swish(width, width // 2, 3), swish(width // 2, width, 3))
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.shortcut else self.body(x)


class C2f(nn.Module):
    """YOLOv8: half of the channels through bottlenecks, and everything in between joined."""

    def __init__(self, inputs: int, outputs: int, count: int = 2, shortcut: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.first = swish(inputs, outputs)
        self.blocks = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(count))
        self.last = swish((2 + count) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.last(torch.cat(parts, 1))


class C3(nn.Module):
    """YOLOv5: two branches, one through bottlenecks, joined."""

    def __init__(self, inputs: int, outputs: int, count: int = 1) -> None:
        super().__init__()
        half = outputs // 2
        self.left, self.right = swish(inputs, half), swish(inputs, half)
        self.blocks = nn.Sequential(*(Bottleneck(half) for _ in range(count)))
        self.last = swish(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([self.blocks(self.left(x)), self.right(x)], 1))


class Elan(nn.Module):
    """YOLOv7: every second map of a chain, and both ends, joined."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        half = outputs // 2
        self.ends = nn.ModuleList(swish(inputs, half) for _ in range(2))
        self.chain = nn.ModuleList(
            nn.Sequential(swish(half, half, 3), swish(half, half, 3)) for _ in range(2)
        )
        self.last = swish(4 * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        maps = [end(x) for end in self.ends]
        for layer in self.chain:
            maps.append(layer(maps[-1]))
        return self.last(torch.cat(maps[::-1], 1))


class Sppf(nn.Module):
    """One pool three times over, all four maps joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.last = swish(width, width // 2), swish(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.first(x)]
        for _ in range(3):
            maps.append(max_pool2d(maps[-1], 5, 1, 2))
        return self.last(torch.cat(maps, 1))


class Focus(nn.Module):
    """Every second pixel in four slices, joined."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.conv = swish(12, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        even, odd = x[..., ::2, :], x[..., 1::2, :]
        parts = (even[..., ::2], odd[..., ::2], even[..., 1::2], odd[..., 1::2])
        return self.conv(torch.cat(parts, 1))


class MaxDown(nn.Module):
    """YOLOv7: half of the channels pooled, half by a strided convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooled = swish(width, width // 2)
        self.strided = nn.Sequential(swish(width, width // 2), swish(width // 2, width // 2, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(x), self.pooled(max_pool2d(x, 2, 2))], 1)


class Reparameterised(nn.Module):
    """Ding et al. 2021, as trained: 3x3, 1x1 and identity, each normalised, added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.large, self.small = conv(width, width, 3, act="none"), conv(width, width, act="none")
        self.same = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.large(x) + self.small(x) + self.same(x))


class PathAggregation(nn.Module):
    """A backbone of three levels, then down and up with joins (Liu et al. 2018)."""

    def __init__(
        self, stem: nn.Module, block: type[nn.Module], down: type[nn.Module] | None = None
    ) -> None:
        super().__init__()
        a, b, c = self.widths = (16, 32, 48)
        self.stem, self.first = stem, block(a, a)
        lower = down or (lambda width: swish(width, width, 3, 2))
        self.lower = nn.ModuleList([lower(a), lower(b)])
        self.stages = nn.ModuleList([block(a, b), block(b, c)])
        self.pool = Sppf(c)
        self.top, self.middle = block(c + b, b), block(b + a, a)
        self.again = nn.ModuleList([swish(a, a, 3, 2), swish(b, b, 3, 2)])
        self.join = nn.ModuleList([block(a + b, b), block(b + c, c)])

    def forward(self, x: Tensor) -> list[Tensor]:
        low = self.first(self.stem(x))
        middle = self.stages[0](self.lower[0](low))
        high = self.pool(self.stages[1](self.lower[1](middle)))
        between = self.top(torch.cat([interpolate(high, scale_factor=2), middle], 1))
        low = self.middle(torch.cat([interpolate(between, scale_factor=2), low], 1))
        middle = self.join[0](torch.cat([self.again[0](low), between], 1))
        high = self.join[1](torch.cat([self.again[1](middle), high], 1))
        return [low, middle, high]


class Distribution(nn.Module):
    """YOLOv8's head: boxes as distributions over bins, averaged by a fixed convolution, decoded."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.boxes = nn.ModuleList(self.tower(w, 4 * BINS) for w in widths)
        self.classes = nn.ModuleList(self.tower(w, CLASSES) for w in widths)
        self.average = nn.Conv2d(BINS, 1, 1, bias=False).requires_grad_(False)
        self.average.weight.data[:] = torch.arange(BINS, dtype=torch.float).view(1, BINS, 1, 1)

    @staticmethod
    def tower(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(swish(inputs, 16, 3), swish(16, 16, 3), nn.Conv2d(16, outputs, 1))

    def forward(self, maps: list[Tensor]) -> Tensor:
        found = [
            torch.cat([box(x), kind(x)], 1)
            for box, kind, x in zip(self.boxes, self.classes, maps, strict=True)
        ]
        flat = torch.cat([y.view(y.shape[0], 4 * BINS + CLASSES, -1) for y in found], 2)
        box, kind = flat.split((4 * BINS, CLASSES), 1)
        n, _, anchors = box.shape
        box = self.average(box.view(n, 4, BINS, anchors).transpose(2, 1).softmax(1))
        left, right = box.view(n, 4, anchors).chunk(2, 1)
        points = torch.cat([grid(y) for y in maps], 1)
        low, high = points - left, points + right
        return torch.cat([(low + high) / 2, high - low, kind.sigmoid()], 1)


def grid(x: Tensor) -> Tensor:
    """The middles of all pixels. Shapes: `[2, H W]`."""
    rows, columns = (torch.arange(n, dtype=torch.float) + 0.5 for n in x.shape[2:])
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy")).flatten(1)


class Anchors(nn.Module):
    """YOLOv5's head: three anchors a pixel, boxes decoded by sigmoid, power and grid."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(w, 3 * (5 + CLASSES), 1) for w in widths)
        self.sizes = nn.Parameter(torch.rand(len(widths), 3, 1, 1, 2) + 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        found = []
        for layer, size, x in zip(self.convs, self.sizes, maps, strict=True):
            n, _, h, w = x.shape
            y = layer(x).view(n, 3, 5 + CLASSES, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            place, extent, rest = y.split((2, 2, 1 + CLASSES), 4)
            place = place * 2 + grid(x).view(2, h, w).permute(1, 2, 0) - 0.5
            y = torch.cat([place, (extent * 2) ** 2 * size, rest], 4)
            found.append(y.view(n, -1, 5 + CLASSES))
        return torch.cat(found, 1)


class PixelUp(nn.Module):
    """A segmentation head: all maps joined at the largest size, raised by pixel shuffles."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.body = nn.Sequential(
            swish(sum(widths), 48), nn.PixelShuffle(2), swish(12, 16), Reparameterised(16)
        )
        self.last = nn.Conv2d(16, CLASSES * 4, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        size = maps[0].shape[2:]
        joined = torch.cat([interpolate(x, size=size, mode="bilinear") for x in maps], 1)
        return nn.functional.pixel_shuffle(self.last(self.body(joined)), 2)


def yolo_v8(head: type[nn.Module] = Distribution) -> nn.Module:
    stem = nn.Sequential(swish(3, 8, 3, 2), swish(8, 16, 3, 2))
    return with_head(PathAggregation(stem, C2f), head)


def yolo_v5() -> nn.Module:
    return with_head(
        PathAggregation(nn.Sequential(Focus(8), swish(8, 16, 3, 2)), C3, None), Anchors
    )


def yolo_v7() -> nn.Module:
    stem = nn.Sequential(swish(3, 16, 3, 2), Reparameterised(16), swish(16, 16, 3, 2))
    return with_head(PathAggregation(stem, Elan, MaxDown), Anchors)


def with_head(body: PathAggregation, head: type[nn.Module]) -> nn.Module:
    return nn.Sequential(body, head(body.widths))


NETWORKS = {
    "yolo_v5": yolo_v5,
    "yolo_v7": yolo_v7,
    "yolo_v8": yolo_v8,
    "yolo_v8_segment": lambda: yolo_v8(PixelUp),
}
