"""Resizing: interpolation along space, each channel on its own.

Axes are interpolated one at a time; every output position is a weighted sum of a few input
positions.
Channels: they may go on an axis that keeps its size.
Relevance: as for a weighted sum.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.arrays import FloatArray
from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Relevance, op
from onnxprune.ops._torch import torch
from onnxprune.ops.array import take
from onnxprune.ops.channels import Axes, How, Pins
from onnxprune.ops.pattern import letters
from onnxprune.ops.site import (
    FROZEN,
    CutSite,
    Edit,
    Ints,
    PrunedSite,
    Site,
    follows_open,
    names_channels,
)

if TYPE_CHECKING:
    from torch import Tensor

ROUND: dict[str, Callable[[FloatArray], FloatArray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}
"""`nearest_mode`: which neighbour of a position between two is the nearest."""


NEW = "QRSTUVWXYZ"
"""Letters of the axes that are resized, whose positions are not those of the input."""


def _resize_channels(site: Site) -> How:
    """Channels may go on an axis that keeps its size, and is neither scaled nor cropped."""
    before, after = site.shapes[0], site.output_shapes[0]
    if before is None or after is None:
        return Pins("whose shapes are not known")
    changed = {k for k, (n, m) in enumerate(zip(before, after, strict=True)) if n != m}
    places = [axis % len(before) for axis in site.attribute("axes") or range(len(before))]
    since_11 = site.node.version >= 11
    scales = _known(site, 2 if since_11 else 1)
    changed |= {axis for axis, factor in zip(places, scales, strict=False) if factor != 1}
    if since_11 and site.attribute("coordinate_transformation_mode") == "tf_crop_and_resize":
        bounds = _known(site, 1)
        if len(bounds) != 2 * len(places):
            return Pins("which crops to a region known only at run time")
        corners = zip(places, bounds, bounds[len(places) :], strict=False)
        changed |= {axis for axis, start, end in corners if (start, end) != (0, 1)}
    names = letters(len(before), changed)
    made = [NEW[k] if k in changed else name for k, name in enumerate(names.split())]
    return Axes(f"{names} -> {' '.join(made)}", why="which resizes the axis of these channels")


def _resize_pins(site: CutSite) -> Pins | None:
    """Sizes of cut axes are restated, unless other sizes are only known at run time."""
    if not _known(site, 3) or not follows_open(site, 3):
        return None
    places = [axis % site.rank() for axis in site.attribute("axes") or range(site.rank())]
    both = set(site.output_cut[0]) & set(site.cut[0])
    cut = [k for k, axis in enumerate(places) if axis in both]
    return FROZEN if names_channels(site, 3, cut) else None


def _known(site: Site, index: int) -> list[float]:
    """The numbers of an input, or none where they are not known."""
    value = site.values[index] if index < len(site.values) else None
    return [] if value is None else [float(number) for number in np.ravel(value)]


def _restate_sizes(site: PrunedSite) -> Edit | None:
    """Sizes of cut axes become the predicted ones."""
    sizes, predicted = site.ints(3), site.output_shapes[0]
    if site.node.version < 11 or not sizes or predicted is None:
        return None
    named = site.attribute("axes") or range(len(predicted))
    places = [axis % len(predicted) for axis in named]
    new = [
        predicted[axis] if axis in site.output_kept[0] else size
        for axis, size in zip(places, sizes, strict=True)
    ]
    if tuple(new) == sizes:
        return None
    is_open = site.dynamic(site.node.outputs[0])
    if any(is_open[axis] for axis in places if axis < len(is_open)):
        raise UnsupportedAttribute(
            f"{site.node}: its sizes name a pruned axis and leave another one open; "
            f"expected scales; exclude the layers before it"
        )
    return Edit(inputs={3: np.array(new, np.int64)})


def _coordinates(size: int, length: int, scale: float, mode: str) -> FloatArray:
    """Where along an axis of `size` positions the `length` output positions lie."""
    k = np.arange(length, dtype=np.float64)
    half = (k + 0.5) / scale - 0.5
    if mode == "half_pixel":
        return half
    if mode == "pytorch_half_pixel":
        return half if length > 1 else np.zeros(1)
    if mode == "align_corners":
        return k * (size - 1) / max(length - 1, 1)
    if mode == "asymmetric":
        return k / scale
    if mode == "half_pixel_symmetric":
        return half + size / 2 * (1 - length / (scale * size))
    raise UnsupportedAttribute(f"coordinate_transformation_mode={mode!r}")


def _taps(x: FloatArray, mode: str, nearest: str, a: float) -> list[tuple[FloatArray, FloatArray]]:
    """The input positions that make each output position, with their weights."""
    if mode == "nearest":
        return [(ROUND[nearest](x), np.ones_like(x))]
    low = np.floor(x)
    t = x - low
    if mode == "linear":
        return [(low, 1 - t), (low + 1, t)]
    if mode == "cubic":
        return [(low + k, _cubic(np.abs(t - k), a)) for k in (-1, 0, 1, 2)]
    raise UnsupportedAttribute(f"mode={mode!r}")


def _cubic(d: FloatArray, a: float) -> FloatArray:
    """The weight of a position at distance d. Source: Keys 1981, equation 4."""
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, far)


@op(
    "Resize",
    _resize_channels,
    since=(13, 18, 19),
    relevance=Relevance.LINEAR,
    restate=_restate_sizes,
    pins=_resize_pins,
)
def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Ints | None = None,
    /,
    *,
    antialias: int = 0,
    axes: Ints | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Interpolate to other sizes; `roi` and `extrapolation_value` only matter when cropping.

    Source: ONNX operator Resize-19.
    """
    if antialias:
        raise UnsupportedAttribute("antialias=1; expected 0")
    if keep_aspect_ratio_policy != "stretch":
        raise UnsupportedAttribute(f"keep_aspect_ratio_policy={keep_aspect_ratio_policy!r}")
    places = [axis % x.ndim for axis in (axes if axes is not None else range(x.ndim))]
    factors: Sequence[float]
    if sizes:
        lengths = list(sizes)
        factors = [n / x.shape[axis] for axis, n in zip(places, lengths, strict=True)]
    elif scales is not None:
        factors = [float(factor) for factor in scales.tolist()]
        lengths = [int(x.shape[axis] * f) for axis, f in zip(places, factors, strict=True)]
    else:
        raise UnsupportedAttribute("neither 'scales' nor 'sizes'; expected one of them")
    for axis, length, factor in zip(places, lengths, factors, strict=True):
        size = x.shape[axis]
        if length == size and factor == 1:
            continue
        where = _coordinates(size, length, factor, coordinate_transformation_mode)
        taps = _taps(where, mode, nearest_mode, cubic_coeff_a)
        x = _gather(x, axis, taps, bool(exclude_outside))
    return x


def _gather(
    x: Tensor, axis: int, taps: list[tuple[FloatArray, FloatArray]], exclude: bool
) -> Tensor:
    """Sum the taps; positions outside repeat the border, or are left out and the rest rescaled."""
    size = x.shape[axis]
    if exclude:
        taps = [(at, weight * ((at >= 0) & (at < size))) for at, weight in taps]
        total = sum(weight for _, weight in taps)
        taps = [(at, weight / total) for at, weight in taps]
    column = (-1, *(1,) * (x.ndim - 1 - axis))
    parts = [take(x, np.clip(at, 0, size - 1).astype(np.int64), axis) for at, _ in taps]
    if len(taps) == 1:
        return parts[0]
    weights = [torch.as_tensor(w, dtype=x.dtype, device=x.device) for _, w in taps]
    terms = [part * w.reshape(column) for part, w in zip(parts, weights, strict=True)]
    return reduce(torch.add, terms)


@op(
    "Resize",
    _resize_channels,
    since=(11,),
    relevance=Relevance.LINEAR,
    restate=_restate_sizes,
    pins=_resize_pins,
)
def resize_11(
    x: Tensor,
    roi: Tensor,
    scales: Tensor,
    sizes: Ints | None = None,
    /,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Interpolate to other sizes. Source: ONNX operator Resize-11."""
    return resize(
        x,
        roi,
        scales,
        sizes,
        coordinate_transformation_mode=coordinate_transformation_mode,
        cubic_coeff_a=cubic_coeff_a,
        exclude_outside=exclude_outside,
        mode=mode,
        nearest_mode=nearest_mode,
    )


@op("Resize", _resize_channels, since=(10,), relevance=Relevance.LINEAR)
def resize_10(x: Tensor, scales: Tensor, /, *, mode: str = "nearest") -> Tensor:
    """Interpolate by factors. Source: ONNX operator Resize-10."""
    return resize(
        x,
        None,
        scales,
        coordinate_transformation_mode="asymmetric",
        mode=mode,
        nearest_mode="floor",
    )


@op("Upsample", _resize_channels, since=(9,), relevance=Relevance.LINEAR)
def upsample(x: Tensor, scales: Tensor, /, *, mode: str = "nearest") -> Tensor:
    """Interpolate by factors. Source: ONNX operator Upsample-9."""
    return resize_10(x, scales, mode=mode)


@op("Upsample", _resize_channels, since=(7,), relevance=Relevance.LINEAR)
def upsample_7(x: Tensor, /, *, mode: str = "nearest", scales: tuple[float, ...]) -> Tensor:
    """Interpolate by factors in an attribute. Source: ONNX operator Upsample-7."""
    return resize_10(x, torch.tensor(scales), mode=mode)
