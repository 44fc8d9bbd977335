"""Laws of a drawing's layout, for any graph: nothing overlaps, every edge can be followed."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression

from onnxprune.report.layout import Layout, Point, Size, increasing, lay_out

Graph = tuple[list[Size], list[tuple[int, int]]]
EPS = 1e-6


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    count = draw(st.integers(1, 25))
    side = st.sampled_from([20.0, 36.0, 160.0])
    sizes = [(draw(side), draw(st.sampled_from([20.0, 36.0]))) for _ in range(count)]
    edges = []
    for target in range(1, count):
        near = st.integers(max(0, target - 6), target - 1)
        edges += [(source, target) for source in sorted(draw(st.sets(near, max_size=3)))]
    return sizes, edges


def chain(count: int) -> Graph:
    return [(160.0, 36.0)] * count, [(k, k + 1) for k in range(count - 1)]


def overlap(layout: Layout, sizes: list[Size], a: int, b: int) -> bool:
    (x, y), (u, v) = layout.centres[a], layout.centres[b]
    (w, h), (p, q) = sizes[a], sizes[b]
    return abs(x - u) < (w + p) / 2 - EPS and abs(y - v) < (h + q) / 2 - EPS


def reached(layout: Layout, start: Point) -> set[Point]:
    """The ends of all lines that go on from a point; lines meet at equal points."""
    after: dict[Point, list[Point]] = {}
    for line in layout.lines:
        after.setdefault(line[0], []).append(line[-1])
    found: set[Point] = set()
    todo = [start]
    while todo:
        for end in after.get(todo.pop(), []):
            if end not in found:
                found.add(end)
                todo.append(end)
    return found


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_nodes_do_not_overlap_and_stay_within_the_picture(graph: Graph) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges)
    assert not any(overlap(layout, sizes, a, b) for a, b in combinations(range(len(sizes)), 2))
    for (x, y), (width, height) in zip(layout.centres, sizes, strict=True):
        assert width / 2 - EPS <= x <= layout.width - width / 2 + EPS
        assert height / 2 <= y <= layout.height - height / 2


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_every_edge_can_be_followed_from_below_its_source_to_above_its_target(graph: Graph) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges)
    for source, target in edges:
        (x, y), (u, v) = layout.centres[source], layout.centres[target]
        start, end = (x, y + sizes[source][1] / 2), (u, v - sizes[target][1] / 2)
        near = [point for point in reached(layout, start) if np.allclose(point, end)]
        assert near, (source, target)


@settings(deadline=None, max_examples=60)
@given(graphs())
def test_upright_lines_run_beside_nodes_not_through_them(graph: Graph) -> None:
    sizes, edges = graph
    layout = lay_out(sizes, edges)
    for line in layout.lines:
        for (a, b), (c, d) in pairwise(line):
            if a != c:
                continue
            for (x, y), (width, height) in zip(layout.centres, sizes, strict=True):
                beside = abs(a - x) > width / 2 - EPS
                above_or_below = max(b, d) <= y - height / 2 + EPS or min(b, d) >= (
                    y + height / 2 - EPS
                )
                assert beside or above_or_below


def test_the_same_graph_gives_the_same_layout() -> None:
    sizes, edges = chain(30)
    edges += [(k, k + 3) for k in range(0, 25, 3)]
    assert lay_out(sizes, edges) == lay_out(sizes, list(edges))


def test_a_short_chain_is_one_straight_column() -> None:
    layout = lay_out(*chain(6))
    xs, ys = zip(*layout.centres, strict=True)
    assert xs == pytest.approx([xs[0]] * 6)
    assert list(ys) == sorted(ys)


def test_a_long_chain_is_cut_into_columns_of_like_height() -> None:
    layout = lay_out(*chain(120))
    columns: dict[float, int] = {}
    for x, _ in layout.centres:
        columns[round(x, 3)] = columns.get(round(x, 3), 0) + 1
    assert len(columns) > 3
    assert max(columns.values()) - min(columns.values()) <= 2
    assert 1 <= layout.width / layout.height <= 2.2


def test_residual_blocks_stand_under_each_other() -> None:
    sizes, edges = chain(12)
    edges += [(0, 3), (3, 6), (6, 9)]
    layout = lay_out(sizes[:10], [edge for edge in edges if edge[1] < 10])
    assert np.ptp([x for x, _ in layout.centres]) < 1


def test_nodes_without_edges_are_drawn_side_by_side() -> None:
    layout = lay_out([(40.0, 20.0)] * 3, [])
    assert len({y for _, y in layout.centres}) == 1
    assert layout.lines == []


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10.0)), min_size=1, max_size=30),
)
def test_increasing_is_isotonic_regression(pulls: list[Point]) -> None:
    values, weights = zip(*pulls, strict=True)
    expected = isotonic_regression(values, weights=weights).x
    np.testing.assert_allclose(increasing(pulls), expected, rtol=1e-9, atol=1e-9)
