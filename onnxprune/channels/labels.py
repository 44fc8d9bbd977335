"""Sets of channels that must go together: whole arrays of labels are united, and solved at once.

A **label** is an integer that names one channel of one axis. Two values are special: `FREE` marks
an element that belongs to no channel (padding), `KEPT` one that may never go. Labels that can only
go together are united into a class. A pinned label may not go, nor may its class; unlike KEPT, it
keeps its identity and has a `Reason`.

>>> from onnxprune.ops import FREE
>>> labels = Labels()
>>> a, b = labels.fresh(3), labels.fresh(3)
>>> labels.unite(a, b[::-1], Reason("is added to another"))
>>> labels.unite(b, np.array([KEPT, FREE, b[2]]), Reason("meets an image", "add"))
>>> classes = labels.solve()
>>> bool(classes.of[a[2]] == classes.of[b[0]]), classes.reason[classes.of[a[2]]]
(True, Reason(text='meets an image', node='add', lift=''))
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from onnxprune.arrays import IntArray, united
from onnxprune.ops import Node

KEPT = 0
MOST = 2**25
"""Labels in all; a large network has a million."""


@dataclass(frozen=True)
class Reason:
    """Why a channel stays: what it does, and the name of the node that keeps it, if one does.

    `lift` names the operator that `allow_inexact` would have to name to let it go.
    """

    text: str
    node: str | None = None
    lift: str = ""

    def __str__(self) -> str:
        return self.text


def feeds(node: Node, why: str, *, lift: bool = False) -> Reason:
    """Return the reason of channels that a node needs whole; `lift` if it may be allowed not to."""
    name = node.op_type.lower() if lift else ""
    hint = f" (--allow-inexact {name} lifts this)" if lift else ""
    return Reason(f"feeds {node}, {why}{hint}", node.name, name)


@dataclass(frozen=True)
class Classes:
    """The solution: `of[label]` is the class of a label, `reason[class]` why a class may not go."""

    of: IntArray
    reason: Mapping[int, Reason]


@dataclass
class Labels:
    """Allocates labels, and collects ties and pins; `solve` works out the classes at once."""

    count: int = 1
    _pairs: list[tuple[IntArray, IntArray]] = field(default_factory=list)
    _pins: list[tuple[IntArray, Reason]] = field(default_factory=list)

    def fresh(self, size: int) -> IntArray:
        """Return `size` labels that nobody holds yet.

        Raises: MemoryError where there are too many.
        """
        if self.count + size > MOST:
            raise MemoryError(f"an axis of {size:,} positions, which are too many to follow")
        self.count += size
        return np.arange(self.count - size, self.count, dtype=np.int64)

    def unite(self, a: IntArray, b: IntArray, reason: Reason) -> None:
        """Tie `a[k]` to `b[k]` for every k; `reason` says why, should one of them be KEPT.

        Shapes: a, b `[n]`.
        """
        tied = (a > KEPT) & (b > KEPT)
        self._pairs.append((a[tied], b[tied]))
        self.pin(a[b == KEPT], reason)
        self.pin(b[a == KEPT], reason)

    def unite_rows(self, rows: IntArray, reason: Reason) -> IntArray:
        """Tie all labels within each row and return one label per row (FREE where it has none).

        Shapes: rows `[n, m]` -> `[n]`.
        """
        first = rows.max(axis=1)
        self.unite(np.repeat(first, rows.shape[1]), rows.ravel(), reason)
        return np.where((rows == KEPT).any(axis=1), KEPT, first)

    def pin(self, labels: IntArray, reason: Reason) -> None:
        """Forbid the removal of `labels`, and of all they are tied to."""
        labels = labels[labels > KEPT]
        if labels.size:
            self._pins.append((labels, reason))

    def solve(self) -> Classes:
        """Return the classes of labels; the first reason recorded for a class is its reason."""
        left = np.concatenate([a for a, _ in self._pairs] or [np.empty(0, np.int64)])
        right = np.concatenate([b for _, b in self._pairs] or [np.empty(0, np.int64)])
        of = united(left, right, self.count)
        reason: dict[int, Reason] = {}
        for labels, why in self._pins:
            for one in np.unique(of[labels]).tolist():
                reason.setdefault(one, why)
        return Classes(of, reason)


Balance = tuple[IntArray, Reason]
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


def _tie(labels: Labels, rows: IntArray, classes: IntArray, reason: Reason) -> None:
    """Tie the first of each group, and so on, in the order of the classes they are in."""
    taken = np.take_along_axis(rows, np.argsort(classes, axis=1, kind="stable"), axis=1)
    for line in taken[1:]:
        labels.unite(taken[0], line, reason)
