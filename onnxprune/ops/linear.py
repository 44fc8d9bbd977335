"""Convolutions: they weigh and sum over channels and over a window of space.

Channels: a filter is born on the output side of the weight (`o`) and read on its input side (`i`);
in groups, every group loses equally many.
Relevance: the rules of `onnxprune.relevance.rules`, with the weight modified and the bias silenced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import functional
from onnxprune.ops._winograd import convolve_quickly, is_quicker
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.site import Edit, Ints, PrunedSite, Site
from onnxprune.ops.window import Widths, Window, pad_space, windowed

if TYPE_CHECKING:
    from torch import Tensor

UNKNOWN = Pins("whose shapes are not known")


@dataclass(frozen=True)
class Operands:
    """The axes of what a convolution reads and writes, with the letters of an `Axes` pattern."""

    x: str
    w: str
    b: str
    y: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def axes(self) -> Axes:
        """How channels cross."""
        return Axes(f"{self.x}, {self.w}, {self.b} -> {self.y}", sizes=self.sizes)


def conv_operands(site: Site, weight: int = 1) -> Operands | None:
    """Return the axes of a convolution whose weight is input `weight`; None: unknown shapes."""
    groups, x, w = site.attribute("group", 1), site.shapes[0], site.shapes[weight]
    if groups == 1:
        return Operands("n i *", "o i *", "o", "n o *")
    if x is None or w is None:
        return None
    if w[1] == 1:
        return Operands("n c *", "(c M) I *", "(c M)", "n (c M) *", {"c": groups})
    return Operands("n (G i) *", "(G o) i *", "(G o)", "n (G o) *", {"G": groups})


def _conv_channels(site: Site) -> How:
    found = conv_operands(site)
    return UNKNOWN if found is None else found.axes


def restate_group(site: Site, weight: int = 1) -> Edit | None:
    """Count the groups that are left: depthwise, one for each channel."""
    x, w = site.shapes[0], site.shapes[weight]
    if x is None or w is None or site.attribute("group", 1) == 1:
        return None
    return Edit(attributes={"group": x[1] // w[1]})


def convolve(x: Tensor, w: Tensor, b: Tensor | None, group: int, window: Window) -> Tensor:
    """Return the convolution. Shapes: as those of `conv`."""
    kernel = tuple(w.shape[2:])
    strides, dilations = window.steps(len(kernel))
    widths = window.widths(tuple(x.shape[2:]), kernel)
    padding = tuple(before for before, _ in widths)
    if any(before != after for before, after in widths):
        x, padding = pad_space(x, widths), (0,) * len(kernel)
    if set(kernel) == {1} and group == 1 and not any(padding) and _channels_last(x):
        return _weigh(x[:, :, :: strides[0], :: strides[1]], w, b)
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[len(kernel) - 1]
    return run(x, w, b, strides, padding, dilations, group)


def _channels_last(x: Tensor) -> bool:
    """Whether each pixel of a map has its channels side by side in memory."""
    return x.ndim == 4 and x.shape[1] > 1 and x.stride(1) == 1


def _weigh(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """Return the convolution with a kernel of one pixel: a product of matrices, without copies."""
    return functional.linear(x.movedim(1, -1), w.flatten(1), b).movedim(-1, 1)


_weighs = partial(
    op,
    since=(1, 11, 22),
    relevance=Relevance.LINEAR,
    weights=(1,),
    biases=(2,),
    filters=True,
)


def _quickly(*, exact: bool) -> Callable[..., Tensor]:
    """A convolution in fewer multiplications where that gains, or only its way back (`exact`)."""

    @windowed
    def quick(
        x: Tensor,
        w: Tensor,
        b: Tensor | None = None,
        /,
        *,
        group: int = 1,
        kernel_shape: Ints | None = None,
        window: Window,
    ) -> Tensor:
        alone = b is None or not b.requires_grad
        if alone and group == 1 and w.ndim == 4 and {*sum(window.steps(2), ())} == {1}:
            widths = window.widths(tuple(x.shape[2:]), tuple(w.shape[2:]))
            if is_quicker(x, w, widths, held=not exact):
                given = partial(convolve, group=group, window=window) if exact else None
                return convolve_quickly(x, w, b, widths, given)
        return convolve(x, w, b, group, window)

    return quick


@_weighs(
    "Conv",
    _conv_channels,
    restate=restate_group,
    quick=_quickly(exact=False),
    quick_back=_quickly(exact=True),
)
@windowed
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    /,
    *,
    group: int = 1,
    kernel_shape: Ints | None = None,
    window: Window,
) -> Tensor:
    """Convolve.

    Shapes: x `[N, C, *size]`, w `[M, C / group, *kernel]`, b `[M]` -> `[N, M, *]`; 1 to 3 sizes.
    Source: ONNX operator Conv-22.
    """
    return convolve(x, w, b, group, window)


def _transposed_channels(site: Site) -> How:
    groups, x = site.attribute("group", 1), site.shapes[0]
    if groups == 1:
        return Axes("n i *, i o *, o -> n o *")
    if x is None:
        return UNKNOWN
    if x[1] == groups:
        return Axes("n c *, c M *, (c M) -> n (c M) *")
    return Axes("n (G i) *, (G i) o *, (G o) -> n (G o) *", sizes={"G": groups})


def _restate_transposed_group(site: PrunedSite) -> Edit | None:
    old, new = site.before.shapes[0], site.shapes[0]
    if old is None or new is None:
        return None
    groups = site.attribute("group", 1)
    return Edit(attributes={"group": new[1]}) if 1 < groups == old[1] else None


def _cut_widths(full: Ints, wanted: Ints | None, more: Ints, window: Window) -> Widths:
    """How much of the full output to cut off before and after each spatial axis."""
    if wanted is None:
        given = window.given(len(full))
        return [(a, b - m) for (a, b), m in zip(given, more, strict=True)]
    cut = []
    for n, m, size in zip(full, more, wanted, strict=True):
        total = max(n + m - size, 0)
        half = total // 2
        before = half if window.auto_pad == "SAME_UPPER" else total - half
        cut.append((before, n - before - size))
    return cut


@_weighs("ConvTranspose", _transposed_channels, restate=_restate_transposed_group, scatters=True)
@windowed
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    /,
    *,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    window: Window,
) -> Tensor:
    """Transposed convolution: each input pixel adds a kernel to the output.

    Shapes: x `[N, C, *size]`, w `[C, M / group, *kernel]`, b `[M]` -> `[N, M, *]`; 1 to 3 sizes.
    Source: ONNX operator ConvTranspose-22.
    """
    rank = w.ndim - 2
    strides, dilations = window.steps(rank)
    run = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )[rank - 1]
    y = run(x, w, None, strides, 0, 0, group, dilations)
    if window.auto_pad in ("SAME_UPPER", "SAME_LOWER") and output_shape is None:
        output_shape = tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    wanted = None if output_shape is None else tuple(output_shape[-rank:])
    cut = _cut_widths(tuple(y.shape[2:]), wanted, output_padding or (0,) * rank, window)
    y = pad_space(y, [(-before, -after) for before, after in cut])
    return y if b is None else y + b.reshape(-1, *(1,) * rank)
