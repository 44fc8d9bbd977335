"""Operators that weigh and sum: convolutions and matrix products.

Channels: a filter is born on the output side of the weight (`o`) and read on its input side (`i`).
Relevance: the rules of `onnxprune.rules`, with the weight modified and the bias silenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Axes, Edit, How, Ints, Pins, Relevance, Site, op
from onnxprune.ops._torch import functional, torch

if TYPE_CHECKING:
    from torch import Tensor


def same_pads(
    size: Ints, kernel: Ints, strides: Ints, dilations: Ints, auto_pad: str
) -> list[tuple[int, int]]:
    """Return the (before, after) padding that `auto_pad` SAME_UPPER or SAME_LOWER stands for.

    Source: ONNX operator Conv-11, attribute auto_pad.
    """
    pads = []
    for n, k, s, d in zip(size, kernel, strides, dilations, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        small, large = total // 2, total - total // 2
        pads.append((large, small) if auto_pad == "SAME_LOWER" else (small, large))
    return pads


def spatial_pads(
    x: Tensor, kernel: Ints, strides: Ints, dilations: Ints, pads: Ints | None, auto_pad: str
) -> list[tuple[int, int]]:
    """Return (before, after) padding for each spatial axis of `x` `[N, C, *]`."""
    rank = len(kernel)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        return same_pads(tuple(x.shape[2:]), kernel, strides, dilations, auto_pad)
    given = pads if pads and auto_pad == "NOTSET" else (0,) * 2 * rank
    return list(zip(given[:rank], given[rank:], strict=True))


def _conv_channels(site: Site) -> How:
    groups = site.attribute("group", 1)
    if groups == 1:
        return Axes("N i *, o i *, o -> N o *")
    weight, x = site.shapes[1], site.shapes[0]
    if weight is None or x is None:
        return Pins("whose shapes are not known")
    if weight[1] == 1:
        return Axes("N c *, (c M) I *, (c M) -> N (c M) *")
    return Axes("N (G i) *, (G o) i *, (G o) -> N (G o) *")


def _restate_group(site: Site) -> Edit | None:
    channels, weight = site.shapes[0], site.shapes[1]
    if channels is None or weight is None or site.attribute("group", 1) == 1:
        return None
    return Edit(attributes={"group": channels[1] // weight[1]})


@op(
    "Conv",
    _conv_channels,
    since=(1, 11, 22),
    relevance=Relevance.LINEAR,
    restate=_restate_group,
    weights=(1,),
    biases=(2,),
    filters=True,
)
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Convolve.

    Shapes: x `[N, C, *size]`, w `[M, C / group, *kernel]`, b `[M]` -> `[N, M, *]`; 1 to 3 sizes.
    Source: ONNX operator Conv-22.
    """
    rank = w.ndim - 2
    if not 1 <= rank <= 3:
        raise UnsupportedAttribute(f"a weight of rank {w.ndim}; expected rank 3, 4 or 5")
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    kernel = tuple(w.shape[2:])
    widths = spatial_pads(x, kernel, strides, dilations, pads, auto_pad)
    if all(before == after for before, after in widths):
        padding = tuple(before for before, _ in widths)
    else:
        x = functional.pad(x, [width for pair in reversed(widths) for width in pair])
        padding = (0,) * rank
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return run(x, w, b, strides, padding, dilations, group)


def _transposed_channels(site: Site) -> How:
    groups, x = site.attribute("group", 1), site.shapes[0]
    if groups == 1:
        return Axes("N i *, i o *, o -> N o *")
    if x is None:
        return Pins("whose shapes are not known")
    if x[1] == groups:
        return Axes("N c *, c M *, (c M) -> N (c M) *")
    return Pins("a transposed convolution in groups of several channels")


def _restate_transposed_group(site: Site) -> Edit | None:
    old, new = site.before, site.shapes[0]
    if old is None or new is None or old.shapes[0] is None:
        return None
    groups = site.attribute("group", 1)
    return Edit(attributes={"group": new[1]}) if 1 < groups == old.shapes[0][1] else None


def _transposed_pads(
    full: Ints, pads: Ints | None, wanted: Ints | None, more: Ints, auto_pad: str
) -> list[tuple[int, int]]:
    """How much of the full product to cut off (before, after) each spatial axis."""
    if wanted is None:
        given = pads if pads and auto_pad == "NOTSET" else (0,) * 2 * len(full)
        ends = given[len(full) :]
        return [(a, b - m) for a, b, m in zip(given[: len(full)], ends, more, strict=True)]
    cut = []
    for n, m, size in zip(full, more, wanted, strict=True):
        total = max(n + m - size, 0)
        half = total // 2
        before = half if auto_pad == "SAME_UPPER" else total - half
        cut.append((before, n - before - size))
    return cut


@op(
    "ConvTranspose",
    _transposed_channels,
    since=(1, 11, 22),
    relevance=Relevance.LINEAR,
    restate=_restate_transposed_group,
    weights=(1,),
    biases=(2,),
    filters=True,
    scatters=True,
)
def conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    /,
    *,
    auto_pad: str = "NOTSET",
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    output_padding: Ints | None = None,
    output_shape: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Convolve the other way round: each input pixel adds a kernel to the output.

    Shapes: x `[N, C, *size]`, w `[C, M / group, *kernel]`, b `[M]` -> `[N, M, *]`; 1 to 3 sizes.
    Source: ONNX operator ConvTranspose-22.
    """
    rank = w.ndim - 2
    if not 1 <= rank <= 3:
        raise UnsupportedAttribute(f"a weight of rank {w.ndim}; expected rank 3, 4 or 5")
    strides, dilations = strides or (1,) * rank, dilations or (1,) * rank
    sizes = (
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    )
    y = sizes[rank - 1](x, w, None, strides, 0, 0, group, dilations)
    if auto_pad in ("SAME_UPPER", "SAME_LOWER") and output_shape is None:
        output_shape = tuple(n * s for n, s in zip(x.shape[2:], strides, strict=True))
    wanted = None if output_shape is None else tuple(output_shape[-rank:])
    more = output_padding or (0,) * rank
    cut = _transposed_pads(tuple(y.shape[2:]), pads, wanted, more, auto_pad)
    y = functional.pad(y, [-width for pair in reversed(cut) for width in pair])
    return y if b is None else y + b.reshape(-1, *(1,) * rank)


def _gemm_channels(site: Site) -> Axes:
    left = "i N" if site.attribute("transA", 0) else "N i"
    right = "o i" if site.attribute("transB", 0) else "i o"
    bias = {0: "", 1: "o", 2: "1 o"}.get(_bias_rank(site), "")
    return Axes(f"{left}, {right}, {bias} -> N o" if bias else f"{left}, {right} -> N o")


def _bias_rank(site: Site) -> int:
    shape = site.shapes[2] if len(site.shapes) > 2 else None
    return 0 if not shape or shape[-1] == 1 else len(shape)


@op(
    "Gemm",
    _gemm_channels,
    since=(7, 9, 11, 13),
    relevance=Relevance.LINEAR,
    weights=(1,),
    biases=(2,),
)
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    /,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Tensor:
    """Multiply matrices and add: `alpha a b + beta c`.

    Shapes: a `[N, I]`, b `[I, O]` (either transposed on request), c broadcast to `[N, O]`.
    Source: ONNX operator Gemm-13.
    """
    a, b = (a.T if transA else a), (b.T if transB else b)
    y = a @ b
    y = y if alpha == 1.0 else alpha * y
    return y if c is None else y + (c if beta == 1.0 else beta * c)


def _matmul_channels(site: Site) -> How:
    if site.constant[1] and site.rank(1) == 2 and site.rank(0) >= 1:
        batch = " ".join("abcdefgh"[: site.rank(0) - 1])
        return Axes(f"{batch} i, i o -> {batch} o")
    return Pins("a product of two activations, or with a weight that is not a matrix")


@op("MatMul", _matmul_channels, since=(1, 9, 13), relevance=Relevance.LINEAR, weights=(1,))
def matmul(a: Tensor, b: Tensor, /) -> Tensor:
    """Multiply matrices over the last two axes.

    Shapes: a `[*, N, I]`, b `[*, I, O]` -> `[*, N, O]`.
    Source: ONNX operator MatMul-13.
    """
    return torch.matmul(a, b)
