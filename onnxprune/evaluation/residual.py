"""What a network adds to a picture that it is given, as networks of restoration do.

Nearly all of such an output is there before: a network may lose everything that it does to it, and
still agree with the unpruned one to a percent. So the picture as it is, up to scale and offset, is
none of the network's own; nor is it enlarged by a linear filter where the output is larger.

Source: the residual as Zhang et al. 2017 (DnCNN) learn it; how much of the picture it is, ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray

Array = npt.NDArray[Any]

ALIKE = 0.5
"""Share of an output's variance that the input as it is has to explain for it to be the same
picture."""
LEAST = 1e-3
"""Share of the variance that is a network's own at least, as of one that does nothing."""
SAMPLES, POSITIONS = 32, 20_000
"""Samples, and pixels of the input, that are looked at."""
CHANNELS, LARGER, SIDE = 4, 8, 3
"""Channels of a picture, and times that one may become larger, at most; pixels of the filter."""


def residual_share(inputs: Iterable[Array], output: Array, axis: int) -> FloatArray | None:
    """Return what share of the variance of each row a network adds to a picture of its inputs.

    None where the output is no picture of the inputs, of the same size or some times larger. Rows
    are the channels, or all in one where `axis` is 0.

    Shapes: inputs and output `[n, C, H, W]` or `[n, H, W, C]`; -> `[rows]`.
    """
    y = _planes(output)
    if y is None or (axis and axis != (1 if output.shape[1] <= CHANNELS else 3)):
        return None
    shares = (_share(x, y) for x in map(_planes, inputs) if x is not None)
    found = [share for share in shares if share is not None]
    if not found:
        return None
    left, spread = min(found, key=lambda one: float(one[0].sum() / one[1].sum()))
    if not axis:
        left, spread = left.sum(keepdims=True), spread.sum(keepdims=True)
    return np.clip(left / np.where(spread > 0, spread, 1), LEAST, 1)


def _planes(x: Array) -> FloatArray | None:
    """The first pictures, channels first.

    Shapes: `[n, C, H, W]` or `[n, H, W, C]` -> `[m, C, H, W]`.
    """
    x = np.asarray(x[:SAMPLES])
    if x.ndim != 4 or x.dtype.kind not in "fiu":
        return None
    if x.shape[1] > CHANNELS:
        x = np.moveaxis(x, 3, 1)
    return x.astype(np.float64) if x.shape[1] <= CHANNELS and min(x.shape[2:]) > SIDE else None


def _share(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """What x leaves of y, and the variance of y, None of another picture.

    Shapes: x `[n, c, h, w]`, y `[n, C, k h, k w]` -> `[C]` and `[C]`.
    """
    (count, channels, *size), larger = x.shape, y.shape[2] // x.shape[2]
    fits = list(y.shape[2:]) == [larger * n for n in size] and 1 <= larger <= LARGER
    if not fits or channels not in (1, *range(y.shape[1], CHANNELS + 1)) or len(y) != count:
        return None
    step = int(np.ceil(np.sqrt(count * np.prod(size) / POSITIONS)))
    patches = np.lib.stride_tricks.sliding_window_view(x, (SIDE, SIDE), (2, 3))
    patches = patches[:, :, ::step, ::step]
    blocks = y.reshape(count, y.shape[1], size[0], larger, size[1], larger)
    blocks = blocks[:, :, 1:-1:step, :, 1:-1:step]
    wanted = blocks.transpose(0, 2, 4, 1, 3, 5)
    given = patches.transpose(0, 2, 3, 1, 4, 5)
    given = given.reshape(*wanted.shape[:3], -1)
    centre = given.reshape(-1, channels, SIDE, SIDE)[:, : y.shape[1], SIDE // 2, SIDE // 2]
    rows = wanted.reshape(len(centre), y.shape[1], -1)
    if not _explains(centre, rows):
        return None
    known = centre if larger == 1 else given.reshape(len(rows), -1)
    full = np.column_stack([known, np.ones(len(rows))])
    flat = rows.reshape(len(rows), -1)
    if len(flat) <= full.shape[1]:
        return None
    left = flat - full @ np.linalg.lstsq(full, flat, rcond=None)[0]
    varied = wanted - wanted.mean(0) if count > 1 else wanted
    return (
        (left.reshape(rows.shape) ** 2).sum((0, 2)),
        (varied.reshape(rows.shape) ** 2).sum((0, 2)),
    )


def _explains(centre: FloatArray, rows: FloatArray) -> bool:
    """Return whether pixels as they are explain most of others, up to a scale and an offset.

    Shapes: centre `[m, c]`, rows `[m, C, pixels]`.
    """
    rows = rows - rows.mean((0, 2), keepdims=True)
    centre = (centre - centre.mean(0))[:, :, None]
    alike = (rows * centre).sum((0, 2)) ** 2
    both = (centre**2).sum((0, 2)) * rows.shape[2] * (rows**2).sum((0, 2))
    return bool((alike > ALIKE * both).all())
