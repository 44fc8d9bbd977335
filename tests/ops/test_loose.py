"""Operators that may be pruned inexactly, where the user allows it: what is cut, and what stays.

The oracle is plain arithmetic on arrays: the only size of 14 in these models is that of the
channels, so what remains of a constant is known without any analysis.
"""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.surgery.removal import remove_channels
from tests.ops.sandwich import Case, run, weights

C = 14
ALIVE = np.array([k % 7 != 2 and k != 5 and k != 12 for k in range(C)])
"""As many survive of each of two groups of seven."""

X = (C, 5, 3)
LAST = "t = Transpose<perm=[0, 2, 3, 1]>(x); {}; y = Transpose<perm=[0, 3, 1, 2]>(n)"
BY_HAND = (
    "m = ReduceMean(x, a); d = Sub(x, m); q = Mul(d, d); v = ReduceMean(q, a); w = Add(v, e);"
    "r = Sqrt(w); n = Div(d, r); g = Mul(n, s); y = Add(g, s)"
)

LOOSE: list[tuple[str, int, dict[str, Any]]] = [
    (LAST.format("n = LayerNormalization(t, s, b)"), 17, {"s": weights(C), "b": weights(C)}),
    (LAST.format("n, m, d = LayerNormalization(t, s)"), 17, {"s": weights(C)}),
    ("y = LayerNormalization<axis=1>(x, s, b)", 17, {"s": weights(C, 5, 3), "b": weights(C, 1, 1)}),
    (LAST.format("n = RMSNormalization(t, s)"), 23, {"s": weights(C)}),
    ("y = GroupNormalization<num_groups=2>(x, s, s)", 21, {"s": weights(C)}),
    ("y = LRN<size=3, alpha=0.1>(x)", 17, {}),
    ("y = LpNormalization<axis=1>(x)", 17, {}),
    ("y = Softmax<axis=1>(x)", 17, {}),
    ("y = Softmax<axis=1>(x)", 11, {}),
    ("y = LogSoftmax<axis=-3>(x)", 17, {}),
    ("m = ReduceMean<axes=[1]>(x); y = Sub(x, m)", 17, {}),
    ("m = ReduceL2<axes=[1], keepdims=0>(x); u = Unsqueeze(m, o); y = Div(x, u)", 17, {"o": [1]}),
    ("m = ReduceMax(x, a); y = Sub(x, m)", 18, {"a": [1]}),
    (BY_HAND, 18, {"a": [1], "s": weights(1, C, 1, 1), "e": np.float32(1e-5)}),
]


def arrays(model: onnx.ModelProto) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def cut(array: Any) -> Any:
    """What is left of a constant."""
    for axis, size in enumerate(array.shape):
        array = np.compress(ALIVE, array, axis) if size == C else array
    return array


@pytest.mark.parametrize(("body", "opset", "tensors"), LOOSE, ids=lambda part: str(part)[:40])
def test_channels_cross_where_allowed(body: str, opset: int, tensors: dict[str, Any]) -> None:
    given = {k: np.array(v, np.int64) if isinstance(v, list) else v for k, v in tensors.items()}
    case = Case(body, C, {"x": X, **given}, opset)
    graph = Graph(case.model)
    exact = find_groups(graph)
    groups = find_groups(graph, allow_inexact=sorted({node.op_type for node in case.nodes}))
    channels = groups.cuts["x"][1]
    assert groups.removable[channels].all()
    dead = np.zeros(len(groups), np.bool_)
    dead[channels[~ALIVE]] = True
    assert (~dead[channels] == ALIVE).all()
    whole_groups = "GroupNormalization" in body
    assert int(exact.removable.sum()) == (2 if whole_groups else 0)
    assert groups.crossed(dead)
    assert not groups.crossed(np.zeros_like(dead))
    small = remove_channels(graph, groups, dead)
    onnx.checker.check_model(small, full_check=True)
    found, before = arrays(small), arrays(case.model)
    assert found.keys() == before.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, cut(before[name]), name)
    attributes = [node.attribute for node in small.graph.node]
    assert attributes == [node.attribute for node in case.model.graph.node]
    for batch in case.batches:
        feeds = case.feeds(batch)
        for mine, whole in zip(run(small, feeds), run(case.model, feeds), strict=True):
            assert mine.shape == whole.shape
            assert np.isfinite(mine).all()


def test_an_operator_that_is_not_named_still_pins() -> None:
    body, opset, tensors = LOOSE[0]
    graph = Graph(Case(body, C, {"x": X, **tensors}, opset).model)
    assert not find_groups(graph, allow_inexact=["groupnorm", "softmax"]).removable.any()
    assert find_groups(graph, allow_inexact=["layernorm"]).removable.sum() == C
