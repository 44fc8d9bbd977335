"""The sizes at which a model is looked at: given, assumed with a word, or refused in one line."""

import logging

import numpy as np
import pytest

from onnxprune.channels.groups import find_groups
from onnxprune.errors import InvalidModel, InvalidType, InvalidValue, OnnxPruneError
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model, run

OPEN = "g (float[N,3,H,W] x) => (float[N,4,H,W] y) <float[4,3,1,1] w> { y = Conv(x, w) }"
READER = """
g (float[N,3,H,W] x) => (float[N,6,W2] y)
<float[4,3,3,3] w, float[6,4,1,1] v> {
  c = Conv<strides=[8,1], pads=[1,1,1,1]>(x, w)
  p = MaxPool<kernel_shape=[6,1]>(c)
  d = Conv(p, v)
  s = Constant<value_ints=[0, 6, -1]>()
  t = Constant<value_ints=[0, 6, 1, 222]>()
  r = Reshape(d, t)
  y = Reshape(r, s)
}
"""
LISTENER = """
g (float[N,samples] x) => (float[N,8,T] y) <float[16,1,512] w, float[16,8] v> {
  axis = Constant<value_ints=[1]>()
  u = Unsqueeze(x, axis)
  c = Conv<strides=[160]>(u, w)
  t = Transpose<perm=[0,2,1]>(c)
  y = MatMul(t, v)
}
"""
CLASSIFIER = """
g (float[N,3,H,W] x) => (float[N,2] y) <float[4,3,3,3] w, float[64,2] v> {
  c = Conv(x, w)
  f = Flatten(c)
  y = MatMul(f, v)
}
"""
FITTING = {"x": (1, 3, 6, 6)}


def test_what_is_given_is_what_shapes_follow() -> None:
    graph = Graph(model(OPEN), input_shapes={"x": (1, 3, 48, 320)})
    assert graph.shape("y") == (1, 4, 48, 320)
    assert graph.assumption == ""


def test_given_sizes_stay_open(caplog: pytest.LogCaptureFixture) -> None:
    graph = Graph(model(OPEN), input_shapes={"x": (1, 3, 48, 320)})
    assert graph.dynamic("y") == (True, False, True, True)
    graph.warn()
    assert not caplog.records


def test_no_assumption_is_silent(caplog: pytest.LogCaptureFixture) -> None:
    graph = Graph(model(OPEN))
    assert graph.shape("y") == (1, 4, 224, 224)
    with caplog.at_level(logging.WARNING):
        graph.warn()
    assert "1,3,224,224" in caplog.text
    assert "--input-shape x:1,3,H,W" in caplog.text


@pytest.mark.parametrize("text", [OPEN.replace("H", "8").replace("W", "8")])
def test_an_open_batch_alone_is_no_assumption(text: str) -> None:
    assert Graph(model(text)).assumption == ""


SHARED = """
g (float[batch,rows] x, float[2,batch,8] state, float[rows,4] z) => (float[batch,rows] y) {
  y = Relu(x)
}
"""


def test_axes_of_one_name_have_one_size() -> None:
    graph = Graph(model(SHARED))
    assert [graph.shape(name) for name in ("x", "state", "z")] == [(1, 1), (2, 1, 8), (1, 4)]
    graph = Graph(model(SHARED), input_shapes={"x": (1, 30)})
    assert [graph.shape(name) for name in ("x", "state", "z")] == [(1, 30), (2, 1, 8), (30, 4)]
    assert graph.assumption == ""
    assert graph.dynamic("state") == (False, True, False)
    assert graph.dynamic("z") == (True, False)


WRONG = {
    "another input": ({"z": (1, 3, 8, 8)}, InvalidValue, "expected one of x"),
    "other channels": ({"x": (1, 4, 8, 8)}, InvalidValue, "expected ?,3,?,?"),
    "too few axes": ({"x": (3, 8, 8)}, InvalidValue, "expected ?,3,?,?"),
    "an open size": ({"x": (1, 3, -1, 8)}, InvalidValue, "positive sizes"),
    "a number": (7, InvalidType, "positive sizes"),
    "a shape without a name": ((1, 3, 8, 8), InvalidValue, "a name and positive sizes"),
}


@pytest.mark.parametrize(("given", "error", "said"), WRONG.values(), ids=list(WRONG))
def test_what_no_input_takes_is_refused(
    given: object, error: type[OnnxPruneError], said: str
) -> None:
    with pytest.raises(error) as caught:
        Graph(model(OPEN), input_shapes=given)  # type: ignore[arg-type]
    assert said in str(caught.value)


NETWORKS = {
    "a Reshape for one height": (READER, "Reshape 'r'", {"x": (1, 3, 48, 222)}),
    "a window that is longer": (LISTENER, "Conv 'c'", {"x": (1, 1600)}),
    "a dense layer for one size": (CLASSIFIER, "MatMul 'y'", FITTING),
}


@pytest.mark.parametrize(("text", "where", "shapes"), NETWORKS.values(), ids=list(NETWORKS))
def test_a_network_for_one_size_says_so_or_is_told(
    text: str, where: str, shapes: dict[str, tuple[int, ...]]
) -> None:
    proto = model(text)
    with pytest.raises(InvalidModel) as caught:
        find_groups(Graph(proto))
    assert str(caught.value).startswith(where)
    assert "--input-shape x:1," in str(caught.value)
    graph = Graph(proto, input_shapes=shapes)
    groups = find_groups(graph)
    dead = np.arange(len(groups)) == int(np.flatnonzero(groups.removable)[0])
    pruned = remove_channels(graph, groups, dead)
    x = np.random.default_rng(0).normal(size=shapes["x"]).astype(np.float32)
    assert run(pruned, x)[0].shape == run(proto, x)[0].shape


BATCH_IN_SHAPE = """
g (float[N,3,H,W] x) => (float[N,2] y) <float[16,3,3,3] w, float[16,2] v> {
  c = Conv(x, w)
  p = GlobalAveragePool(c)
  s = Shape(p)
  i = Constant<value_ints=[0]>()
  n = Gather(s, i)
  sixteen = Constant<value_ints=[16]>()
  k = Concat<axis=0>(n, sixteen)
  r = Reshape(p, k)
  y = Gemm(r, v)
}
"""


def test_a_target_worked_out_from_the_batch_follows_it_at_given_sizes() -> None:
    graph = Graph(model(BATCH_IN_SHAPE), input_shapes={"x": (1, 3, 8, 8)})
    groups = find_groups(graph)
    pruned = remove_channels(graph, groups, np.arange(len(groups)) < 8)
    for size in (8, 12):
        x = np.ones((5, 3, size, size), np.float32)
        assert run(pruned, x)[0].shape == (5, 2)
