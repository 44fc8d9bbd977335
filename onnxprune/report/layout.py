"""A layered layout, folded into columns.

A node is one layer below its lowest predecessor. An edge that crosses layers gets a narrow lane in
each of them. The lanes and nodes of a layer are ordered by the barycentres of their neighbours,
then moved towards these as far as the order allows. A long network is cut where few edges cross,
and continues at the top of the next column. The layout is deterministic.

Source: Sugiyama, Tagawa, Toda 1981 (layers, barycentres); Gansner et al. 1993 (weights of long
edges); Barlow et al. 1972 (pool adjacent violators, for the places within a layer).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, pairwise
from math import ceil, sqrt

from onnxprune.errors import OutputError

Point = tuple[float, float]
Size = tuple[float, float]
Pull = tuple[float, float]
"""A wanted place, and its weight."""

LANE, GAP, DROP, GUTTER = 8.0, 16.0, 18.0, 26.0
"""Pixels: the width of a lane, and the room between neighbours, layers and columns."""
SWEEPS, AT_ONCE = 24, 100_000
"""Passes over all layers; fewer over more boxes and lanes than that in all passes together."""
MOST_SPOTS = 15_000
"""Boxes, and lanes of lines, of a drawing."""
ASPECT = 1.5
"""Wanted ratio of width to height."""
MOST_COLUMNS, TALL = 12, 600.0
"""Most columns, and the least height of one in pixels."""
MOST_CUTS = 600
"""Places where a drawing may be cut into columns."""
MOST_UNEVEN = 2.0
"""A column after the first is at most this many times as tall as wanted."""
CROSSED = 0.1
"""Cost of one more edge between columns, in squared relative deviations of height."""
STRAIGHT, SHORT, LONG = 8.0, 4.0, 0.1
"""Weights of an edge: between two lanes, between two nodes, between a node and a lane."""
UPRIGHT = 1.0
"""Weight of the middle of the column, for a node."""


@dataclass(frozen=True)
class Layout:
    """The centre of each node, the lines between them, and the size of the drawing.

    A line is a list of points. Edges of one source share the lines of their common part.

    Units: pixels, from the top left corner.
    """

    centres: Sequence[Point]
    lines: Sequence[Sequence[Point]]
    width: float
    height: float


@dataclass
class _Spot:
    """A node, or the lane of an edge in one layer."""

    size: Size
    layer: int
    real: bool = True
    above: list[int] = field(default_factory=list)
    below: list[int] = field(default_factory=list)
    x: float = 0.0


def lay_out(sizes: Sequence[Size], edges: Iterable[tuple[int, int]]) -> Layout:
    """Lay out nodes of the given sizes. An edge leads to a node of a higher number.

    Shapes: sizes `[nodes]`, each (width, height) in pixels.
    Raises: OutputError for more boxes and lanes than anybody could look at.
    """
    return _Placing(sizes, list(dict.fromkeys(edges))).run()


def _check_room(spots: int) -> None:
    if spots > MOST_SPOTS:
        raise OutputError(
            f"drawing: more than {MOST_SPOTS:,} boxes and lines; expected a smaller network; "
            f"leave the drawing out"
        )


class _Placing:
    def __init__(self, sizes: Sequence[Size], edges: Sequence[tuple[int, int]]) -> None:
        self.edges = edges
        _check_room(len(sizes))
        depth = [0] * len(sizes)
        for source, target in sorted(edges, key=lambda edge: edge[1]):
            depth[target] = max(depth[target], depth[source] + 1)
        self.spots = [_Spot(size, layer) for size, layer in zip(sizes, depth, strict=True)]
        self._thread()
        self.sweeps = min(max(AT_ONCE // max(len(self.spots), 1), 2), SWEEPS)
        self.layers: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
        for number, spot in enumerate(self.spots):
            self.layers[spot.layer].append(number)
        self.heights = [max(self.spots[s].size[1] for s in layer) for layer in self.layers]

    def run(self) -> Layout:
        self._order()
        columns = self._cut() if self.layers else []
        for layers in columns:
            self._move(layers)
        return self._assemble(columns)

    def _thread(self) -> None:
        """Give each edge a lane in each layer that it crosses; edges of one source share them."""
        lanes: dict[tuple[int, int], int] = {}
        for source, target in self.edges:
            here = source
            for layer in range(self.spots[source].layer + 1, self.spots[target].layer):
                if (source, layer) not in lanes:
                    _check_room(len(self.spots) + 1)
                    lanes[source, layer] = len(self.spots)
                    self.spots.append(_Spot((LANE, 0.0), layer, real=False))
                    self._link(here, lanes[source, layer])
                here = lanes[source, layer]
            self._link(here, target)

    def _link(self, upper: int, lower: int) -> None:
        self.spots[upper].below.append(lower)
        self.spots[lower].above.append(upper)

    def _order(self) -> None:
        best, fewest = [list(layer) for layer in self.layers], self._crossings()
        place = {spot: _share(k, layer) for layer in self.layers for k, spot in enumerate(layer)}
        for sweep in range(self.sweeps):
            down = sweep % 2 == 0
            for layer in self.layers if down else reversed(self.layers):
                middle = {}
                for spot in layer:
                    near = self.spots[spot].above if down else self.spots[spot].below
                    centre = sum(place[n] for n in near) / len(near) if near else place[spot]
                    middle[spot] = centre
                layer.sort(key=middle.__getitem__)
                place.update({spot: _share(k, layer) for k, spot in enumerate(layer)})
            crossings = self._crossings()
            if crossings < fewest:
                best, fewest = [list(layer) for layer in self.layers], crossings
        self.layers = best

    def _crossings(self) -> int:
        total = 0
        for layer, lower in pairwise(self.layers):
            place = {spot: k for k, spot in enumerate(lower)}
            ends: list[int] = []
            for spot in layer:
                mine = [place[b] for b in self.spots[spot].below]
                total += sum(len(ends) - bisect_right(ends, end) for end in mine)
                for end in mine:
                    insort(ends, end)
        return total

    def _cut(self) -> list[range]:
        """Cut the layers into the columns that come closest to the wanted ratio."""
        widest = max(sum(self.spots[s].size[0] + GAP / 2 for s in layer) for layer in self.layers)
        total = sum(self.heights) + DROP * len(self.layers)
        middle = round(sqrt(ASPECT * total / (widest + GUTTER)))
        most = min(MOST_COLUMNS, len(self.layers), ceil(total / TALL))
        found = []
        for count in sorted({min(max(middle + k, 1), most) for k in (-2, -1, 0, 1, 2)}):
            cost, columns = self._partition(count, total / count)
            height = max(sum(self.heights[k] + DROP for k in layers) for layers in columns)
            proportion = count * (widest + GUTTER) / height / ASPECT
            found.append((cost + max(proportion, 1 / proportion), count, columns))
        return min(found)[2]

    def _partition(self, count: int, wanted: float) -> tuple[float, list[range]]:
        """Return the cheapest cut into `count` columns: even heights, few edges between them."""
        size = len(self.layers)
        apart = -(-size // MOST_CUTS)
        bottoms = list(accumulate((height + DROP for height in self.heights), initial=0.0))
        leaving = [sum(bool(self.spots[s].below) for s in layer) - 1 for layer in self.layers]

        def uneven(start: int, end: int) -> float:
            return ((bottoms[end] - bottoms[start] - wanted) / wanted) ** 2

        best = {end: (uneven(0, end), [0]) for end in {*range(apart, size, apart), size}}
        for _ in range(count - 1):
            longer = {}
            least = min(best)
            for end in {*range(least + apart, size, apart), size}:
                low = bisect_left(bottoms, bottoms[end] - MOST_UNEVEN * wanted)
                longer[end] = min(
                    (
                        best[cut][0] + uneven(cut, end) + CROSSED * leaving[cut - 1],
                        [*best[cut][1], cut],
                    )
                    for cut in range(max(min(low, end - 1), least), end)
                    if cut in best
                )
            best = longer
        cost, starts = best[size]
        return cost, [range(a, b) for a, b in pairwise([*starts, size])]

    def _move(self, layers: range) -> None:
        """Move the spots of a column towards their neighbours; each layer keeps its order."""
        for k in layers:
            self._settle(self.layers[k], {})
        for sweep in range(2 * self.sweeps):
            down, both = sweep % 2 == 0, sweep >= self.sweeps
            for k in layers if down else reversed(layers):
                wanted = {
                    s: self._pull(s, layers, above=down or both, below=not down or both)
                    for s in self.layers[k]
                }
                self._settle(self.layers[k], wanted)
        straight = self._straighten(layers)
        for k in layers:
            self._settle(self.layers[k], straight)

    def _straighten(self, layers: range) -> dict[int, Pull]:
        """Return for each spot the mean place of its chain, weighted by the chain's length."""
        chains: dict[int, list[int]] = {}
        for k in layers:
            for number in self.layers[k]:
                near = self._alike(number, self.spots[number].above) if k > layers.start else []
                single = (
                    len(near) == 1 and len(self._alike(near[0], self.spots[near[0]].below)) == 1
                )
                chain = chains[near[0]] if single else []
                chain.append(number)
                chains[number] = chain
        return {
            number: (sum(self.spots[s].x for s in chain) / len(chain), float(len(chain)))
            for number, chain in chains.items()
        }

    def _alike(self, number: int, others: Sequence[int]) -> list[int]:
        """Return the neighbours of the same kind: node or lane."""
        return [s for s in others if self.spots[s].real == self.spots[number].real]

    def _pull(self, spot: int, layers: range, *, above: bool, below: bool) -> Pull:
        """Return the weighted mean place of a spot's neighbours, and the weight."""
        here = self.spots[spot]
        total, weight = 0.0, UPRIGHT * here.real
        for other in (*(here.above if above else ()), *(here.below if below else ())):
            there = self.spots[other]
            if there.layer in layers:
                both = here.real + there.real
                strength = (STRAIGHT, LONG, SHORT)[both]
                total += strength * there.x
                weight += strength
        return (total / weight, weight) if weight else (here.x, LONG)

    def _settle(self, layer: Sequence[int], wanted: Mapping[int, Pull]) -> None:
        """Give the spots of a layer the places nearest to the wanted ones, without overlap."""
        offsets = [0.0]
        for a, b in pairwise(layer):
            one, other = self.spots[a], self.spots[b]
            gap = GAP if one.real and other.real else GAP / 2
            offsets.append(offsets[-1] + (one.size[0] + other.size[0]) / 2 + gap)
        middle = offsets[-1] / 2
        pulls = [
            wanted.get(spot, (offset - middle, 1.0))
            for spot, offset in zip(layer, offsets, strict=True)
        ]
        pulled = [(x - offset, weight) for (x, weight), offset in zip(pulls, offsets, strict=True)]
        for spot, place, offset in zip(layer, increasing(pulled), offsets, strict=True):
            self.spots[spot].x = place + offset

    def _assemble(self, columns: Sequence[range]) -> Layout:
        tops, column_of = {}, {}
        left, height = 0.0, 0.0
        edges: list[float] = []
        for number, layers in enumerate(columns):
            spots = [self.spots[s] for k in layers for s in self.layers[k]]
            low = min(spot.x - spot.size[0] / 2 for spot in spots)
            high = max(spot.x + spot.size[0] / 2 for spot in spots)
            gutter = GUTTER + LANE * self._entering(layers.start) if number else 0.0
            for spot in spots:
                spot.x += left + gutter - low
            edges.append(left + gutter)
            left += gutter + high - low
            top = DROP
            for k in layers:
                tops[k], column_of[k] = top, number
                top += self.heights[k] + DROP
            height = max(height, top)
        centres = [
            (spot.x, tops[spot.layer] + self.heights[spot.layer] / 2)
            for spot in self.spots
            if spot.real
        ]
        route = _Routes(self, tops, column_of, edges)
        lines = [route.line(k, b) for k, spot in enumerate(self.spots) for b in spot.below]
        lines += [route.through(spot) for spot in self.spots if not spot.real]
        return Layout(centres, lines, left, height)

    def _entering(self, layer: int) -> int:
        """Return how many bundles of edges enter a layer from the one above."""
        return sum(bool(self.spots[s].below) for s in self.layers[layer - 1])


class _Routes:
    """The lines between spots. From column to column they run along the gutters."""

    def __init__(
        self,
        placing: _Placing,
        tops: Mapping[int, float],
        column_of: Mapping[int, int],
        lefts: Sequence[float],
    ) -> None:
        self.placing, self.tops, self.column_of, self.lefts = placing, tops, column_of, lefts

    def line(self, upper: int, lower: int) -> list[Point]:
        """Return the line from a spot to one of the next layer."""
        one, other = self.placing.spots[upper], self.placing.spots[lower]
        start, end = (one.x, self._end(one, 1)), (other.x, self._end(other, -1))
        if self.column_of[one.layer] == self.column_of[other.layer]:
            return [start, end]
        return [start, *self._turn(upper, start, end, other.layer), end]

    def through(self, lane: _Spot) -> list[Point]:
        """Return the line of a lane through its layer."""
        return [(lane.x, self._end(lane, -1)), (lane.x, self._end(lane, 1))]

    def _end(self, spot: _Spot, side: int) -> float:
        """Return the y at which an edge leaves (side 1) or reaches (side -1) a spot."""
        room = self.placing.heights[spot.layer]
        half = spot.size[1] / 2 if spot.real else room / 2
        return self.tops[spot.layer] + room / 2 + side * half

    def _turn(self, spot: int, start: Point, end: Point, layer: int) -> list[Point]:
        """Return the corners on the way to the next column: down, across, up the gutter, across."""
        leaving = self._leaving(layer)
        lane = leaving[spot]
        share = (lane + 1) / (len(leaving) + 1)
        across = self.lefts[self.column_of[layer]] - GUTTER / 2 - LANE * (len(leaving) - 1 - lane)
        low = self.tops[layer - 1] + self.placing.heights[layer - 1] + DROP * share
        high = self.tops[layer] - DROP * share
        return [(start[0], low), (across, low), (across, high), (end[0], high)]

    @cache  # noqa: B019 - as long as the drawing is made
    def _leaving(self, layer: int) -> dict[int, int]:
        """The spots of the layer above one that lead to it, and which of them each is."""
        above = self.placing.layers[layer - 1]
        return {s: k for k, s in enumerate(s for s in above if self.placing.spots[s].below)}


def _share(place: int, layer: Sequence[int]) -> float:
    """Return a place in a layer as a number from 0 to 1."""
    return (place + 0.5) / len(layer)


def increasing(pulls: Sequence[Pull]) -> list[float]:
    """Return the non-decreasing values nearest to the wanted ones (isotonic regression).

    >>> increasing([(1.0, 1.0), (3.0, 1.0), (2.0, 1.0), (5.0, 1.0)])
    [1.0, 2.5, 2.5, 5.0]
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in pulls:
        count = 1
        while pools and pools[-1][0] > value:
            other, mass, many = pools.pop()
            value = (value * weight + other * mass) / (weight + mass)
            weight, count = weight + mass, count + many
        pools.append((value, weight, count))
    return [value for value, _, count in pools for _ in range(count)]
