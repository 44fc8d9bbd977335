"""What the networks of this package are made of."""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10


def conv(
    inputs: int, outputs: int, size: int = 1, stride: int = 1, *, groups: int = 1, act: str = "relu"
) -> nn.Sequential:
    """Convolution without bias, batch normalisation, activation; the size of maps stays."""
    activation = {
        "relu": nn.ReLU,
        "silu": nn.SiLU,
        "leaky": lambda: nn.LeakyReLU(0.1),
        "hardswish": nn.Hardswish,
        "none": nn.Identity,
    }[act]()
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), activation)


def head(width: int, classes: int = CLASSES) -> nn.Sequential:
    """Global average, then one dense layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class Residual(nn.Module):
    """`relu(x + scale * body(x))`."""

    def __init__(self, body: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.body, self.scale = body, scale

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.scale * self.body(x)).relu()
