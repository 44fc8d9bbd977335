"""Operators that only move elements: every output element is a copy of one input element.

Channels: the forward itself, run on labels in numpy, says where each channel goes.
Relevance: it follows the gradient, which is exact for a copy.
Channel counts that a node states (target shapes, bounds, sizes) are restated from the positions
that survive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.ops._op import Relevance, op
from onnxprune.ops.array import concat, permute, reshape
from onnxprune.ops.channels import ALIGNS, MOVES, Aligns, How, Moves, Pins
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


def _reshape_pins(site: CutSite) -> Pins | None:
    """A target that states channels is restated; -1 can stand for one open size only."""
    target, source = site.ints(1), site.dynamic(site.node.inputs[0])
    if target is None or len(follows_open(site, 1)) < 2:
        return None
    cut = names_channels(site, 1, [k for k, n in enumerate(target) if k in site.output_cut[0]])
    open_axes = [k for k, is_open in enumerate(site.dynamic(site.node.outputs[0])) if is_open]
    copied = [k for k in open_axes if _is_copied(site, k, source)]
    return FROZEN if cut and len(open_axes) - len(copied) > 1 else None


def _is_copied(site: Site, axis: int, source: tuple[bool, ...]) -> bool:
    """Say whether an open axis has the place and size of one of the input, which 0 copies."""
    before, after = site.shapes[0] or (), site.output_shapes[0] or ()
    if site.attribute("allowzero", 0) or axis >= len(source):
        return False
    return source[axis] and before[axis] == after[axis]


def _restate_reshape(site: PrunedSite) -> Edit | None:
    """Write the predicted sizes, unless the target still resolves to them; keep open axes open."""
    predicted, target = site.output_shapes[0], site.ints(1)
    if predicted is None or (target is not None and _resolve(target, site.shapes[0]) == predicted):
        return None
    sizes, source = list(predicted), site.dynamic(site.node.inputs[0])
    for k, is_open in enumerate(site.dynamic(site.node.outputs[0])):
        if is_open:
            sizes[k] = 0 if _is_copied(site, k, source) else -1
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


@op(
    "Reshape",
    MOVES,
    since=(5, 13, 14, 19, 21, 23, 24, 25),
    restate=_restate_reshape,
    pins=_reshape_pins,
)
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


def _tile_channels(site: Site) -> How:
    """Repeating an axis of size 1 is broadcasting: each repetition is a channel of its own."""
    shape, repeats = site.shapes[0], site.ints(1)
    if shape is None or repeats is None:
        return MOVES
    tiled = [k for k, count in enumerate(repeats) if count != 1]
    if not tiled or max(shape[k] for k in tiled) > 1:
        return MOVES
    return ALIGNS


def _tile_pins(site: CutSite) -> Pins | None:
    """A number of repetitions that is a count of channels is restated, unless others are open."""
    repeats = site.ints(1) or ()
    if not isinstance(_tile_channels(site), Aligns) or not follows_open(site, 1):
        return None
    cut = [k for k, count in enumerate(repeats) if count != 1 and k in site.output_cut[0]]
    return FROZEN if names_channels(site, 1, cut) else None


def _restate_repeats(site: PrunedSite) -> Edit | None:
    """Repeat an axis of size 1 as often as positions of the output survive."""
    shape, predicted, repeats = site.shapes[0], site.output_shapes[0], site.ints(1)
    if shape is None or predicted is None or repeats is None:
        return None
    cut = site.output_kept[0]
    new = [predicted[k] // shape[k] if k in cut else count for k, count in enumerate(repeats)]
    return None if tuple(new) == repeats else Edit(inputs={1: np.array(new, np.int64)})


@op(
    "Tile",
    _tile_channels,
    since=(6, 13),
    relevance=Relevance.COPY,
    restate=_restate_repeats,
    pins=_tile_pins,
)
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


@op("DepthToSpace", Moves(along=(1,)), since=(1, 11, 13, 28))
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


@op("SpaceToDepth", Moves(along=(1,)), since=(1, 13, 28))
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
