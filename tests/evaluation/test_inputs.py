"""Inputs that are made up: every kind of input gets a value that the model takes."""

import numpy as np
import numpy.typing as npt
import pytest

from onnxprune.evaluation.inputs import TURNS, made_up
from onnxprune.graph.graph import Graph
from tests.support.models import model, run

STATES = """
g (float[N,3,S] x, float[2,N,4] state, int64 rate, bool loud) => (float[N,2] y, float[2,N,4] next)
<float[6,3,1] w, float[2,6,1] v> {
  fast = Constant<value_int=16000>()
  q = Equal(rate, fast)
  both = And(q, loud)
  a = Conv(x, w)
  r = If(both) <
    then_branch = one () => (float[N,6,S] p) { p = Relu(a) },
    else_branch = two () => (float[N,6,S] n) { n = Neg(a) }
  >
  c = Conv(r, v)
  y = ReduceMax<axes=[2], keepdims=0>(c)
  next = Neg(state)
}
"""
ROWS = """
g (float[N,3,5] x, int64[N] row, int32[1] length)
=> (float[N,2,5] y, float[N,4] e, float[5,1,1,2] z)
<float[2,3,1] v, float[3,4] table, float[1,8,3] k, float[1,8,2] m> {
  y = Conv(x, v)
  one = Constant<value_ints=[1]>()
  i = Unsqueeze(row, one)
  g = Gather(table, i)
  e = Squeeze(g, one)
  t = Transpose<perm=[2,0,1]>(x)
  z = LSTM<hidden_size=2>(t, k, m, "", length)
}
"""


def made(graph: Graph, **options: int) -> list[dict[str, npt.NDArray[np.generic]]]:
    found = (made_up(graph, turn=turn, **options) for turn in range(TURNS + 1))
    return [feeds for feeds in found if feeds is not None]


def test_axes_of_one_name_have_one_size() -> None:
    """A batch that stands second in a state is the batch of the images."""
    (feeds, *_) = made(Graph(model(STATES)), batch=3, more=32)
    assert feeds["x"].shape == (3, 3, 256) and feeds["state"].shape == (2, 3, 4)
    assert feeds["rate"].shape == () and feeds["rate"].dtype == np.int64


def test_numbers_that_a_model_asks_for_are_tried() -> None:
    found = made(Graph(model(STATES)))
    assert {int(feeds["rate"]) for feeds in found} == {1, 16000, 0}
    assert {bool(feeds["loud"]) for feeds in found} == {True, False}
    assert len(found) == 6
    assert any(int(feeds["rate"]) == 16000 and feeds["loud"] for feeds in found)


def test_rows_and_lengths_are_among_those_that_there_are() -> None:
    found = made(Graph(model(ROWS)), batch=20)
    assert set(found[0]["row"].tolist()) == {0, 1, 2}
    assert {int(feeds["length"][0]) for feeds in found} == {1, 5, 0}


def test_a_model_without_open_axes_has_one_size() -> None:
    graph = Graph(model("g (float[1,3,8] x) => (float[1,2,8] y) <float[2,3,1] w> {y = Conv(x, w)}"))
    assert len(made(graph)) == 1 and made(graph, batch=3) == [] and made(graph, more=32) == []


@pytest.mark.parametrize("kind", ["string", "bfloat16"])
def test_types_that_numpy_lacks_are_not_made_up(kind: str) -> None:
    text = (
        f"g (float[1,3,8] x, {kind}[1] t) => (float[1,2,8] y, {kind}[1] u) <float[2,3,1] w> "
        "{y = Conv(x, w) u = Identity(t)}"
    )
    assert made(Graph(model(text))) == []


def test_samples_are_repeated_where_their_size_fits() -> None:
    graph, x = Graph(model(STATES)), np.arange(12, dtype=np.float64).reshape(1, 3, 4)
    assert (made_up(graph, samples={"x": x}) or {})["x"].shape == (1, 3, 224)
    graph = Graph(model(STATES), input_shapes={"x": (1, 3, 4)})
    feeds = made_up(graph, batch=2, samples={"x": x}) or {}
    assert np.array_equal(feeds["x"], np.concatenate([x, x])) and feeds["x"].dtype == np.float32


@pytest.mark.parametrize("text", [STATES, ROWS], ids=["states", "rows"])
def test_onnxruntime_takes_what_is_made_up(text: str) -> None:
    proto = model(text)
    for batch in (1, 3):
        for feeds in made(Graph(proto), batch=batch):
            if feeds.get("length") is None or feeds["length"].size == batch:
                run(proto, *feeds.values())
