"""Estimated time: multiply-adds and elements moved of each node, as of the pruned model."""

import numpy as np
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.estimate import MOVED, READ, estimate_time
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

NET = """
net (float[N,3,8,8] x) => (float[N,4,1,1] y)
<float[24,3,3,3] w, float[24] b, float[24,1,3,3] d, float[16,24,1,1] v, float[16,16,1,1] t,
 float[4,16,1,1] h> {
  a = Conv(x, w, b)
  c = Conv<group=24>(a, d)
  e = Conv(c, v)
  k = Conv(e, t)
  s = Add(k, e)
  g = GlobalAveragePool(s)
  y = Conv(g, h)
}
"""
"""A layer that is tied to a depthwise one, and two that are tied by a sum."""


def estimate(text: str) -> float:
    graph = Graph(model(text))
    groups = find_groups(graph)
    return estimate_time(graph, groups).of(np.zeros(len(groups), np.bool_))


def test_a_node_multiplies_reads_and_writes() -> None:
    text = """net (float[N,3,8,8] x) => (float[N,5,8,8] y) <float[5,3,1,1] w> { y = Conv(x, w) }"""
    assert estimate(text) == 5 * 3 * 64 + READ * 5 * 3 + MOVED * (3 + 5) * 64


def test_what_is_done_element_by_element_reads_only_what_the_node_before_has_not() -> None:
    text = """net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> {{
      a = Conv(x, w)
      {}
    }}"""
    alone = estimate(text.format("y = Relu(a)"))
    assert alone == 9 * 64 + READ * 9 + MOVED * 6 * 64
    assert estimate(text.format("r = Relu(a)\n y = Add(r, x)")) == alone + MOVED * 3 * 64


@pytest.mark.parametrize("seed", range(4))
def test_the_estimate_of_a_net_is_that_of_the_model_that_is_cut(seed: int) -> None:
    graph = Graph(model(NET))
    groups = find_groups(graph)
    dead = (np.random.default_rng(seed).random(len(groups)) < 0.5) & groups.removable
    dead[np.unique(groups.group, return_index=True)[1]] = False
    cut = Graph(remove_channels(graph, groups, dead))
    found = estimate_time(cut, find_groups(cut)).of(np.zeros(len(find_groups(cut)), np.bool_))
    assert estimate_time(graph, groups).of(dead) == found < estimate(NET)


def test_the_body_of_a_loop_counts_as_often_as_it_runs() -> None:
    text = """net (float[N,3,8,8] x) => (float[N,3,8,8] y) <float[3,3,1,1] w> {{
      count = Constant<value_int={}>()
      go = Constant<value = bool {{1}}>()
      y = Loop(count, go, x)<body = inside (int64 i, bool c, float[N,3,8,8] now)
        => (bool again, float[N,3,8,8] next) {{
          again = Identity(c)
          next = Conv(now, w)
        }}>
    }}"""
    once, twice, four = (estimate(text.format(times)) for times in (1, 2, 4))
    assert twice - once >= 9 * 64 + READ * 9 + MOVED * 6 * 64
    assert four - once == 3 * (twice - once)
