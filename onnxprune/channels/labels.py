"""Sets of channels that must go together: unions of whole integer arrays, solved once.

A **label** is an integer naming one channel of one axis. Two values are special:
`FREE` is nobody's element (padding) and `KEPT` may never go. Labels that share a fate are united;
a pinned label may not go, and takes its whole class with it, but keeps its identity and a reason.

>>> labels = Labels()
>>> a, b = labels.fresh(3), labels.fresh(3)
>>> labels.unite(a, b[::-1], "")
>>> labels.unite(b, np.array([KEPT, FREE, b[2]]), "meets an image")
>>> classes = labels.solve()
>>> bool(classes.of[a[2]] == classes.of[b[0]]), classes.reason[classes.of[a[2]]]
(True, 'meets an image')
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from onnxprune.arrays import IntArray
from onnxprune.ops import FREE

KEPT = 0


@dataclass(frozen=True)
class Classes:
    """The solution: `of[label]` is the class of a label, `reason[class]` why a class may not go."""

    of: IntArray
    reason: Mapping[int, str]


@dataclass
class Labels:
    """Allocates labels and collects what ties and pins them; `solve` works it all out at once."""

    count: int = 1
    _pairs: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    _pins: list[tuple[IntArray, str]] = field(default_factory=list)

    def fresh(self, size: int) -> IntArray:
        """Return `size` labels that nobody holds yet."""
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def unite(self, a: IntArray, b: IntArray, reason: str) -> None:
        """Tie `a[k]` to `b[k]` for every k; `reason` says why, should one of them be KEPT.

        Shapes: a, b `[n]`.
        """
        tied = (a > KEPT) & (b > KEPT)
        self._pairs.append((a[tied], b[tied]))
        self.pin(a[b == KEPT], reason)
        self.pin(b[a == KEPT], reason)

    def unite_rows(self, rows: IntArray, reason: str) -> IntArray:
        """Tie all labels within each row and return one label per row (FREE where it has none).

        Shapes: rows `[n, m]` -> `[n]`.
        """
        first = rows.max(axis=1)
        self.unite(np.repeat(first, rows.shape[1]), rows.ravel(), reason)
        return np.where((rows == KEPT).any(axis=1), KEPT, first)

    def pin(self, labels: IntArray, reason: str) -> None:
        """Forbid the removal of `labels`, and of all they are tied to."""
        labels = labels[labels > KEPT]
        if labels.size:
            self._pins.append((labels, reason))

    def solve(self) -> Classes:
        """Return the classes of labels; the first reason recorded for a class is its reason."""
        left = np.concatenate([a for a, _ in self._pairs] or [np.empty(0, np.int64)])
        right = np.concatenate([b for _, b in self._pairs] or [np.empty(0, np.int64)])
        ties = coo_array((np.ones(left.size, np.bool_), (left, right)), shape=(self.count,) * 2)
        _, of = connected_components(ties, directed=False)
        of = of.astype(np.int64)
        reason: dict[int, str] = {}
        for labels, why in self._pins:
            for one in np.unique(of[labels]).tolist():
                reason.setdefault(one, why)
        return Classes(of, reason)


def count_classes(rows: IntArray) -> int:
    """Return how many classes remain when all labels within each row are tied.

    Shapes: rows `[n, m]`.
    """
    if (rows == rows[:1]).all():
        return 1
    names, index = np.unique(rows, return_inverse=True)
    index = index.reshape(rows.shape)
    links = (np.repeat(index[:, 0], rows.shape[1]), index.ravel())
    ties = coo_array((np.ones(index.size, np.bool_), links), shape=(names.size,) * 2)
    return int(connected_components(ties, directed=False, return_labels=False))


Balance = tuple[IntArray, str]
"""Labels `[groups, filters of each]`, and the reason to give where one of them may not go."""


def balance(labels: Labels, wanted: Sequence[Balance]) -> None:
    """Tie labels until all classes take equally many from each group, of all that is wanted."""
    while wanted:
        of = labels.solve().of
        touched: set[int] = set()
        later = []
        for rows, reason in wanted:
            classes = of[rows]
            if _is_balanced(classes):
                continue
            if touched.isdisjoint(classes.ravel().tolist()):
                _tie(labels, rows, classes, reason)
                touched.update(classes.ravel().tolist())
            later.append((rows, reason))
        wanted = later


def _is_balanced(classes: IntArray) -> bool:
    """Whether each class is in every group equally often. Shapes: `[groups, n]`."""
    ordered = np.sort(classes, axis=1)
    return bool((ordered == ordered[:1]).all())


def _tie(labels: Labels, rows: IntArray, classes: IntArray, reason: str) -> None:
    """Tie the first of each group, and so on, in the order of the classes they are in."""
    taken = np.take_along_axis(rows, np.argsort(classes, axis=1, kind="stable"), axis=1)
    for line in taken[1:]:
        labels.unite(taken[0], line, reason)


def thin(array: Any) -> tuple[slice, ...]:
    """Return the index that takes one position of every axis along which nothing changes."""
    return tuple(slice(0, 1) if stride == 0 else slice(None) for stride in array.strides)


def rows_of(array: IntArray, axis: int) -> IntArray:
    """Return one row for each position of `axis`, holding the labels found there.

    Shapes: `[n, m]`, where the axis has n positions.
    """
    keep = tuple(s if k != axis else slice(None) for k, s in enumerate(thin(array)))
    return np.moveaxis(array[keep], axis, 0).reshape(array.shape[axis], -1)


def melts(labels: IntArray, moved: IntArray) -> bool:
    """Say whether several labels became one, so that nothing of them may go.

    Shapes: labels `[n]`, one for each position of an axis; moved, of the whole tensor.
    """
    return _distinct(labels) == 1 < _distinct(moved[thin(moved)])


def _distinct(labels: IntArray) -> int:
    return int(np.unique(labels[labels > KEPT]).size)


def freedom(rows: IntArray) -> int:
    """Return how many classes a cut with these rows leaves. Shapes: rows `[n, m]`."""
    if (rows == rows[:, :1]).all():
        return int(np.unique(rows[:, 0]).size)
    low = np.where(rows == FREE, rows.max(axis=1, keepdims=True), rows)
    return count_classes(low)
