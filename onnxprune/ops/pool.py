"""Pooling: each channel on its own, over windows or over all of space.

Relevance: an average is a weighted sum with equal weights; a maximum gives all to the winner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Axes, Ints, Relevance, op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.linear import spatial_pads

if TYPE_CHECKING:
    from torch import Tensor

ALONE = Axes("N c * -> N c *")


def window_pads(
    x: Tensor,
    kernel: Ints,
    strides: Ints,
    dilations: Ints,
    pads: Ints | None,
    auto_pad: str,
    ceil_mode: int,
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the padding of each spatial axis, and how much more the last window needs.

    With `ceil_mode` a last window may reach over the end, unless it would start in the padding.
    Source: ONNX operator MaxPool-22, output shape.
    """
    widths = spatial_pads(x, kernel, strides, dilations, pads, auto_pad)
    extra = []
    for n, (before, after), k, s, d in zip(
        x.shape[2:], widths, kernel, strides, dilations, strict=True
    ):
        span = (k - 1) * d + 1
        room = n + before + after - span
        steps = -(-room // s) if ceil_mode else room // s
        if ceil_mode and steps * s >= n + before:
            steps -= 1
        extra.append(max(steps * s - room, 0))
    return widths, extra


def _flat(widths: list[tuple[int, int]]) -> list[int]:
    """Padding as torch takes it, the last axis first."""
    return [width for pair in reversed(widths) for width in pair]


def _even(widths: list[tuple[int, int]], extra: list[int], kernel: Ints) -> Ints | None:
    """The padding as torch's pools take it, one number an axis, or None where they do not."""
    for (before, after), more, k in zip(widths, extra, kernel, strict=True):
        if before != after or more or before > k // 2:
            return None
    return tuple(before for before, _ in widths)


@op("MaxPool", ALONE, since=(1, 8, 10, 11, 12, 22), relevance=Relevance.COPY)
def max_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    storage_order: int = 0,
    strides: Ints | None = None,
) -> Tensor:
    """The largest element of each window; `Indices`, and with it `storage_order`, is refused.

    Shapes: x `[N, C, *size]` -> `[N, C, *]`; 1 to 3 sizes.
    Source: ONNX operator MaxPool-22.
    """
    rank = len(kernel_shape)
    _check_rank(rank)
    if storage_order:
        raise UnsupportedAttribute(f"storage_order={storage_order}; expected 0")
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    widths, extra = window_pads(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    padding = _even(widths, extra, kernel_shape)
    values = x if x.is_floating_point() else x.to(torch.float64)
    if padding is None:
        widths = [(b, a + more) for (b, a), more in zip(widths, extra, strict=True)]
        values = functional.pad(values, _flat(widths), value=float("-inf"))
    run = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[rank - 1]
    return run(values, kernel_shape, strides, padding or 0, dilations).to(x.dtype)


def _window_means(x: Tensor, kernel: Ints, strides: Ints, dilations: Ints) -> Tensor:
    """The mean of each window, without padding. Shapes: x `[N, C, *size]` -> `[N, C, *]`."""
    rank = len(kernel)
    if all(d == 1 for d in dilations):
        run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
        return run(x, kernel, strides)
    for k in range(rank):
        starts = torch.arange(0, x.shape[2 + k] - (kernel[k] - 1) * dilations[k], strides[k])
        steps = torch.arange(kernel[k]) * dilations[k]
        places = (starts[:, None] + steps).to(x.device)
        x = x[(slice(None),) * (2 + k) + (places,)].mean(3 + k)
    return x


@op("AveragePool", ALONE, since=(1, 7, 10, 11, 19, 22), relevance=Relevance.LINEAR)
def average_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The mean of each window, over its pixels or, on request, over its padding as well.

    Shapes: x `[N, C, *size]` -> `[N, C, *]`; 1 to 3 sizes.
    Source: ONNX operator AveragePool-22.
    """
    rank = len(kernel_shape)
    _check_rank(rank)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    widths, extra = window_pads(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    padding = _even(widths, extra, kernel_shape)
    if padding is not None and all(d == 1 for d in dilations):
        run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
        return run(x, kernel_shape, strides, padding, count_include_pad=bool(count_include_pad))
    counted = functional.pad(
        torch.ones_like(x[:1, :1]), _flat(widths), value=float(bool(count_include_pad))
    )
    beyond = [(0, more) for more in extra]
    means, shares = (
        _window_means(functional.pad(part, _flat(beyond)), kernel_shape, strides, dilations)
        for part in (functional.pad(x, _flat(widths)), counted)
    )
    return means / shares


@op("LpPool", ALONE, since=(2, 11, 18, 22))
def lp_pool(
    x: Tensor,
    /,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Ints | None = None,
    kernel_shape: Ints,
    p: int = 2,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """The p-norm of each window. Source: ONNX operator LpPool-22."""
    rank = len(kernel_shape)
    _check_rank(rank)
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    widths, extra = window_pads(x, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    widths = [(b, a + more) for (b, a), more in zip(widths, extra, strict=True)]
    powers = functional.pad(torch.abs(x) ** p, _flat(widths))
    count = int(torch.tensor(kernel_shape).prod())
    sums = _window_means(powers, kernel_shape, strides, dilations) * count
    return sums.pow(1 / p)


@op("GlobalAveragePool", ALONE, since=(1, 22), relevance=Relevance.LINEAR)
def global_average_pool(x: Tensor, /) -> Tensor:
    """The mean over all of space.

    Shapes: x `[N, C, *size]` -> `[N, C, 1, ..]`.
    Source: ONNX operator GlobalAveragePool-22.
    """
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalMaxPool", ALONE, since=(1, 22), relevance=Relevance.COPY)
def global_max_pool(x: Tensor, /) -> Tensor:
    """The largest element of all of space.

    Shapes: x `[N, C, *size]` -> `[N, C, 1, ..]`.
    Source: ONNX operator GlobalMaxPool-22.
    """
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@op("GlobalLpPool", ALONE, since=(2, 22))
def global_lp_pool(x: Tensor, /, *, p: int = 2) -> Tensor:
    """The p-norm over all of space. Source: ONNX operator GlobalLpPool-22."""
    space = tuple(range(2, x.ndim))
    norm: Tensor = torch.linalg.vector_norm(x, ord=p, dim=space, keepdim=True)
    return norm


def _check_rank(rank: int) -> None:
    if not 1 <= rank <= 3:
        raise UnsupportedAttribute(f"kernel_shape of {rank} sizes; expected 1 to 3")
