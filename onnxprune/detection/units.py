"""What a change of a detector's numbers is measured in: what it does to boxes and their scores.

Average precision asks of a box that it overlaps with its object, so a side that moves counts as a
share of the box. It counts as much as the box itself, by its score, and so do the scores: most
places of an image have no object, and they are what a deviation over all places would be made of.

Each number is changed a little, in all places at once, and the head is read again. So this holds of
any head that says a box and scores for each place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

SIDE = 0.1
"""A box that moves or grows by this share of its sides is as bad as ..."""
SCORE = 0.3
"""... a score that changes by this much."""
LITTLE = 1e-3
"""By how much a number is changed."""


def find_units(read: Any, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return by how much to multiply a change of each number; of outputs without places, nothing.

    `read` returns boxes and scores of outputs. A number that says nothing of them, as of a mask,
    counts in units of its deviation, by the score of its place.
    Shapes: outputs `[n, ...]` -> as they are; read -> `[n, A, 4]`, `[n, A, K]`.
    """
    boxes, scores = read(outputs)
    sure = scores.max(-1, initial=0).clip(0, 1)
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 1.0)
    sides = np.concatenate([sides, sides], -1) * SIDE
    found: dict[str, Array] = {}
    for name, (array, level) in _levels(outputs, sure.shape[1]).items():
        count = level.stop - level.start
        rows, units = _by_place(array, count), np.zeros(array.shape)
        own = _by_place(units, count)
        assert rows is not None and own is not None
        for k in range(rows.shape[2]):
            changed, step = _changed(array, count, k)
            moved, other = (one[:, level] for one in read({**outputs, name: changed}))
            box = ((moved - boxes[:, level]) / sides[:, level] / step) ** 2
            score = ((other - scores[:, level]) / SCORE / step) ** 2
            own[..., k] = sure[:, level] * (box.sum(-1) + score.sum(-1))
            if not own[..., k].any():
                own[..., k] = sure[:, level] / max(float(rows[..., k].var()), 1e-30)
        found[name] = np.sqrt(units)
    return found


def _levels(outputs: Mapping[str, Array], places: int) -> dict[str, tuple[Array, slice]]:
    """The outputs that say something of places, and of which: all, or one level of several.

    Levels are from fine to coarse, as heads read them.
    """
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
    whole = {
        name: (array, slice(0, places))
        for name, array in floats.items()
        if _by_place(array, places) is not None
    }
    counts = sorted({array.shape[1] for array in floats.values() if array.ndim == 3}, reverse=True)
    if whole or sum(counts) != places:
        return whole
    starts = {count: sum(counts[:k]) for k, count in enumerate(counts)}
    return {
        name: (array, slice(starts[array.shape[1]], starts[array.shape[1]] + array.shape[1]))
        for name, array in floats.items()
        if array.ndim == 3
    }


def _changed(array: Array, places: int, k: int) -> tuple[Array, Array]:
    """The array with its k-th number of each place changed, and by how much.

    Numbers from 0 to 1 stay there, since a head may know probabilities by that.
    Shapes: -> as it is, `[n, A, 1]`.
    """
    changed = array.astype(np.float64, order="C")
    rows = _by_place(changed, places)
    assert rows is not None
    step = np.where(rows[..., k] < 0.5, LITTLE, -LITTLE)
    rows[..., k] += step
    return changed, step[..., None]


def _by_place(array: Array, places: int) -> Array | None:
    """A view of the numbers of each place, None of an output that has none. Shapes: `[n, A, k]`."""
    if array.ndim == 4 and array.shape[2] == 1:
        array = array[:, :, 0]
    elif array.ndim == 4 and array.shape[2] * array.shape[3] == places:
        return array.reshape(*array.shape[:2], places).transpose(0, 2, 1)
    if array.ndim != 3 or places not in array.shape[1:]:
        return None
    return array if array.shape[1] == places else array.transpose(0, 2, 1)
