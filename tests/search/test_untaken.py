"""A branch of an If that no sample takes keeps the filters that it alone has."""

import numpy as np
import pytest
from onnx import numpy_helper

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


def test_a_branch_that_no_sample_takes_costs_nothing() -> None:
    """The dearer branch is the other one; what is asked of multiply-adds is asked of this one."""
    result = onnxprune.prune(
        model(BRIGHT_OR_DARK),
        {"x": samples(1).x},
        **{"control": "one-shot", "criterion": "magnitude", "compensate": "none", "macs": 0.6},
        round_to=1,
        threads=1,
    )
    before, after = result.report["before"]["macs"], result.report["after"]["macs"]
    assert before == 36 * (4 * 27 + 2 * 4) and after == before / 2


WAYS = """
g (float[M,S] x, float[2,K,4] state, int64 rate) => (float[M,2] y, float[2,K,4] next)
<float[8,1,1] k, float[6,8,3] w, float[6,8,3] u, float[6,2] v> {
  one = Constant<value_ints=[1]>() last = Constant<value_ints=[2]>()
  fast = Constant<value_int=16000>()
  q = Equal(rate, fast)
  i = Unsqueeze(x, one)
  z = Conv(i, k)
  c = Relu(z)
  h = If(q) <
    then_branch = yes () => (float[M,6] p) { a = Conv<strides=[3]>(c, w) p = Squeeze(a, last) },
    else_branch = no () => (float[M,6] r) { b = Conv(c, u) r = Squeeze(b, last) }
  >
  t = Tanh(h)
  y = MatMul(t, v)
  next = Neg(state)
}
"""


def test_a_branch_that_fails_where_it_is_not_taken_is_left_out() -> None:
    """Samples that are runs of their own: a row, a state without a batch axis, a number."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1, 5)).astype(np.float32)
    state = rng.normal(size=(20, 2, 1, 4)).astype(np.float32)
    data = {"x": x, "state": state, "rate": np.full(20, 16000)}
    result = onnxprune.prune(model(WAYS), data, rate=0.5, min_accuracy=0.1, threads=1, round_to=1)
    shapes = {tensor.name: list(tensor.dims) for tensor in result.model.graph.initializer}
    assert shapes["u"] == shapes["w"] == [6, 4, 3] and shapes["k"] == [4, 1, 1]


def test_outputs_of_a_run_are_judged_as_a_whole() -> None:
    """A state of two rows is one sample's, not two samples: what the second holds counts."""
    proto = model("""
    g (float[2,4] s, float[1,3,8] x) => (float[2,4] next)
    <float[6,3,8] w, float[4,6] keep, float[4,6] none> {
      a = Conv(x, w)
      r = Relu(a)
      last = Constant<value_ints=[2]>()
      f = Squeeze(r, last)
      one = Gemm<transB=1>(f, none)
      two = Gemm<transB=1>(f, keep)
      rows = Concat<axis=0>(one, two)
      next = Add(rows, s)
    }
    """)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name, scale in (("none", [0] * 6), ("keep", [0, 0, 0, 1, 1, 1])):
        array = numpy_helper.to_array(weights[name]) * np.array(scale, np.float32)
        weights[name].CopyFrom(numpy_helper.from_array(array, name))
    rng = np.random.default_rng(0)
    data = {
        "s": np.zeros((16, 2, 4), np.float32),
        "x": rng.normal(size=(16, 1, 3, 8)).astype(np.float32),
    }
    result = onnxprune.prune(proto, data, rate=0.5, threads=1, round_to=1, compensate="none")
    assert result.report["after"]["accuracy"]["harmonic"] > 0.999
