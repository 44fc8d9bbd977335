"""What a change of a detector's numbers is measured in: what it does to boxes and their scores.

Average precision asks of a box that it overlaps with its object, so a side that moves counts as a
share of the box. It counts as much as the box itself, by its score, and so do the scores: most
places of an image have no object, and they are what a deviation over all places would be made of.

Each number is changed a little, in all places at once, and the head is read again. So this holds of
any head that says a box and scores for each place.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.detection.maps import PER_CELL, by_cell

Array: TypeAlias = npt.NDArray[Any]

SIDE = 0.1
"""A box that moves or grows by this share of its sides is as bad as ..."""
SCORE = 0.3
"""... a score that changes by this much."""
LITTLE = 1e-3
"""By how much a number is changed."""
AT_ONCE = 16
"""Samples that are read at once, so that large ones fit into memory."""


class _Placed(NamedTuple):
    """An output that says something of places: of which, and where in it their numbers stand.

    Shapes: numbers `[places, k]`, in a sample that is one row.
    """

    name: str
    level: slice
    numbers: IntArray


def find_units(read: Any, outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return by how much to multiply a change of each number; of outputs without places, nothing.

    `read` returns boxes and scores of outputs. A number that says nothing of them, as of a mask,
    counts in units of its deviation, by the score of its place; the prototypes of masks count, all
    of them, as these numbers do. Points stand behind a box; all of them count as its two corners.
    Shapes: outputs `[n, ...]` -> as they are; read -> `[n, A, 4]`, or `[n, A, 4 + 2P]` with points,
    and `[n, A, K]`.
    """
    starts = range(0, len(next(iter(outputs.values()))), AT_ONCE)
    parts = [{name: one[k : k + AT_ONCE] for name, one in outputs.items()} for k in starts]
    placed = _placed(outputs, read(parts[0])[1].shape[1])
    bent = {one.name: np.zeros((len(outputs[one.name]), *one.numbers.shape)) for one in placed}
    sure = np.concatenate(
        [
            _bend(read, part, placed, {name: own[k : k + AT_ONCE] for name, own in bent.items()})
            for k, part in zip(starts, parts, strict=True)
        ]
    )
    found: dict[str, Array] = {}
    behind = 0
    for name, level, numbers in placed:
        rows = outputs[name].reshape(len(sure), -1)
        for k in np.flatnonzero(~bent[name].any((0, 1))).tolist():
            own = rows[:, numbers[:, k]].astype(np.float64)
            bent[name][..., k] = 1 / max(float(own.var()), 1e-30)
            behind += 1
        units = np.zeros(rows.shape)
        units[:, numbers] = np.sqrt(sure[:, level, None] * bent[name])
        found[name] = units.reshape(outputs[name].shape)
    return {**found, **dict(_beside(outputs, found, behind * sure.sum(1)))}


def _beside(
    outputs: Mapping[str, Array], found: Mapping[str, Array], weight: Array
) -> Iterator[tuple[str, Array]]:
    """The units of maps that numbers of each place weigh: together they count as those do.

    Shapes: weight `[n]`.
    """
    for name, held in outputs.items():
        if name in found or held.ndim != 4 or held.dtype.kind != "f" or not weight.any():
            continue
        spread = held.std((0, 2, 3), keepdims=True, dtype=np.float64)
        each = np.sqrt(weight / held[0].size).reshape(-1, 1, 1, 1) / np.maximum(spread, 1e-15)
        yield name, np.broadcast_to(each, held.shape)


def _bend(
    read: Any, outputs: Mapping[str, Array], placed: Sequence[_Placed], bent: Mapping[str, Array]
) -> Array:
    """Write what a change of each number bends, and return the highest score of each place.

    Shapes: outputs `[n, ...]`; bent `[n, places, k]` each -> `[n, A]`.
    """
    boxes, scores = read(outputs)
    sides = np.maximum(boxes[..., 2:4] - boxes[..., :2], 1.0) * SIDE
    points = boxes.shape[-1] // 2 - 2
    sides = np.concatenate([sides, sides, *[sides * np.sqrt(points / 2)] * points], -1)
    for turn in _apart(placed):
        rows = {one.name: _rows(outputs[one.name]) for one in turn}
        for k in range(max(one.numbers.shape[1] for one in turn)):
            at_once = [one for one in turn if k < one.numbers.shape[1]]
            changed, step = dict(outputs), np.ones(scores.shape[:2])
            for name, level, numbers in at_once:
                changed[name], step[:, level] = _changed(
                    rows[name], numbers[:, k], outputs[name].shape
                )
            moved, other = read(changed)
            both = (((moved - boxes) / sides) ** 2).sum(-1)
            both = (both + (((other - scores) / SCORE) ** 2).sum(-1)) / step**2
            for name, level, _ in at_once:
                bent[name][..., k] = both[:, level]
    return np.asarray(scores.max(-1, initial=0).clip(0, 1))


def _rows(array: Array) -> Array:
    return array.astype(np.float64).reshape(len(array), -1)


def _changed(rows: Array, numbers: IntArray, shape: Sequence[int]) -> tuple[Array, Array]:
    """An output with one number of each place changed, and by how much.

    Numbers from 0 to 1 stay there, since a head may know probabilities by that.
    Shapes: rows `[n, ...]`, numbers `[A]` -> as the output is, `[n, A]`.
    """
    changed = rows.copy()
    step = np.where(rows[:, numbers] < 0.5, LITTLE, -LITTLE)
    changed[:, numbers] += step
    return changed.reshape(shape), step


def _apart(placed: Sequence[_Placed]) -> list[list[_Placed]]:
    """The outputs by turns: those of one turn say something of other places each."""
    levels: dict[int, list[_Placed]] = {}
    for one in placed:
        levels.setdefault(one.level.start, []).append(one)
    return [[one for one in turn if one] for turn in zip_longest(*levels.values())]


def _placed(outputs: Mapping[str, Array], places: int) -> list[_Placed]:
    """The outputs that say something of places: of all, or of one level of several.

    Levels are from fine to coarse, as heads read them.
    """
    floats = {name: array for name, array in outputs.items() if array.dtype.kind == "f"}
    numbers = {name: _by_place(array, places) for name, array in floats.items()}
    if any(own is not None for own in numbers.values()):
        whole = slice(0, places)
        return [_Placed(name, whole, own) for name, own in numbers.items() if own is not None]
    for each in (1, PER_CELL):
        levels = {name: _of_level(array, each) for name, array in floats.items()}
        held = {name: own for name, own in levels.items() if own is not None}
        counts = sorted({len(own) for own in held.values()}, reverse=True)
        if sum(counts) == places:
            starts = {count: sum(counts[:k]) for k, count in enumerate(counts)}
            return [
                _Placed(name, slice(starts[len(own)], starts[len(own)] + len(own)), own)
                for name, own in held.items()
            ]
    return []


def _by_place(array: Array, places: int) -> IntArray | None:
    """Where the numbers of each place stand, None of an output that has none. Shapes: `[A, k]`."""
    at = np.arange(array[0].size).reshape(1, *array.shape[1:])
    if at.ndim == 4 and at.shape[2] == 1:
        at = at[:, :, 0]
    if at.ndim != 3 or places not in at.shape[1:]:
        return None
    return np.asarray(at[0] if at.shape[1] == places else at[0].T)


def _of_level(array: Array, each: int) -> IntArray | None:
    """The same of an output that is one level, with so many places in `each` of its cells."""
    at = np.arange(array[0].size).reshape(1, *array.shape[1:])
    if at.ndim == 3 and each == 1:
        return np.asarray(at[0])
    if at.ndim not in (4, 5) or at[0].size % (each * at.shape[2] * at.shape[3]):
        return None
    return np.asarray(by_cell(at)[0].reshape(each * at.shape[2] * at.shape[3], -1))
