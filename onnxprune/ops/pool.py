"""Pooling: each channel on its own, over windows or over all of space.

Relevance: an average is a weighted sum with equal weights; a maximum gives all to the winner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.site import Ints, Site
from onnxprune.ops.window import Widths, Window, pad_space, windowed

if TYPE_CHECKING:
    from torch import Tensor

ALONE = Axes("n c * -> n c *")

COUNTS_ALL = "whose indices count the elements of all channels"


@dataclass(frozen=True)
class Slide:
    """A window on a map: its kernel, steps and padding.

    `extra` is how far the last window reaches beyond the padded map.
    """

    kernel: Ints
    strides: Ints
    dilations: Ints
    widths: Widths
    extra: Ints

    @property
    def full(self) -> Widths:
        """The padding, extended to where the last window ends."""
        return [(b, a + more) for (b, a), more in zip(self.widths, self.extra, strict=True)]

    @property
    def even(self) -> Ints | None:
        """The padding as torch's pools take it, one number an axis; None where they cannot."""
        for (before, after), more, k in zip(self.widths, self.extra, self.kernel, strict=True):
            if before != after or more or before > k // 2:
                return None
        return tuple(before for before, _ in self.widths)


def _slide(x: Tensor, kernel: Ints, window: Window, ceil_mode: int) -> Slide:
    """Place a window on a map.

    With `ceil_mode` a last window may reach over the end, unless it would start in the padding.
    Shapes: x `[N, C, *size]`.
    Source: ONNX operator MaxPool-22, output shape.
    """
    strides, dilations = window.steps(len(kernel))
    size = tuple(x.shape[2:])
    widths = window.widths(size, kernel)
    extra = []
    for n, (before, after), k, s, d in zip(size, widths, kernel, strides, dilations, strict=True):
        room = n + before + after - ((k - 1) * d + 1)
        steps = -(-room // s) if ceil_mode else room // s
        if ceil_mode and steps * s >= n + before:
            steps -= 1
        extra.append(max(steps * s - room, 0))
    return Slide(kernel, strides, dilations, widths, tuple(extra))


def _max_channels(site: Site) -> How:
    """Without the places of maxima, each channel is on its own; places count all channels."""
    if len(site.node.outputs) > 1 and site.node.outputs[1]:
        return Axes("n C * -> n C *, n C *", why=COUNTS_ALL)
    return ALONE


@op("MaxPool", _max_channels, since=(1, 8, 10, 11, 12, 22), relevance=Relevance.COPY)
@windowed
def max_pool(
    x: Tensor,
    /,
    *,
    ceil_mode: int = 0,
    kernel_shape: Ints,
    storage_order: int = 0,
    window: Window,
    output_count: int,
) -> Tensor | tuple[Tensor, Tensor]:
    """The largest element of each window, and its place among all elements of x.

    Places count by rows or, with `storage_order`, by columns.
    Shapes: x `[N, C, *size]` -> twice `[N, C, *]`; 1 to 3 sizes.
    Source: ONNX operator MaxPool-22.
    """
    slide = _slide(x, kernel_shape, window, ceil_mode)
    values = x if x.is_floating_point() else x.to(torch.float64)
    if slide.even is None:
        values = pad_space(values, slide.full, float("-inf"))
    run = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
    pool = run[len(kernel_shape) - 1]
    how = (kernel_shape, slide.strides, slide.even or 0, slide.dilations)
    if output_count == 1:
        return pool(values, *how).to(x.dtype)
    largest, places = pool(values, *how, return_indices=True)
    before = [0] * len(kernel_shape) if slide.even is not None else [b for b, _ in slide.widths]
    return largest.to(x.dtype), _count(places, values, before, x, storage_order)


def _count(places: Tensor, padded: Tensor, before: list[int], x: Tensor, by_columns: int) -> Tensor:
    """Places in the planes of a padded map as places among all elements of `x`."""
    space = []
    for n, start in zip(reversed(padded.shape[2:]), reversed(before), strict=True):
        space.append(places % n - start)
        places = places // n
    size = list(reversed(x.shape[2:]))
    pairs = list(zip(size, space, strict=True))
    planes = torch.arange(x.shape[0] * x.shape[1], device=x.device)
    found = planes.reshape(*x.shape[:2], *(1,) * len(size))
    for n, place in pairs if by_columns else reversed(pairs):
        found = found * n + place
    return found


@op("MaxUnpool", Pins(COUNTS_ALL), since=(9, 11, 22), relevance=Relevance.COPY)
def max_unpool(
    x: Tensor,
    places: Tensor,
    output_shape: Ints | None = None,
    /,
    *,
    kernel_shape: Ints,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Put each element back to where a maximum was found, among zeros.

    Shapes: x and places `[N, C, *size]` -> `[N, C, *]`.
    Source: ONNX operator MaxUnpool-22.
    """
    window = Window("NOTSET", None, pads, strides)
    steps, _ = window.steps(len(kernel_shape))
    sizes = tuple(
        (n - 1) * step + k - before - after
        for n, step, k, (before, after) in zip(
            x.shape[2:], steps, kernel_shape, window.given(len(kernel_shape)), strict=True
        )
    )
    shape = (*x.shape[:2], *sizes)
    y = x.new_zeros(shape).flatten().scatter(0, places.flatten(), x.flatten()).reshape(shape)
    if output_shape is None:
        return y
    return pad_space(y, [(0, m - n) for n, m in zip(sizes, output_shape[2:], strict=True)])


def _window_means(x: Tensor, slide: Slide) -> Tensor:
    """The mean of each window, without padding. Shapes: x `[N, C, *size]` -> `[N, C, *]`."""
    rank = len(slide.kernel)
    if all(d == 1 for d in slide.dilations):
        run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[rank - 1]
        return run(x, slide.kernel, slide.strides)
    for k, (size, step, d) in enumerate(
        zip(slide.kernel, slide.strides, slide.dilations, strict=True)
    ):
        starts = torch.arange(0, x.shape[2 + k] - (size - 1) * d, step)
        places = (starts[:, None] + torch.arange(size) * d).to(x.device)
        x = x[(slice(None),) * (2 + k) + (places,)].mean(3 + k)
    return x


@op("AveragePool", ALONE, since=(1, 7, 10, 11, 19, 22), relevance=Relevance.LINEAR)
@windowed
def average_pool(
    x: Tensor,
    /,
    *,
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    kernel_shape: Ints,
    window: Window,
) -> Tensor:
    """The mean of each window, over its pixels or, on request, over its padding as well.

    Shapes: x `[N, C, *size]` -> `[N, C, *]`; 1 to 3 sizes.
    Source: ONNX operator AveragePool-22.
    """
    slide = _slide(x, kernel_shape, window, ceil_mode)
    counts = bool(count_include_pad)
    if slide.even is not None and all(d == 1 for d in slide.dilations):
        run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)
        pool = run[len(kernel_shape) - 1]
        return pool(x, kernel_shape, slide.strides, slide.even, count_include_pad=counts)
    counted = pad_space(torch.ones_like(x[:1, :1]), slide.widths, float(counts))
    beyond = [(0, more) for more in slide.extra]
    means, shares = (
        _window_means(pad_space(part, beyond), slide)
        for part in (pad_space(x, slide.widths), counted)
    )
    return means / shares


@op("LpPool", ALONE, since=(2, 11, 18, 22), relevance=Relevance.SLOPE)
@windowed
def lp_pool(
    x: Tensor, /, *, ceil_mode: int = 0, kernel_shape: Ints, p: int = 2, window: Window
) -> Tensor:
    """The p-norm of each window. Source: ONNX operator LpPool-22."""
    slide = _slide(x, kernel_shape, window, ceil_mode)
    powers = pad_space(torch.abs(x) ** p, slide.full)
    count = int(torch.tensor(kernel_shape).prod())
    return (_window_means(powers, slide) * count).pow(1 / p)


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


@op("GlobalLpPool", ALONE, since=(2, 22), relevance=Relevance.SLOPE)
def global_lp_pool(x: Tensor, /, *, p: int = 2) -> Tensor:
    """The p-norm over all of space. Source: ONNX operator GlobalLpPool-22."""
    space = tuple(range(2, x.ndim))
    norm: Tensor = torch.linalg.vector_norm(x, ord=p, dim=space, keepdim=True)
    return norm
