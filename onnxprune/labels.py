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

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IntArray = npt.NDArray[np.int64]

FREE = -1
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
