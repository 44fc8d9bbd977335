"""Moving elements, alike for torch tensors (values) and numpy arrays (channel labels).

Labels vary along one axis and repeat along the others. They are views with stride 0 along the axes
on which they repeat. These functions return such views, so no image-sized array of labels is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from onnxprune.ops._torch import functional, torch

A = TypeVar("A")

FREE = -1
"""The label of an element that belongs to no channel: padding."""

MOST = 2**25
"""Elements of labels that are written out one by one."""


def reshape(x: A, shape: Sequence[int]) -> A:
    """Return `x` with another shape; one size may be -1.

    Raises: MemoryError for more labels than can be followed: they may have to be copied.
    """
    if isinstance(x, np.ndarray) and x.size > MOST:
        raise MemoryError(f"labels of {x.size:,} elements, which are too many to follow")
    return x.reshape(tuple(shape))  # type: ignore[attr-defined, no-any-return]


def permute(x: A, axes: Sequence[int]) -> A:
    """Return `x` with its axes in another order."""
    moved = np.transpose(x, axes) if isinstance(x, np.ndarray) else torch.permute(x, tuple(axes))  # type: ignore[arg-type]
    return moved  # type: ignore[return-value]


def broadcast(x: A, shape: Sequence[int]) -> A:
    """Return `x` repeated along its axes of size 1 until it has `shape`."""
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x, tuple(shape))  # type: ignore[return-value]
    return torch.broadcast_to(x, tuple(shape))  # type: ignore[arg-type, return-value]


def concat(parts: Sequence[A], axis: int) -> A:
    """Return the parts one after another along `axis`."""
    if not isinstance(parts[0], np.ndarray):
        return torch.cat(parts, dim=axis)  # type: ignore[arg-type, return-value]
    arrays: list[Any] = list(parts)
    axis %= arrays[0].ndim
    shape = list(arrays[0].shape)
    shape[axis] = sum(array.shape[axis] for array in arrays)
    repeated = _repeated(*arrays)
    first, *others = (_thin(array, repeated) for array in arrays)
    alike = all(other.shape == first.shape and (other == first).all() for other in others)
    if axis not in repeated or not alike:
        kept = [k for k in repeated if k != axis]
        first = np.concatenate([_thin(array, kept) for array in arrays], axis)
    return np.broadcast_to(first, shape)  # type: ignore[return-value]


def take(x: A, indices: Any, axis: int) -> A:
    """Return the positions `indices` (any rank, negative allowed) of `axis`; they replace it.

    Shapes: x `[.., n, ..]`, indices `[*s]` -> `[.., *s, ..]`.
    """
    if not isinstance(x, np.ndarray):
        where = torch.as_tensor(indices, device=x.device)  # type: ignore[attr-defined]
        rank = x.ndim  # type: ignore[attr-defined]
        return x[(slice(None),) * (axis % rank) + (where,)]  # type: ignore[index, no-any-return]
    axis %= x.ndim
    indices = np.asarray(indices)
    repeated = _repeated(x)
    if axis in repeated and x.shape[axis]:
        np.arange(x.shape[axis])[indices]  # an index out of bounds is an error here, too
        taken = np.expand_dims(
            _thin(x, repeated).squeeze(axis), [axis + k for k in range(indices.ndim)]
        )
    else:
        taken = np.take(_thin(x, [k for k in repeated if k != axis]), indices, axis)
    shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return np.broadcast_to(taken, shape)  # type: ignore[return-value]


def pad(x: A, widths: Sequence[tuple[int, int]], mode: str = "constant", value: float = 0.0) -> A:
    """Return `x` with (before, after) elements added to every axis; negative widths cut.

    Labels of constant padding are FREE. Modes as ONNX: constant, reflect, edge, wrap.
    """
    cut = tuple(slice(max(-a, 0), x.shape[k] - max(-b, 0)) for k, (a, b) in enumerate(widths))  # type: ignore[attr-defined]
    x = x[cut]  # type: ignore[index]
    widths = [(max(a, 0), max(b, 0)) for a, b in widths]
    if mode != "constant":
        for axis, width in enumerate(widths):
            if width != (0, 0):
                x = take(x, _border(x.shape[axis], width, mode), axis)  # type: ignore[attr-defined]
        return x
    if isinstance(x, np.ndarray):
        repeated = [k for k in _repeated(x) if widths[k] == (0, 0)]
        thin = np.pad(_thin(x, repeated), widths, constant_values=FREE)
        shape = [n + a + b for n, (a, b) in zip(x.shape, widths, strict=True)]
        return np.broadcast_to(thin, shape)  # type: ignore[return-value]
    flat = [width for pair in reversed(widths) for width in pair]
    return functional.pad(x, flat, value=value)  # type: ignore[arg-type, return-value]


def _border(size: int, width: tuple[int, int], mode: str) -> Any:
    positions = np.arange(-width[0], size + width[1])
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return positions % size
    period = max(2 * (size - 1), 1)
    folded = np.abs(positions) % period
    return np.where(folded < size, folded, period - folded)


def _repeated(*arrays: Any) -> list[int]:
    """Axes along which every array has stride 0."""
    return [k for k in range(arrays[0].ndim) if all(array.strides[k] == 0 for array in arrays)]


def _thin(array: Any, axes: Sequence[int]) -> Any:
    return array[tuple(slice(0, 1) if k in axes else slice(None) for k in range(array.ndim))]
