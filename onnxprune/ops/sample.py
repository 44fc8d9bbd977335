"""Operators that read maps at places between pixels, or fold windows back into a map.

Channels: each is read on its own and may go; coordinates stay.
Relevance: interpolation is a weighted sum over pixels.
"""

from __future__ import annotations

from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import functional, torch
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.linear import UNKNOWN, conv_operands, restate_group
from onnxprune.ops.site import Ints, Site
from onnxprune.ops.window import Window, pad_space

if TYPE_CHECKING:
    from torch import Tensor

PLACES = "which reads these channels as coordinates"


@op(
    "GridSample",
    Axes("N c *, * -> N c *", why=PLACES),
    since=(20, 22),
    relevance=Relevance.LINEAR,
)
def grid_sample(
    x: Tensor,
    grid: Tensor,
    /,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    """x at the places of a grid, whose coordinates run from -1 to 1.

    Shapes: x `[N, C, *size]`, grid `[N, *out, sizes]` -> `[N, C, *out]`; 2 or 3 sizes.
    Source: ONNX operator GridSample-22.
    """
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    return functional.grid_sample(
        x, grid, modes.get(mode, mode), padding_mode, align_corners=bool(align_corners)
    )


@op("GridSample", Axes("N c *, * -> N c *", why=PLACES), since=(16,), relevance=Relevance.LINEAR)
def grid_sample_16(
    x: Tensor,
    grid: Tensor,
    /,
    *,
    align_corners: int = 0,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
) -> Tensor:
    """x at the places of a plane grid. Source: ONNX operator GridSample-16."""
    return grid_sample(x, grid, align_corners=align_corners, mode=mode, padding_mode=padding_mode)


def _between(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Maps at places in pixels, linearly interpolated, with zeros outside.

    Shapes: x `[N, C, H, W]`, rows and columns `[N, A, B]` -> `[N, C, A, B]`.
    """
    height, width = x.shape[2:]
    grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), -1)
    return functional.grid_sample(x, grid, align_corners=False)


def _bins(start: float, size: float, count: int, ratio: int, x: Tensor) -> tuple[Tensor, int]:
    """The places at which `count` bins of a region are read, and how many lie in each."""
    each = ratio if ratio > 0 else max(ceil(size / count), 1)
    steps = torch.arange(count * each, device=x.device, dtype=x.dtype)
    return start + (steps + 0.5) * (size / (count * each)), each


def _region(x: Tensor, box: list[float], output: Ints, ratio: int) -> Tensor:
    """The mean of each bin of a region. Shapes: x `[C, H, W]`, box x1 y1 x2 y2 -> `[C, *output]`.

    Places up to a pixel outside are read at the border; those beyond are 0.
    """
    axes = [_bins(box[1 - k], box[3 - k] - box[1 - k], output[k], ratio, x) for k in range(2)]
    sizes = x.shape[1:]
    inside = [((p >= -1) & (p <= n)).to(x.dtype) for (p, _), n in zip(axes, sizes, strict=True)]
    places = [p.clamp(0, n - 1) for (p, _), n in zip(axes, sizes, strict=True)]
    rows, columns = torch.meshgrid(*places, indexing="ij")
    values = _between(x[None], rows[None], columns[None])[0] * torch.outer(*inside)
    bins = [size for count, (_, each) in zip(output, axes, strict=True) for size in (count, each)]
    return values.reshape(-1, *bins).mean((2, 4))


def roi_align(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """Regions of maps, each averaged to `output_height` by `output_width` bins.

    Shapes: x `[N, C, H, W]`, rois `[R, 4]`, batch_indices `[R]` -> `[R, C, height, width]`.
    Source: ONNX operator RoiAlign-22.
    """
    if mode != "avg":
        raise UnsupportedAttribute(f"mode={mode!r}; expected 'avg'")
    half = coordinate_transformation_mode == "half_pixel"
    boxes = (rois * spatial_scale - (0.5 if half else 0.0)).tolist()
    regions = []
    for (x1, y1, x2, y2), k in zip(boxes, batch_indices.tolist(), strict=True):
        least = 0.0 if half else 1.0
        box = [x1, y1, x1 + max(x2 - x1, least), y1 + max(y2 - y1, least)]
        regions.append(_region(x[k], box, (output_height, output_width), sampling_ratio))
    size = (0, x.shape[1], output_height, output_width)
    return torch.stack(regions) if regions else x.new_zeros(size)


_align = partial(op, "RoiAlign", Axes("N c *, *, * -> R c *", why=PLACES))
_align(since=(16, 22), relevance=Relevance.LINEAR)(roi_align)


@_align(since=(10,), relevance=Relevance.LINEAR)
def roi_align_10(
    x: Tensor,
    rois: Tensor,
    batch_indices: Tensor,
    /,
    *,
    mode: str = "avg",
    output_height: int = 1,
    output_width: int = 1,
    sampling_ratio: int = 0,
    spatial_scale: float = 1.0,
) -> Tensor:
    """The same with pixels at whole coordinates. Source: ONNX operator RoiAlign-10."""
    return roi_align(
        x,
        rois,
        batch_indices,
        coordinate_transformation_mode="output_half_pixel",
        mode=mode,
        output_height=output_height,
        output_width=output_width,
        sampling_ratio=sampling_ratio,
        spatial_scale=spatial_scale,
    )


@op("MaxRoiPool", Axes("N c *, * -> R c *", why=PLACES), since=(1, 22), relevance=Relevance.COPY)
def max_roi_pool(
    x: Tensor, rois: Tensor, /, *, pooled_shape: Ints, spatial_scale: float = 1.0
) -> Tensor:
    """The largest element of each bin of regions of maps; 0 in a bin without any.

    Shapes: x `[N, C, H, W]`, rois `[R, 5]`, each a sample and a box -> `[R, C, *pooled_shape]`.
    Source: ONNX operator MaxRoiPool-22.
    """
    boxes = torch.floor(rois[:, 1:] * spatial_scale + 0.5).long().tolist()
    found = []
    for sample, (x1, y1, x2, y2) in zip(rois[:, 0].long().tolist(), boxes, strict=True):
        rows = _ranges(y1, max(y2 - y1 + 1, 1), pooled_shape[0], x.shape[2])
        columns = _ranges(x1, max(x2 - x1 + 1, 1), pooled_shape[1], x.shape[3])
        bins = [x[sample, :, a, b].flatten(1) for a in rows for b in columns]
        largest = [b.amax(1) if b.shape[1] else b.new_zeros(b.shape[0]) for b in bins]
        found.append(torch.stack(largest, 1).reshape(-1, *pooled_shape))
    return torch.stack(found) if found else x.new_zeros((0, x.shape[1], *pooled_shape))


def _ranges(start: int, size: int, count: int, limit: int) -> list[slice]:
    """Cut a range of pixels into bins, which share the pixels on their edges."""
    edges = [(start + k * size // count, start - (-(k + 1) * size // count)) for k in range(count)]
    return [slice(min(max(a, 0), limit), min(max(b, 0), limit)) for a, b in edges]


@op(
    "AffineGrid",
    Axes("N A B, * -> N *", why="which reads these channels as a transformation of space"),
    since=(20,),
    relevance=Relevance.LINEAR,
)
def affine_grid(theta: Tensor, size: Ints, /, *, align_corners: int = 0) -> Tensor:
    """The places that the pixels of a map have after an affine transformation.

    Shapes: theta `[N, d, d + 1]`, size `[N, C, *out]` -> `[N, *out, d]`; d sizes, 2 or 3.
    Source: ONNX operator AffineGrid-20.
    """
    return functional.affine_grid(theta, list(size), align_corners=bool(align_corners))


def _deformed_channels(site: Site) -> How:
    """Each group of channels with offsets of its own loses equally many."""
    found, apart = conv_operands(site), site.attribute("offset_group", 1)
    if found is None:
        return UNKNOWN
    if apart == 1:
        return Axes(f"{found.x}, {found.w}, *, {found.b}, * -> {found.y}", PLACES, "", found.sizes)
    if site.attribute("group", 1) > 1:
        return Pins("which groups its channels in two ways, by group and by offset_group")
    return Axes("N (D i) *, o (D i) *, *, o, * -> N o *", why=PLACES, sizes={"D": apart})


@op(
    "DeformConv",
    _deformed_channels,
    since=(19, 22),
    relevance=Relevance.LINEAR,
    restate=restate_group,
    weights=(1,),
    biases=(3,),
    filters=True,
)
def deform_conv(
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    /,
    *,
    dilations: Ints | None = None,
    group: int = 1,
    kernel_shape: Ints | None = None,
    offset_group: int = 1,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Convolution whose kernel elements read at places moved by `offset`, weighed by `mask`.

    Shapes: x `[N, C, H, W]`, w `[M, C / group, *kernel]`, b `[M]`, offset
    `[N, G * kernel * 2, *out]`, mask `[N, G * kernel, *out]`, G offset groups -> `[N, M, *out]`.
    Source: ONNX operator DeformConv-22.
    """
    if w.ndim != 4:
        raise UnsupportedAttribute(f"a kernel of {w.ndim - 2} spatial axes; expected 2")
    n, kernel, out = x.shape[0], w.shape[2] * w.shape[3], tuple(offset.shape[2:])
    moved = offset.reshape(n * offset_group, *w.shape[2:], 2, *out)
    rows, columns = (
        (places + moved[:, :, :, k]).reshape(n * offset_group, kernel * out[0], out[1])
        for k, places in enumerate(_taps(w, offset, Window("NOTSET", dilations, pads, strides)))
    )
    apart = x.reshape(n * offset_group, -1, *x.shape[2:])
    read = _between(apart, rows, columns).reshape(n, offset_group, -1, kernel, *out)
    if mask is not None:
        read = read * mask.reshape(n, offset_group, 1, kernel, *out)
    read = read.reshape(n, group, -1, out[0] * out[1])
    y = torch.einsum("gok,ngkp->ngop", w.reshape(group, w.shape[0] // group, -1), read)
    y = y.reshape(n, -1, *out)
    return y if b is None else y + b[:, None, None]


def _taps(w: Tensor, offset: Tensor, window: Window) -> list[Tensor]:
    """The rows and the columns at which a kernel reads before offsets are added.

    Shapes: `[kernel rows, 1, out rows, 1]` and `[1, kernel columns, 1, out columns]`.
    """
    found = []
    for axis, (step, gap) in enumerate(zip(*window.steps(2), strict=True)):
        first = -window.given(2)[axis][0]
        starts = torch.arange(offset.shape[2 + axis], device=w.device) * step + first
        line = starts + torch.arange(w.shape[2 + axis], device=w.device)[:, None] * gap
        found.append(line[:, None, :, None] if axis == 0 else line[None, :, None, :])
    return found


def _folded_channels(site: Site) -> How:
    block = site.ints(2)
    if block is None:
        return Pins("whose block is known only at run time")
    size = 1
    for n in block:
        size *= n
    return Axes("n (c K) *, *, * -> n c *", sizes={"K": size})


@op("Col2Im", _folded_channels, since=(18,), relevance=Relevance.LINEAR)
def col2im(
    x: Tensor,
    image_shape: Ints,
    block_shape: Ints,
    /,
    *,
    dilations: Ints | None = None,
    pads: Ints | None = None,
    strides: Ints | None = None,
) -> Tensor:
    """Sum windows into the map that they were cut from.

    Shapes: x `[N, C * block, L]` -> `[N, C, *image_shape]`; 2 sizes.
    Source: ONNX operator Col2Im-18.
    """
    if len(image_shape) != 2:
        raise UnsupportedAttribute(f"image_shape of {len(image_shape)} sizes; expected 2")
    window = Window("NOTSET", dilations, pads, strides)
    steps, gaps = window.steps(2)
    widths = window.given(2)
    size = tuple(n + before + after for n, (before, after) in zip(image_shape, widths, strict=True))
    full = functional.fold(x, size, block_shape, gaps, 0, steps)
    return pad_space(full, [(-before, -after) for before, after in widths])
