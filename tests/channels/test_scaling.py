"""Time grows with the number of nodes, not faster: chains of sums and concatenations."""

import time

import numpy as np
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.picker import Limits, Picker
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.benchmarks.chain import WIDTH, chain
from tests.support.models import images, relative_error, run

GROWTH = 3.0
"""Allowed growth of the time per node over ten times the nodes, which would be 10 if quadratic."""


def seconds_per_node(nodes: int, repeats: int) -> float:
    """CPU time of analysis, choice and surgery; the least disturbed of several runs."""
    model = chain(nodes)
    found = []
    for _ in range(repeats):
        start = time.process_time()
        graph = Graph(model)
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
    model = chain(27)
    graph = Graph(model)
    groups = find_groups(graph)
    dead = np.arange(len(groups)) % 2 == 0
    dead &= groups.removable
    x = images(model, 2)
    small, zeroed = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    assert relative_error(run(small, x)[0], run(zeroed, x)[0]) < 1e-6
