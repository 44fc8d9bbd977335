"""A branch of an If that no sample takes keeps the filters that it alone has."""

import numpy as np
import pytest

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from onnxprune.search.untaken import hold_untaken
from tests.support.models import model

BRIGHT_OR_DARK = """
g (float[N,3,8,8] x) => (float[N,2] y)
<float[4,3,3,3] w, float[6,3,3,3] u, float[2,4,1,1] v, float[2,6,1,1] z> {
  m = ReduceMax<keepdims=0>(x)
  limit = Constant<value=float {0}>()
  bright = Greater(m, limit)
  h = If(bright) <
    then_branch = one () => (float[N,2,6,6] p) { a = Conv(x, w) p = Conv(a, v) },
    else_branch = two () => (float[N,2,6,6] q) { b = Conv(x, u) q = Conv(b, z) }
  >
  n = GlobalAveragePool(h)
  y = Flatten(n)
}
"""


def samples(*signs: float) -> Data:
    x = np.random.default_rng(0).uniform(0.1, 1, (12, 3, 8, 8)).astype(np.float32)
    x *= np.resize(np.array(signs, np.float32), 12)[:, None, None, None]
    return Data(x, np.arange(12) % 2, ("0", "1"))


@pytest.mark.parametrize(
    ("signs", "stay"), [((1,), {"b"}), ((-1,), {"a"}), ((1, -1), set())], ids=["+", "-", "+-"]
)
def test_filters_stay_where_no_sample_comes(signs: tuple[float, ...], stay: set[str]) -> None:
    graph = Graph(model(BRIGHT_OR_DARK))
    groups = hold_untaken(graph, find_groups(graph), samples(*signs))
    own = {f.node: groups.removable[f.channels].any() for f in groups.filters if f.node in "ab"}
    assert {node for node, free in own.items() if not free} == stay
    said = {str(reason) for reason in groups.reasons.values() if "no sample" in str(reason)}
    assert said == ({"stands in a branch of If 'h' that no sample takes"} if stay else set())


def test_without_samples_no_branch_is_held() -> None:
    graph = Graph(model(BRIGHT_OR_DARK))
    groups = find_groups(graph)
    assert hold_untaken(graph, groups, None) is groups


def test_a_search_leaves_the_branch_alone() -> None:
    data = samples(1)
    result = onnxprune.prune(
        model(BRIGHT_OR_DARK),
        (data.x, data.y),
        **{"control": "one-shot", "criterion": "magnitude", "compensate": "none", "rate": 0.5},
        trust_baseline=True,
        threads=1,
    )
    assert {name: len(gone) for name, gone in result.plan.removed.items()} == {"a": 2}
