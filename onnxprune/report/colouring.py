"""Colours of groups in a drawing: one colour means tied."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from math import dist, inf

from onnxprune.report.layout import Point

COLOURS = (
    *("#77aadd", "#ee8866", "#eedd88", "#ffaabb"),
    *("#99ddff", "#44bb99", "#bbcc33", "#c9a3d6"),
)
"""Fills for black text that colour-blind readers can tell apart. Source: Tol 2021, Colour schemes,
"light"; its olive, hard to tell from pear at this size, is replaced."""

NEAR = 220.0
"""Pixels: boxes that are nearer than this neighbour each other."""


def colours_of(
    places: Mapping[int, Sequence[Point]], apart: Collection[frozenset[int]] = ()
) -> dict[int, str]:
    """Give each group the colour whose nearest box is farthest away.

    `places[group]` are the centres of its boxes. Colours that are not yet used come first. Pairs
    that are `apart` never get one colour: a group for which none is left has none.
    """
    found: dict[int, str] = {}
    used: dict[str, list[Point]] = {colour: [] for colour in COLOURS}
    around: dict[int, set[int]] = {group: set() for group in places}
    for one, other in map(tuple, apart):
        around[one].add(other)
        around[other].add(one)
    for group, mine in places.items():
        taken = {found[other] for other in around[group] if other in found}
        free = [colour for colour in COLOURS if colour not in taken]
        if not free:
            continue
        found[group] = max(
            free,
            key=lambda c: min((dist(a, b) for a in mine for b in used[c]), default=inf),
        )
        used[found[group]] += mine
    return found


def neighbours(
    group_of: Sequence[int | None],
    edges: Sequence[tuple[int, int]],
    places: Mapping[int, Sequence[Point]],
) -> set[frozenset[int]]:
    """Return the pairs of groups that an eye would take for one if they had one colour.

    They are joined by a line, also through one box without a colour, or stand near each other.
    `group_of[box]` is the group of a box, `places[group]` the centres of those with a colour.
    """
    joined = {pair for pair in _joined(group_of, edges, places) if len(pair) == 2}
    return joined | set(_near(places))


def _joined(
    group_of: Sequence[int | None],
    edges: Sequence[tuple[int, int]],
    places: Mapping[int, Sequence[Point]],
) -> Iterator[frozenset[int]]:
    after: dict[int, list[int]] = {}
    for source, target in edges:
        after.setdefault(source, []).append(target)
    for source, targets in after.items():
        plain = [k for k in targets if group_of[k] not in places]
        reached = [*targets, *(k for one in plain for k in after.get(one, ()))]
        first = group_of[source]
        for group in (group_of[k] for k in reached):
            if first is not None and group is not None and {first, group} <= places.keys():
                yield frozenset((first, group))


def _near(places: Mapping[int, Sequence[Point]]) -> Iterator[frozenset[int]]:
    found = list(places.items())
    for number, (one, mine) in enumerate(found):
        for other, theirs in found[number + 1 :]:
            if any(dist(a, b) < NEAR for a in mine for b in theirs):
                yield frozenset((one, other))
