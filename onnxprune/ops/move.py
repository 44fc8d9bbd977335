"""Operators that only move elements: every output element is a copy of one input element.

Nothing about channels or relevance is written here. Labels ride through the very same forward, in
numpy; relevance rides back along the gradient, which for a copy is exact. What a node states about
channel counts (target shapes, bounds, sizes) is restated from the positions that survive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import UnsupportedAttribute
from onnxprune.ops._op import MOVES, Edit, Indices, Ints, Site, op
from onnxprune.ops.array import concat, pad, permute, reshape, take

if TYPE_CHECKING:
    from torch import Tensor


@op("Concat", MOVES, since=(4, 11, 13))
def concat_(*parts: Tensor, axis: int) -> Tensor:
    """Join along an axis.

    Source: ONNX operator Concat-13.
    """
    return concat(parts, axis)


@op("Transpose", MOVES, since=(1, 13, 21, 23, 24, 25))
def transpose(x: Tensor, /, *, perm: Ints | None = None) -> Tensor:
    """Reorder axes; reverse them by default.

    Source: ONNX operator Transpose-25.
    """
    return permute(x, perm if perm is not None else tuple(reversed(range(x.ndim))))


@op("Flatten", MOVES, since=(1, 9, 11, 13, 21, 23, 24, 25))
def flatten(x: Tensor, /, *, axis: int = 1) -> Tensor:
    """Flatten to a matrix: the axes before `axis`, and the others.

    Source: ONNX operator Flatten-25.
    """
    axis = axis + x.ndim if axis < 0 else axis
    rows = int(np.prod(x.shape[:axis]))
    columns = int(np.prod(x.shape[axis:]))
    return reshape(x, (rows, columns))


def _restate_reshape(site: Site) -> Edit | None:
    """Write the predicted sizes, unless the target still resolves to them; keep open axes open."""
    predicted, target = site.predicted[0], site.ints(1)
    if predicted is None or (target is not None and _resolve(target, site.shapes[0]) == predicted):
        return None
    sizes = list(predicted)
    copied, source = site.dynamic(site.node.inputs[0]), site.shapes[0] or ()
    for k, is_open in enumerate(site.dynamic(site.node.outputs[0])):
        if is_open:
            same = k < len(copied) and copied[k] and source[k] == predicted[k]
            sizes[k] = 0 if same and not site.attribute("allowzero", 0) else -1
    return Edit(inputs={1: np.array(sizes, np.int64)})


def _resolve(target: Ints, shape: Ints | None) -> Ints | None:
    """The sizes that a target with 0 and -1 stands for, or None where it does not fit."""
    if shape is None:
        return None
    sizes = [shape[k] if n == 0 and k < len(shape) else n for k, n in enumerate(target)]
    total, known = int(np.prod(shape)), int(np.prod([n for n in sizes if n != -1]))
    if -1 in sizes and known:
        sizes[sizes.index(-1)] = total // known
    return tuple(sizes)


@op("Reshape", MOVES, since=(5, 13, 14, 19, 21, 23, 24, 25), restate=_restate_reshape)
def reshape_(x: Tensor, shape: Ints, /, *, allowzero: int = 0) -> Tensor:
    """Give another shape; 0 copies a size (unless `allowzero`), -1 is worked out.

    Source: ONNX operator Reshape-25.
    """
    sizes = [x.shape[k] if n == 0 and not allowzero else n for k, n in enumerate(shape)]
    return reshape(x, sizes)


@op("Squeeze", MOVES, since=(13, 21, 23, 24, 25))
def squeeze(x: Tensor, axes: Ints | None = None, /) -> Tensor:
    """Drop axes of size 1: those named, or all.

    Source: ONNX operator Squeeze-25.
    """
    drop = {a % x.ndim for a in axes} if axes is not None else set(_ones(x))
    return reshape(x, [n for k, n in enumerate(x.shape) if k not in drop])


@op("Squeeze", MOVES, since=(1, 11))
def squeeze_11(x: Tensor, /, *, axes: Ints | None = None) -> Tensor:
    """Drop axes of size 1, named by an attribute.

    Source: ONNX operator Squeeze-11.
    """
    return squeeze(x, axes)


@op("Unsqueeze", MOVES, since=(13, 21, 23, 24, 25))
def unsqueeze(x: Tensor, axes: Ints, /) -> Tensor:
    """Insert axes of size 1 at the named places of the output.

    Source: ONNX operator Unsqueeze-25.
    """
    rank = x.ndim + len(axes)
    places = {a % rank for a in axes}
    sizes = iter(x.shape)
    return reshape(x, [1 if k in places else next(sizes) for k in range(rank)])


@op("Unsqueeze", MOVES, since=(1, 11))
def unsqueeze_11(x: Tensor, /, *, axes: Ints) -> Tensor:
    """Insert axes of size 1, named by an attribute.

    Source: ONNX operator Unsqueeze-11.
    """
    return unsqueeze(x, axes)


def _restate_split(site: Site) -> Edit | None:
    axis = site.attribute("axis", 0)
    sizes = [shape[axis] for shape in site.predicted if shape is not None]
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


def _restate_slice(site: Site) -> Edit | None:
    """Bounds of a cut axis become those of its surviving positions.

    Positions taken with a step survive at no regular distance: there the node becomes a Gather.
    """
    starts, ends, axes, steps = _bounds(site)
    before = site.before.shapes[0] if site.before is not None else None
    if before is None:
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
    site: Site, axis: int, taken: dict[int, range], alive: npt.NDArray[np.bool_]
) -> Edit:
    if len(taken) > 1:
        raise UnsupportedAttribute(
            f"{site.node}: takes every {taken[axis].step}th channel and slices another axis as "
            f"well; exclude what feeds it from pruning"
        )
    chosen = np.array(taken[axis], np.int64)
    indices = (np.cumsum(alive) - 1)[chosen[alive[chosen]]]
    drop = ("starts", "ends", "axes")
    return Edit({"axis": axis}, {1: indices.astype(np.int64)}, op_type="Gather", drop=drop)


def _bounds(site: Site) -> tuple[Ints, Ints, Ints, Ints]:
    if "starts" in site.node.attributes:
        starts, ends = site.attribute("starts"), site.attribute("ends")
        axes, steps = site.attribute("axes"), None
    else:
        old = site.before or site
        starts, ends, axes, steps = (old.ints(k) for k in range(1, 5))
    axes = axes if axes is not None else tuple(range(len(starts)))
    return starts, ends, axes, steps or (1,) * len(starts)


@op("Slice", MOVES, since=(10, 11, 13), restate=_restate_slice)
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


def _restate_gather(site: Site) -> Edit | None:
    """Indices into a cut axis become the ranks of the positions they name."""
    rank = site.rank(0)
    axis = site.attribute("axis", 0) % rank
    alive = site.kept[0].get(axis)
    indices = site.before.values[1] if site.before is not None else None
    if alive is None or indices is None:
        return None
    flat = np.where(indices < 0, indices + alive.size, indices)
    flat = flat[alive[flat]] if flat.ndim == 1 else flat
    new = (np.cumsum(alive) - 1)[flat]
    return Edit(inputs={1: new.astype(indices.dtype)})


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


def _restate_pad(site: Site) -> Edit | None:
    """Padding of a cut axis shrinks to the padded positions that survive."""
    legacy = site.node.version < 11
    old = site.before or site
    pads: Ints | None = site.attribute("pads") if legacy else old.ints(1)
    axes = None if legacy or len(site.node.inputs) < 4 else old.ints(3)
    if pads is None:
        return None
    rank = site.rank(0)
    places = [a % rank for a in axes] if axes else list(range(rank))
    new = list(pads)
    for axis, alive in site.output_kept[0].items():
        if axis in places:
            k = places.index(axis)
            after = pads[len(places) + k]
            new[k] = int(alive[: pads[k]].sum())
            new[len(places) + k] = int(alive[alive.size - after :].sum())
    if tuple(new) == tuple(pads):
        return None
    if legacy:
        return Edit(attributes={"pads": new})
    return Edit(inputs={1: np.array(new, np.int64)})


@op("Pad", MOVES, since=(11, 13, 18, 19, 21, 23, 24, 25), restate=_restate_pad)
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


@op("Pad", MOVES, since=(2,), restate=_restate_pad)
def pad_2(x: Tensor, /, *, mode: str = "constant", pads: Ints, value: float = 0.0) -> Tensor:
    """Add elements, with the amounts in an attribute.

    Source: ONNX operator Pad-2.
    """
    return pad(x, _pad_widths(x.ndim, pads, None), mode, value)


@op("Tile", MOVES, since=(6, 13))
def tile(x: Tensor, repeats: Ints, /) -> Tensor:
    """Repeat the whole along each axis.

    Source: ONNX operator Tile-13.
    """
    for axis, count in enumerate(repeats):
        if count != 1:
            x = concat([x] * count, axis)
    return x


def _blocks(x: Tensor, shape: Ints, axes: Ints) -> Tensor:
    return permute(reshape(x, shape), axes)


@op("DepthToSpace", MOVES, since=(1, 11, 13, 28))
def depth_to_space(x: Tensor, /, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Fold blocks of channels into space.

    Shapes: x `[N, b b C, H, W]` -> `[N, C, b H, b W]`, with `b = blocksize`.
    Source: ONNX operator DepthToSpace-28.
    """
    n, c, h, w = x.shape
    b, c = blocksize, c // blocksize**2
    if mode == "DCR":
        y = _blocks(x, (n, b, b, c, h, w), (0, 3, 4, 1, 5, 2))
    else:
        y = _blocks(x, (n, c, b, b, h, w), (0, 1, 4, 2, 5, 3))
    return reshape(y, (n, c, h * b, w * b))


@op("SpaceToDepth", MOVES, since=(1, 13, 28))
def space_to_depth(x: Tensor, /, *, blocksize: int, mode: str = "DCR") -> Tensor:
    """Fold space into blocks of channels.

    Shapes: x `[N, C, b H, b W]` -> `[N, b b C, H, W]`, with `b = blocksize`.
    Source: ONNX operator SpaceToDepth-28.
    """
    n, c, h, w = x.shape
    b = blocksize
    axes = (0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4)
    y = _blocks(x, (n, c, h // b, b, w // b, b), axes)
    return reshape(y, (n, c * b * b, h // b, w // b))


def _ones(x: Any) -> list[int]:
    return [k for k, n in enumerate(x.shape) if n == 1]
