"""Convolutions with kernels of 3 x 3 in a quarter of the multiplications, on a CPU.

A tile of 4 x 4 outputs reads 6 x 6 inputs. Both it and the kernel are polynomials; at 6 x 6 points
their product is a product of numbers, so over channels it is one product of matrices for each
point. The way back to the inputs is the same steps transposed, with the same weights.

An output is exact up to rounding relative to the largest of its tile, not to itself: what is small
beside its neighbours is not known well. So it serves epsilon, whose quotients are as large as
gradients. Rules that divide by sums of one sign, which may be small where relevance is not, use it
on the way back alone.
Source: Winograd 1980 (Arithmetic complexity of computations), section 5; Lavin and Gray 2016 (Fast
algorithms for convolutional neural networks). The points are ours: with these the largest error is
a quarter of that of 0, ±1, ±2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.ops._spaces import space
from onnxprune.ops._torch import torch
from onnxprune.ops.window import Widths

if TYPE_CHECKING:
    from torch import Tensor

    Exact = Callable[[Tensor, Tensor, Tensor | None], Tensor]

POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""And infinity."""
TILE, KERNEL = 4, 3
REACH = TILE + KERNEL - 1
ALL = REACH * REACH
GAIN = 112
"""Multiplications saved for each number that is transformed; with less a convolution gains less
than a fifth, or loses."""
FEWEST = 8
"""Tiles; of fewer, the weights at the points take longer to read than the kernels do."""
FEWEST_FRESH = 4 * FEWEST
"""Tiles for which weights that are not held are taken to the points."""
MOST = 2**21
"""Numbers at the points, of inputs and outputs, that are computed at once."""


def is_quicker(x: Tensor, w: Tensor, widths: Widths, *, held: bool = True) -> bool:
    """Return whether a convolution of stride 1 gains by it: it depends on shapes and types alone.

    Weights may be `held` at the points, or be of one use, as where only the way back is quick.
    Shapes: x `[N, C, H, W]`, w `[M, C, 3, 3]`.
    """
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return False
    if x.dtype != w.dtype or w.requires_grad or tuple(w.shape[1:]) != (x.shape[1], KERNEL, KERNEL):
        return False
    if any(not 0 <= width < KERNEL for pair in widths for width in pair):
        return False
    high, wide = (n + sum(pair) - KERNEL + 1 for n, pair in zip(x.shape[2:], widths, strict=True))
    tiles = len(x) * -(-high // TILE) * -(-wide // TILE)
    fewest = FEWEST if held else FEWEST_FRESH
    return min(high, wide) > 0 and tiles >= fewest and _gains(w, len(x) * high * wide, tiles)


def quick_bytes(w: Tensor) -> int:
    """Return how many bytes a weight takes at the points, 0 if no convolution with it gains.

    Shapes: w `[M, C, *kernel]`.
    """
    fits = w.device.type == "cpu" and tuple(w.shape[2:]) == (KERNEL, KERNEL)
    return ALL * w[:, :, 0, 0].nbytes if fits and _gains(w, TILE * TILE, 1) else 0


def _gains(w: Tensor, outputs: int, tiles: int) -> bool:
    """Whether enough multiplications are saved, by the number of outputs and of their tiles."""
    m, c = w.shape[:2]
    return m * c * (KERNEL * KERNEL * outputs - ALL * tiles) >= GAIN * ALL * tiles * (m + c)


def convolve_quickly(
    x: Tensor, w: Tensor, b: Tensor | None, widths: Widths, exact: Exact | None = None
) -> Tensor:
    """Return the convolution of stride 1, which autograd can cross to `x`.

    Where `exact(x, w, b)` is given, that is returned, and only the way back is quick.
    Shapes: x `[N, C, H, W]`, w `[M, C, 3, 3]`, b `[M]` -> `[N, M, H', W']`, channels last.
    """
    found: Tensor = _crossing().apply(x, w, b, widths, exact)
    return found


@cache
def _crossing() -> Any:
    """The function of autograd; made when torch is."""

    class Crossing(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            x: Tensor,
            w: Tensor,
            b: Tensor | None,
            widths: Widths,
            exact: Exact | None,
        ) -> Tensor:
            ctx.w, ctx.shape, ctx.widths, ctx.held = w, x.shape, widths, exact is None
            return exact(x, w, b) if exact else _forward(x, w, b, widths)

        @staticmethod
        def backward(ctx: Any, *given: Tensor) -> tuple[Tensor, None, None, None, None]:
            return _back(given[0], ctx.w, ctx.shape, ctx.widths, ctx.held), None, None, None, None

    return Crossing


class _Tiles:
    """Where the tiles of a convolution lie, in the padded inputs and in the outputs.

    Shapes: shape `[N, C, H, W]`, that of the inputs.
    """

    def __init__(self, shape: torch.Size, outputs: int, widths: Widths) -> None:
        (self.top, below), (self.left, right) = widths
        self.count, self.channels, self.height, self.width = shape
        self.sizes = self.height + self.top + below - 2, self.width + self.left + right - 2
        self.down, self.across = (-(-n // TILE) for n in self.sizes)
        self.outputs = outputs

    def inputs(self, like: Tensor) -> Tensor:
        """Zeros for the padded inputs. Shapes: -> `[N, 4 down + 2, 4 across + 2, C]`."""
        more = REACH - TILE
        return like.new_zeros(
            self.count, TILE * self.down + more, TILE * self.across + more, self.channels
        )

    def inside(self, padded: Tensor) -> Tensor:
        """The part of the padded inputs that the inputs are. Shapes: -> `[N, H, W, C]`."""
        return padded[:, self.top : self.top + self.height, self.left : self.left + self.width]

    def of(self, maps: Tensor, rows: int, columns: int, begin: tuple[int, int] = (0, 0)) -> Tensor:
        """A part of each tile, without a copy. Shapes: -> `[rows, columns, N, down, across, c]`."""
        n, h, w, c = maps.stride()
        shape = (rows, columns, self.count, self.down, self.across, maps.shape[-1])
        steps = (h, w, n, TILE * h, TILE * w, c)
        return maps.as_strided(shape, steps, begin[0] * h + begin[1] * w)

    def parts(self) -> list[tuple[slice, slice]]:
        """Samples and rows of tiles that are computed at once, so that they stay in the cache.

        At the points these take about as much memory as the weights do, up to `MOST`.
        """
        c, m = self.channels, self.outputs
        rows = max(min(c * m, MOST // ALL) // (c + m) // self.across, 1)
        samples = min(max(rows // self.down, 1), self.count)
        rows = min(rows, self.down)
        return [
            (slice(n, n + samples), slice(k, k + rows))
            for n in range(0, self.count, samples)
            for k in range(0, self.down, rows)
        ]


def _forward(x: Tensor, w: Tensor, b: Tensor | None, widths: Widths) -> Tensor:
    tiles = _Tiles(x.shape, len(w), widths)
    points, (_, to_points, to_outputs) = _weights(w), _matrices(x.dtype)
    padded = tiles.inputs(x)
    tiles.inside(padded).copy_(x.movedim(1, -1))
    y = x.new_empty(tiles.count, TILE * tiles.down, TILE * tiles.across, tiles.outputs)
    read, written = tiles.of(padded, REACH, REACH), tiles.of(y, TILE, TILE)
    for samples, rows in tiles.parts():
        tile, target = read[:, :, samples, rows], written[:, :, samples, rows]
        found = _through(tile, to_points, points.mT, to_outputs).view(target.shape)
        target.copy_(found if b is None else found.add_(b))
    return y[:, : tiles.sizes[0], : tiles.sizes[1]].movedim(-1, 1)


def _back(gradient: Tensor, w: Tensor, shape: torch.Size, widths: Widths, held: bool) -> Tensor:
    tiles = _Tiles(shape, len(w), widths)
    points = _weights(w) if held else _at_points(w)
    _, to_points, to_outputs = _matrices(gradient.dtype)
    given = gradient.new_zeros(tiles.count, TILE * tiles.down, TILE * tiles.across, tiles.outputs)
    given[:, : tiles.sizes[0], : tiles.sizes[1]].copy_(gradient.movedim(1, -1))
    padded = tiles.inputs(gradient)
    read, edge = tiles.of(given, TILE, TILE), REACH - TILE
    corners = [((0, 0), TILE, TILE), ((0, TILE), TILE, edge), ((TILE, 0), edge, TILE)]
    for samples, rows in tiles.parts():
        tile = read[:, :, samples, rows]
        found = _through(tile, to_outputs.mT, points, to_points.mT)
        found = found.view(REACH, REACH, *tile.shape[2:-1], -1)
        for (top, left), high, wide in (*corners, ((TILE, TILE), edge, edge)):
            part = found[top : top + high, left : left + wide]
            tiles.of(padded, high, wide, (top, left))[:, :, samples, rows].add_(part)
    return tiles.inside(padded).movedim(-1, 1)


def _through(tile: Tensor, there: Tensor, points: Tensor, back: Tensor) -> Tensor:
    """A part of the tiles, taken to the points, weighed, and taken back.

    Shapes: tile `[rows, columns, .., C]`, there `[36, rows * columns]`, points `[36, C, M]`, back
    `[r, 36]` -> `[r, tiles * M]`, until the next call.
    """
    channels, outputs = points.shape[1:]
    count = tile.numel() // there.shape[1] // channels
    copied = _space(0, tile, there.shape[1], count * channels)
    copied.view(tile.shape).copy_(tile)
    at_points = torch.mm(there, copied, out=_space(1, tile, ALL, count * channels))
    product = _space(2, tile, ALL, count * outputs)
    torch.bmm(at_points.view(ALL, count, -1), points, out=product.view(ALL, count, -1))
    return torch.mm(back, product, out=_space(0, tile, len(back), count * outputs))


def _space(number: int, like: Tensor, rows: int, columns: int) -> Tensor:
    """Memory that holds anything. Shapes: -> `[rows, columns]`."""
    return space(("quick", number), like, rows * columns).view(rows, columns)


@cache
def _matrices(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """What takes kernels and inputs to the points, and products at the points to outputs.

    Shapes: `[36, 9]`, `[36, 36]`, `[16, 36]`.
    """
    kernel, output, whole = (_powers(n) for n in (KERNEL, TILE, REACH))
    found = (kernel, np.linalg.inv(whole).T, output.T)
    return tuple(torch.from_numpy(np.kron(one, one)).to(dtype) for one in found)  # type: ignore[return-value]


def _powers(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The first powers of the points; at infinity only the highest counts."""
    powers = np.vander(np.array(POINTS), count, increasing=True)
    return np.vstack([powers, np.eye(count)[-1]])


_lock = Lock()


@cache
def _held() -> Any:
    """Weights at the points, by the weight, as long as that lives."""
    from torch.utils.weak import WeakTensorKeyDictionary

    return WeakTensorKeyDictionary()


def _weights(w: Tensor) -> Tensor:
    """A weight at the points, held for the next call. Shapes: `[36, M, C]`."""
    with _lock:
        found: tuple[int, Tensor] | None = _held().get(w)
        if found is None or found[0] != w._version:
            found = _held()[w] = w._version, _at_points(w).clone()
        return found[1]


def _at_points(w: Tensor) -> Tensor:
    """A weight at the points, until the next call. Shapes: `[36, M, C]`."""
    kernels = w.flatten(2).flatten(0, 1).mT
    found = _space(3, w, ALL, kernels.shape[1])
    return torch.mm(_matrices(w.dtype)[0], kernels, out=found).view(ALL, *w.shape[:2])
