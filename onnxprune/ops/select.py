"""Operators that pick positions of an axis: parts, ranges, indices, borders.

They move elements, as the operators of `onnxprune.ops.move` do. A node states positions or counts
of the axis that it picks from; these are restated from the positions that survive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import Indices, Relevance, op
from onnxprune.ops.array import pad, take
from onnxprune.ops.channels import MOVES, Axes, How, Pins
from onnxprune.ops.node import Node
from onnxprune.ops.pattern import letters, other_letters
from onnxprune.ops.site import FROZEN, CutSite, Edit, Ints, PrunedSite, Site, follows_open

if TYPE_CHECKING:
    from torch import Tensor


def _restate_split(site: Site) -> Edit | None:
    axis = site.attribute("axis", 0)
    sizes = [shape[axis] for shape in site.output_shapes if shape is not None]
    if "split" in site.node.attributes:
        return Edit(attributes={"split": sizes})
    if site.node.version < 13:
        return Edit(attributes={"split": sizes}) if len(set(sizes)) > 1 else None
    if len(set(sizes)) == 1 and (len(site.node.inputs) < 2 or not site.node.inputs[1]):
        return None
    return Edit(inputs={1: np.array(sizes, np.int64)}, drop=("num_outputs",))


def _split(x: Tensor, sizes: Ints, axis: int) -> tuple[Tensor, ...]:
    axis %= x.ndim
    ends = np.cumsum(sizes).tolist()
    return tuple(
        x[(slice(None),) * axis + (slice(end - size, end),)]
        for size, end in zip(sizes, ends, strict=True)
    )


@op("Split", MOVES, since=(18,), restate=_restate_split)
def split(
    x: Tensor, split: Ints | None = None, /, *, axis: int = 0, num_outputs: int | None = None
) -> tuple[Tensor, ...]:
    """Cut into parts of the given sizes, or into equal ones (the last may be smaller).

    Source: ONNX operator Split-18.
    """
    size = x.shape[axis]
    if split is None:
        if num_outputs is None:
            raise UnsupportedAttribute("neither 'split' nor 'num_outputs'; expected one of them")
        part = -(-size // num_outputs)
        split = (*(part,) * (num_outputs - 1), size - part * (num_outputs - 1))
    return _split(x, split, axis)


@op("Split", MOVES, since=(13,), restate=_restate_split)
def split_13(
    x: Tensor, split: Ints | None = None, /, *, axis: int = 0, output_count: int
) -> tuple[Tensor, ...]:
    """Cut into parts of the given sizes, or into equal ones, one for each output.

    Source: ONNX operator Split-13.
    """
    return _split(x, split or (x.shape[axis] // output_count,) * output_count, axis)


@op("Split", MOVES, since=(2, 11), restate=_restate_split)
def split_11(
    x: Tensor, /, *, axis: int = 0, split: Ints | None = None, output_count: int
) -> tuple[Tensor, ...]:
    """Cut into parts of the given sizes, or into equal ones, one for each output.

    Source: ONNX operator Split-11.
    """
    return split_13(x, split, axis=axis, output_count=output_count)


def _slices(shape: Ints, starts: Ints, ends: Ints, axes: Ints, steps: Ints) -> dict[int, range]:
    found = {}
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis %= len(shape)
        found[axis] = range(shape[axis])[slice(start, _end(end, shape[axis], step), step)]
    return found


def _end(end: int, size: int, step: int) -> int | None:
    """Python's slice takes a negative end from the back; below -size it means 'from the start'."""
    return None if step < 0 and end < -size else end


def _slice_pins(site: CutSite) -> Pins | None:
    """If an axis that may lose channels has bounds, the bounds of all axes are restated."""
    if site.shapes[0] is None:
        return None
    starts, axes = site.ints(1), site.ints(3)
    if starts is None or (len(site.node.inputs) > 3 and site.node.inputs[3] and axes is None):
        return None
    places = [a % len(site.shapes[0]) for a in axes or range(len(starts))]
    cut = [k for k, axis in enumerate(places) if axis in site.cut[0]]
    return FROZEN if cut and set(follows_open(site, 1, 2)) - set(cut) else None


def _restate_slice(site: PrunedSite) -> Edit | None:
    """Bounds of a cut axis become those of its surviving positions.

    Positions taken with a step survive at no regular distance: there the node becomes a Gather.
    """
    starts, ends, axes, steps = _bounds(site)
    before = site.before.shapes[0]
    if before is None or not any(axis % len(before) in site.kept[0] for axis in axes):
        return None
    taken = _slices(before, starts, ends, axes, steps)
    new_starts, new_ends = list(starts), list(ends)
    for k, sliced in enumerate(axes):
        axis = sliced % len(before)
        alive = site.kept[0].get(axis)
        if alive is None:
            continue
        if steps[k] != 1:
            return _gather_instead(site, axis, taken, alive)
        rank = np.concatenate([[0], np.cumsum(alive)])
        new_starts[k] = int(rank[taken[axis].start])
        new_ends[k] = int(rank[max(taken[axis].stop, taken[axis].start)])
    if "starts" in site.node.attributes:
        return Edit(attributes={"starts": new_starts, "ends": new_ends})
    return Edit(inputs={1: np.array(new_starts, np.int64), 2: np.array(new_ends, np.int64)})


def _gather_instead(
    site: PrunedSite, axis: int, taken: dict[int, range], alive: npt.NDArray[np.bool_]
) -> Edit:
    if len(taken) > 1:
        raise UnsupportedAttribute(
            f"{site.node}: takes every {taken[axis].step}th channel and slices another axis as "
            f"well; exclude what feeds it from pruning"
        )
    return as_gather(site.node, axis, np.array(taken[axis], np.int64), alive)


def as_gather(
    node: Node, axis: int, taken: npt.NDArray[np.int64], alive: npt.NDArray[np.bool_]
) -> Edit:
    """Return the edit that makes the node a Gather of those positions that are alive.

    Shapes: taken `[m]`, positions of the axis as it was; alive `[n]`.
    """
    indices = (np.cumsum(alive) - 1)[taken[alive[taken]]]
    inputs = {1: indices.astype(np.int64)}
    return Edit({"axis": axis}, inputs, op_type="Gather", drop=tuple(node.attributes))


def _bounds(site: PrunedSite) -> tuple[Ints, Ints, Ints, Ints]:
    if "starts" in site.node.attributes:
        starts, ends = site.attribute("starts"), site.attribute("ends")
        axes, steps = site.attribute("axes"), None
    else:
        starts, ends, axes, steps = (site.before.ints(k) for k in range(1, 5))
    axes = axes if axes is not None else tuple(range(len(starts)))
    return starts, ends, axes, steps or (1,) * len(starts)


@op("Slice", MOVES, since=(10, 11, 13), restate=_restate_slice, pins=_slice_pins)
def slice_(
    x: Tensor, starts: Ints, ends: Ints, axes: Ints | None = None, steps: Ints | None = None, /
) -> Tensor:
    """Take a range of positions of some axes.

    Source: ONNX operator Slice-13.
    """
    axes = axes if axes is not None else tuple(range(len(starts)))
    ranges = _slices(tuple(x.shape), starts, ends, axes, steps or (1,) * len(starts))
    for axis, chosen in ranges.items():
        if chosen.step == 1:
            x = x[(slice(None),) * axis + (slice(chosen.start, max(chosen.stop, chosen.start)),)]
        else:
            x = take(x, np.array(chosen, np.int64), axis)
    return x


@op("Slice", MOVES, since=(1,), restate=_restate_slice)
def slice_1(x: Tensor, /, *, starts: Ints, ends: Ints, axes: Ints | None = None) -> Tensor:
    """Take a range of positions of some axes, named by attributes.

    Source: ONNX operator Slice-1.
    """
    return slice_(x, starts, ends, axes)


def _restate_gather(site: PrunedSite) -> Edit | None:
    """Indices into a cut axis become the ranks of the positions they name."""
    rank = site.rank(0)
    axis = site.attribute("axis", 0) % rank
    alive = site.kept[0].get(axis)
    indices = site.before.values[1]
    if alive is None or indices is None:
        return None
    for k in range(indices.ndim):
        left = site.output_kept[0].get(axis + k)
        indices = indices if left is None else np.compress(left, indices, k)
    named = np.where(indices < 0, indices + alive.size, indices)
    return Edit(inputs={1: np.asarray((np.cumsum(alive) - 1)[named], indices.dtype)})


@op("Gather", MOVES, since=(1, 11, 13), restate=_restate_gather)
def gather(x: Tensor, indices: Indices, /, *, axis: int = 0) -> Tensor:
    """Take positions of one axis by index.

    Source: ONNX operator Gather-13.
    """
    return take(x, indices, axis)


def _pad_widths(rank: int, pads: Ints, axes: Ints | None) -> list[tuple[int, int]]:
    places = [a % rank for a in axes] if axes else range(rank)
    half = len(pads) // 2
    widths = [(0, 0)] * rank
    for k, axis in enumerate(places):
        widths[axis] = (pads[k], pads[half + k])
    return widths


BORDERS = Pins("which repeats channels at the border")


def _pad_amounts(site: Site) -> tuple[Ints | None, list[int]]:
    """The padding before and after each axis that the model names, and these axes."""
    places = list(range(site.rank()))
    if site.node.version < 11:
        return site.attribute("pads"), places
    named = site.ints(3) if len(site.node.inputs) > 3 and site.node.inputs[3] else None
    return site.ints(1), places if named is None else [a % len(places) for a in named]


def _pad_pins(site: CutSite) -> Pins | None:
    """If an axis that may lose channels is padded, the amounts of all axes are restated."""
    pads, places = _pad_amounts(site)
    if pads is None:
        return None
    by_input = site.node.version >= 11
    counted = np.ravel(site.counted(site.node.inputs[1])) if by_input else np.zeros(len(pads))
    ends = zip((*places, *places), pads, counted, strict=False)
    if not any(axis in site.cut[0] and (amount or moves) for axis, amount, moves in ends):
        return None
    if site.attribute("mode", "constant") != "constant":
        return BORDERS
    return FROZEN if by_input and follows_open(site, 1) else None


def _restate_pad(site: PrunedSite) -> Edit | None:
    """Padding of a cut axis shrinks to the padded positions that survive; so does a crop."""
    pads, places = _pad_amounts(site.before)
    if pads is None:
        return None
    new = list(pads)
    for k, axis in enumerate(places):
        for end in (k, len(places) + k):
            positions = (site.output_kept if pads[end] > 0 else site.kept)[0].get(axis)
            if positions is not None and pads[end]:
                ordered = positions if end == k else positions[::-1]
                new[end] = int(np.sign(pads[end])) * int(ordered[: abs(pads[end])].sum())
    if tuple(new) == _pad_amounts(site)[0]:
        return None
    if site.node.version < 11:
        return Edit(attributes={"pads": new})
    return Edit(inputs={1: np.array(new, np.int64)})


@op(
    "Pad",
    MOVES,
    since=(11, 13, 18, 19, 21, 23, 24, 25),
    restate=_restate_pad,
    pins=_pad_pins,
)
def pad_(
    x: Tensor,
    pads: Ints,
    constant_value: Any = None,
    axes: Ints | None = None,
    /,
    *,
    mode: str = "constant",
) -> Tensor:
    """Add elements before and after along each axis.

    Source: ONNX operator Pad-25.
    """
    value = 0.0 if constant_value is None else float(np.ravel(constant_value)[0])
    return pad(x, _pad_widths(x.ndim, pads, axes), mode, value)


@op("Pad", MOVES, since=(2,), restate=_restate_pad, pins=_pad_pins)
def pad_2(x: Tensor, /, *, mode: str = "constant", pads: Ints, value: float = 0.0) -> Tensor:
    """Add elements, with the amounts in an attribute.

    Source: ONNX operator Pad-2.
    """
    return pad(x, _pad_widths(x.ndim, pads, None), mode, value)


def _crop_channels(site: Site) -> How:
    """Channels may go on an axis that keeps its size."""
    before, after = site.shapes[0], site.output_shapes[0]
    if before is None or after is None:
        return Pins("whose shapes are not known")
    changed = {k for k, (n, m) in enumerate(zip(before, after, strict=True)) if n != m}
    return Axes(
        f"{letters(len(before), changed)}, * -> {other_letters(len(before), changed)}",
        why="which crops or pads the axis of these channels",
    )


def _crop_pins(site: CutSite) -> Pins | None:
    """Sizes of cut axes are restated, unless other sizes are only known at run time."""
    rank = site.rank()
    named = {axis % rank for axis in site.attribute("axes") or range(rank)}
    return FROZEN if follows_open(site, 1) and named & set(site.output_cut[0]) else None


def _restate_crop(site: PrunedSite) -> Edit | None:
    """Sizes of cut axes become the predicted ones."""
    sizes, predicted = site.ints(1), site.output_shapes[0]
    if sizes is None or predicted is None:
        return None
    named = site.attribute("axes") or range(len(predicted))
    new = tuple(
        predicted[axis] if axis % len(predicted) in site.output_kept[0] else size
        for axis, size in zip(named, sizes, strict=True)
    )
    return None if new == sizes else Edit(inputs={1: np.array(new, np.int64)})


@op(
    "CenterCropPad",
    _crop_channels,
    since=(18,),
    relevance=Relevance.COPY,
    restate=_restate_crop,
    pins=_crop_pins,
)
def center_crop_pad(x: Tensor, shape: Ints, /, *, axes: Ints | None = None) -> Tensor:
    """The middle of some axes, or the axis in the middle of zeros.

    Source: ONNX operator CenterCropPad-18.
    """
    widths = [(0, 0)] * x.ndim
    for axis, size in zip(axes or range(x.ndim), shape, strict=True):
        more = size - x.shape[axis]
        half = abs(more) // 2
        widths[axis % x.ndim] = (half, more - half) if more > 0 else (-half, more + half)
    return pad(x, widths)
