"""Time grows with the number of nodes, not faster, and nothing grows with the size of an image."""

import time
import tracemalloc

import numpy as np
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.benchmarks.chain import WIDTH, chain
from tests.support.assertions import check
from tests.support.models import images, model, relative_error, run

GROWTH = 3.0
"""Allowed growth of the time per node over ten times the nodes, which would be 10 if quadratic."""


def seconds_per_node(nodes: int, repeats: int) -> float:
    """CPU time of analysis, choice and surgery; the least disturbed of several runs."""
    proto = chain(nodes)
    found = []
    for _ in range(repeats):
        start = time.process_time()
        graph = Graph(proto)
        groups = find_groups(graph)
        dead = np.zeros(len(groups), np.bool_)
        chosen = Picker(groups, Limits()).pick(np.arange(len(groups)), dead, layer_share=0.5)
        dead[chosen] = True
        small = remove_channels(graph, groups, dead)
        found.append(time.process_time() - start)
    assert len(small.graph.node) == len(graph.nodes)
    halved = len(groups.names) - 1  # the last group is the output
    assert np.bincount(groups.group[dead]).tolist() == [WIDTH // 2] * halved
    return min(found) / len(graph.nodes)


@pytest.mark.parametrize(
    "nodes", [3_000, pytest.param(10_000, marks=pytest.mark.slow)], ids="{:,}".format
)
def test_time_per_node_does_not_grow_with_the_number_of_nodes(nodes: int) -> None:
    assert seconds_per_node(nodes, 2) < GROWTH * seconds_per_node(nodes // 10, 3)


def test_chains_are_pruned_exactly() -> None:
    proto = chain(27)
    graph = Graph(proto)
    groups = find_groups(graph)
    dead = np.arange(len(groups)) % 2 == 0
    dead &= groups.removable
    x = images(proto, 2)
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-6


CIRCULAR = """
g (float[N,3,{size},{size}] x) => (float[N,2,{size},{size}] y)
<float[6,3,1,1] w, float[6,6,3,3] u, float[2,6,1,1] v> {{
  a = Conv(x, w)
  last = Constant<value_ints=[-1]>()  end = Constant<value_ints=[{size}]>()
  zero = Constant<value_ints=[0]>()  one = Constant<value_ints=[1]>()
  rows = Constant<value_ints=[2]>()  columns = Constant<value_ints=[3]>()
  left = Slice(a, last, end, columns)  right = Slice(a, zero, one, columns)
  wide = Concat<axis=3>(left, a, right)
  top = Slice(wide, last, end, rows)  bottom = Slice(wide, zero, one, rows)
  padded = Concat<axis=2>(top, wide, bottom)
  b = Conv(padded, u)
  y = Conv(b, v)
}}
"""


def peak(size: int) -> int:
    """Bytes that the analysis needs at once."""
    graph = Graph(model(CIRCULAR.format(size=size)))
    tracemalloc.start()
    try:
        find_groups(graph)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_size_of_an_image() -> None:
    peak(8)  # what is imported and cached once
    assert peak(4000) < peak(40) + 40_000  # one map of 4000 x 4000 has 128 MB of labels


def test_channels_cross_what_joins_an_image_with_its_own_borders() -> None:
    check(CIRCULAR.format(size=8), a="abcdef", b="ghijkl")
