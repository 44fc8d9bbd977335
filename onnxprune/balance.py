"""Channels of which every group of a grouped convolution must lose equally many.

Which of them go together is open: any way to take one from each group will do. It is chosen when
all other ties are known. Where those already take equally many from each group (behind a channel
shuffle, say) nothing more is tied; else the first of each group go together, the second, and so on,
in an order that keeps together what is tied already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.labels import IntArray, Labels

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
