"""The elimination against regressions done anew for every candidate; what it reads of a net."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxprune.channels.groups import find_groups
from onnxprune.compensate import redundancy
from onnxprune.compensate.covariance import find_covariances
from onnxprune.compensate.redundancy import Evenly, eliminate, irreplaceable
from onnxprune.compensate.reference import Reference
from onnxprune.data import Data
from onnxprune.graph.graph import Graph
from tests.support.models import model

Array = npt.NDArray[np.float64]

SAME = 1e-6
"""Relative; rank-one updates in double precision against solving anew."""

CHAIN = """
g (float[N,3,8,8] x) => (float[N,4] y)
<float[6,3,1,1] w, float[6] b, float[5,6,3,3] v, float[5] c, float[4,20] h, float[4] d> {
  a = Conv(x, w, b)
  r = Relu(a)
  e = Conv<strides=[3,3]>(r, v, c)
  q = Relu(e)
  f = Flatten(q)
  y = Gemm<transB=1>(f, h, d)
}
"""


def loss(covariance: Array, relevance: Array, kept: list[int], ridge: float) -> float:
    """Relevance times unexplained variance, by solving the regression of all on the kept."""
    held = covariance + ridge * np.diag(covariance).mean() * np.eye(len(covariance))
    chosen = held[:, kept]
    left = np.diag(held - chosen @ np.linalg.solve(held[np.ix_(kept, kept)], chosen.T))
    return float((relevance * left / np.diag(covariance)).sum())


@given(st.integers(0, 10_000), st.integers(2, 7), st.booleans())
@example(128, 4, True)  # where a later channel costs less than one before it
@settings(deadline=None)
def test_each_channel_that_goes_is_the_one_that_costs_least(
    seed: int, size: int, mixed: bool
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, 3 * size)) * rng.uniform(0.5, 2, (size, 1))
    rows = rng.normal(size=(size, size)) @ rows if mixed else rows
    covariance, relevance = rows @ rows.T, rng.uniform(0.1, 1, size)
    found = eliminate(covariance, relevance, ridge=0.01)
    kept, highest = list(range(size)), 0.0
    for gone in np.argsort(found, kind="stable").tolist()[:-1]:
        before = loss(covariance, relevance, kept, 0.01)
        rises = {
            k: loss(covariance, relevance, [j for j in kept if j != k], 0.01) - before for k in kept
        }
        assert rises[gone] == pytest.approx(min(rises.values()), rel=SAME)
        highest = max(highest, rises[gone])
        assert found[gone] == pytest.approx(highest, rel=SAME)
        kept.remove(gone)


def test_without_correlation_the_loss_is_the_relevance() -> None:
    relevance = np.array([0.3, 0.1, 0.2])
    found = eliminate(np.diag([4.0, 4.0, 4.0]), relevance, ridge=0.0)
    assert found == pytest.approx(relevance)


def test_one_of_two_copies_goes_first_however_relevant() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 50))
    rows[2] = 2 * rows[0]
    found = eliminate(rows @ rows.T, np.array([1.0, 0.1, 1.0]), ridge=1e-4)
    assert found.argmin() in (0, 2)
    assert sorted(found)[0] < 1e-3 < sorted(found)[1]


def test_a_layer_that_never_varies_keeps_its_scores() -> None:
    relevance = np.array([0.3, 0.1])
    assert (eliminate(np.zeros((2, 2)), relevance) == relevance).all()


def chain() -> tuple[Graph, Data]:
    graph = Graph(model(CHAIN))
    x = np.random.default_rng(1).normal(size=(9, 3, 8, 8)).astype(np.float32)
    return graph, Data(x, np.zeros(9, np.int64), ("a",))


def test_losses_come_from_what_the_next_layer_reads() -> None:
    graph, data = chain()
    groups = find_groups(graph)
    scores = np.random.default_rng(2).uniform(0.1, 1, len(groups))
    found = irreplaceable(graph, groups, data, scores, device="cpu", batch_size=4)
    w, b = graph.constant("w")[:, :, 0, 0], graph.constant("b")
    read = np.maximum(np.einsum("oc,nchw->onhw", w, data.x) + b[:, None, None, None], 0)
    covariance = np.cov(read.reshape(6, -1).astype(np.float64), bias=True)
    assert found[:6] == pytest.approx(eliminate(covariance, scores[:6]), rel=1e-3)
    assert (np.diff(np.sort(found[6:])) > 0).all()
    assert (found[6:] <= scores[6:].sum()).all()


def test_readers_count_alike_whatever_the_scale_of_what_they_read() -> None:
    def found(scale: float) -> Array:
        text = CHAIN.replace("=> (float[N,4] y)", "=> (float[N,4] y, float[N,2,8,8] z)")
        text = text.replace("float[4] d>", f"float[4] d, float k = {{{scale}}}, float[2,6,1,1] u>")
        text = text.replace("e = Conv", "t = Tanh(a)  m = Mul(t, k)  z = Conv(m, u)\n  e = Conv")
        graph = Graph(model(text))
        groups = find_groups(graph)
        data = chain()[1]
        return irreplaceable(graph, groups, data, np.arange(1.0, len(groups) + 1), device="cpu")

    assert found(0.01)[:6] == pytest.approx(found(100.0)[:6], rel=1e-3)


@pytest.mark.parametrize("batch_size", [2, 9])
def test_means_far_above_spreads_leave_the_covariance_exact(batch_size: int) -> None:
    graph, data = chain()
    far = Data(data.x + 1000, data.y, data.classes)
    reference = Reference(graph, find_groups(graph), far, "cpu", batch_size)
    found = find_covariances(reference)["e"]
    w, b = (graph.constant(name).astype(np.float64) for name in ("w", "b"))
    x = far.x.astype(np.float64)
    read = np.maximum(np.einsum("oc,nchw->onhw", w[:, :, 0, 0], x) + b[:, None, None, None], 0)
    rows = read.reshape(6, -1)
    expected = np.cov(rows, bias=True)
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-3 * expected.max())


def test_batches_make_no_difference() -> None:
    graph, data = chain()
    groups = find_groups(graph)
    scores = np.arange(1.0, len(groups) + 1)
    whole = irreplaceable(graph, groups, data, scores, device="cpu", batch_size=9)
    parts = irreplaceable(graph, groups, data, scores, device="cpu", batch_size=2)
    assert parts == pytest.approx(whole, rel=1e-3)


@given(st.integers(0, 10_000), st.integers(3, 7))
@settings(deadline=None)
def test_an_elimination_goes_on_where_another_one_ended(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, size)) @ rng.normal(size=(size, 3 * size))
    covariance, relevance = rows @ rows.T, rng.uniform(0.1, 1, size)
    whole = np.argsort(eliminate(covariance, relevance), kind="stable")
    count = int(rng.integers(1, size))
    dead = np.isin(np.arange(size), whole[:count])
    found = eliminate(covariance, relevance, dead=dead)
    left = np.flatnonzero(~dead)
    assert left[np.argsort(found[left], kind="stable")].tolist() == whole[count:].tolist()
    assert (found[dead] == 0).all()
    first = eliminate(covariance, relevance, dead=dead, share=1 / len(left))
    assert left[first[left].argmin()] == whole[count]


def test_places_take_the_same_share_of_every_layer() -> None:
    graph, data = chain()
    groups = find_groups(graph)
    evenly = Evenly(graph, groups, data, "cpu", batch_size=4)
    dead = np.zeros(len(groups), np.bool_)
    places = evenly(dead, 1.0)
    for group in (0, 1):
        own = groups.channels_of(group)
        assert np.sort(places[own]) == pytest.approx((np.arange(own.size) + 0.5) / own.size)
    dead[np.argsort(places)[:2]] = True
    again = evenly(dead, 1.0)
    assert np.isinf(again[dead]).all()
    assert again[~dead] == pytest.approx(places[~dead]), "what goes next does not change"
    dead[groups.channels_of(0)[~dead[groups.channels_of(0)]][:3]] = True
    lost = dead[groups.channels_of(0)].mean()
    assert evenly(dead, 1.0)[groups.channels_of(0)].min() > lost, "a layer that lost more waits"


def test_what_no_correction_restores_goes_last() -> None:
    text = CHAIN.replace(
        "f = Flatten(q)\n  y = Gemm<transB=1>(f, h, d)", "f = Sigmoid(q)\n  y = Flatten(f)"
    )
    text = text.replace("(float[N,4] y)", "(float[N,20] y)").replace(
        ", float[4,20] h, float[4] d", ""
    )
    graph = Graph(model(text))
    groups = find_groups(graph)
    places = Evenly(graph, groups, chain()[1], "cpu")(np.zeros(len(groups), np.bool_), 1.0)
    assert (places[groups.channels_of(0)] < 1).all()
    assert (places[6:] > 1).all()


def test_a_matrix_without_a_cholesky_factor_is_inverted_as_it_is() -> None:
    matrix = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert np.allclose(redundancy._inverse(matrix) @ matrix, np.eye(2))
    square = np.array([[2.0, 1.0], [1.0, 2.0]])
    assert np.allclose(redundancy._inverse(square) @ square, np.eye(2))
