"""Attention over channels and over space: classifiers of a stem and three gated residual blocks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.support.networks.blocks import Residual, conv, head


class SqueezeExcite(nn.Module):
    """Hu et al. 2018, with dense layers as in the paper: Flatten, two Gemm, and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, width // 4),
            nn.ReLU(),
            nn.Linear(width // 4, width),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)[:, :, None, None]


class Cbam(nn.Module):
    """Woo et al. 2018: channels gated by average and maximum, then space by both over channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(
            nn.Conv2d(width, width // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(width // 4, width, 1, bias=False),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        average = self.shared(nn.functional.adaptive_avg_pool2d(x, 1))
        largest = self.shared(nn.functional.adaptive_max_pool2d(x, 1))
        x = x * (average + largest).sigmoid()
        maps = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * self.spatial(maps).sigmoid()


class ChannelGate(nn.Module):
    """The channel half of CBAM alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = Cbam(width).shared

    def forward(self, x: Tensor) -> Tensor:
        largest = self.shared(nn.functional.adaptive_max_pool2d(x, 1))
        return x * (self.shared(nn.functional.adaptive_avg_pool2d(x, 1)) + largest).sigmoid()


class Eca(nn.Module):
    """Wang et al. 2020: a one-dimensional convolution slides over the channels themselves."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.slide = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.slide(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * gate.squeeze(1)[:, :, None, None]


class Coordinate(nn.Module):
    """Hou et al. 2021: rows and columns are pooled, joined, encoded together and split again."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.encode = conv(width, width // 2, act="hardswish")
        self.rows = nn.Conv2d(width // 2, width, 1)
        self.columns = nn.Conv2d(width // 2, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        columns = x.mean(2, keepdim=True).permute(0, 1, 3, 2)
        joined = self.encode(torch.cat([x.mean(3, keepdim=True), columns], 2))
        rows, columns = joined.split([height, width], 2)
        gate = self.rows(rows).sigmoid() * self.columns(columns.permute(0, 1, 3, 2)).sigmoid()
        return x * gate


class SelectiveKernel(nn.Module):
    """Li et al. 2019: two branches, weighed for each channel by a softmax over the branches."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv(width, width, 3), conv(width, width, 5, groups=4)])
        self.squeeze = conv(width, width // 4)
        self.choose = nn.Conv2d(width // 4, 2 * width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        maps = torch.stack([branch(x) for branch in self.branches], 1)
        logits = self.choose(self.squeeze(maps.sum(1).mean((2, 3), keepdim=True)))
        weights = logits.view(-1, 2, x.shape[1], 1, 1).softmax(1)
        return (maps * weights).sum(1)


class Frozen(nn.Module):
    """Batch normalisation written out by hand, as detectors' backbones freeze it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "mean", "variance"):
            self.register_buffer(name, torch.rand(width) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.variance + 1e-5).rsqrt()
        shift = self.bias - self.mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class GlobalResponse(nn.Module):
    """Woo et al. 2023: every channel divided by the mean of all channels' norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.randn(1, width, 1, 1))
        self.beta = nn.Parameter(torch.randn(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        norm = x.norm(p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(1, keepdim=True) + 1e-6))) + self.beta + x


def gated(gate: Callable[[int], nn.Module], width: int = 24) -> nn.Sequential:
    """A stem, a residual block, a wider stage of two more; each block ends in a gate."""

    def block(inside: int, between: int) -> Residual:
        return Residual(
            nn.Sequential(conv(inside, between, 3), conv(between, inside, 3), gate(inside))
        )

    return nn.Sequential(
        conv(3, width, 3, 2),
        block(width, 16),
        conv(width, 2 * width, 3, 2),
        block(2 * width, 32),
        block(2 * width, 20),
        head(2 * width),
    )


NETWORKS = {
    "squeeze_excite": lambda: gated(SqueezeExcite),
    "cbam": lambda: gated(Cbam),
    "channel_gate": lambda: gated(ChannelGate),
    "eca": lambda: gated(Eca),
    "coordinate": lambda: gated(Coordinate),
    "selective_kernel": lambda: gated(SelectiveKernel),
    "frozen_batchnorm": lambda: gated(Frozen),
    "global_response": lambda: gated(GlobalResponse),
}
