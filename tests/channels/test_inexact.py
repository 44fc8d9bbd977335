"""Pruning through operators that mix channels, where the user allows it."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.errors import UnknownName
from onnxprune.graph.graph import Graph
from onnxprune.run import apply, prune
from onnxprune.search.plan import Plan
from tests.support.models import images, model, run

NORMALISED = """
g (float[N,3,6,6] x) => (float[N,2,6,6] y)
<float[8,3,1,1] w, float[8] k, float[8] o, float[2,8,1,1] v> {
  a = Conv(x, w)
  t = Transpose<perm=[0,2,3,1]>(a)
  l = LayerNormalization(t, k, o)
  b = Transpose<perm=[0,3,1,2]>(l)
  y = Conv(b, v)
}
"""
OPTIONS = {"control": "one-shot", "criterion": "magnitude", "rate": 0.5}


@pytest.mark.parametrize("name", ["layernorm", "LayerNormalization", "layer"])
def test_an_allowed_operator_lets_its_channels_go(name: str) -> None:
    graph = Graph(model(NORMALISED))
    assert find_groups(graph).removable_filters == 0
    groups = find_groups(graph, allow_inexact=[name])
    assert groups.removable_filters == 8
    nothing = np.zeros(len(groups), np.bool_)
    assert groups.crossed(nothing) == []
    assert groups.crossed(groups.removable) == ["LayerNormalization 'l'"]


def test_another_operator_is_not_meant() -> None:
    graph = Graph(model(NORMALISED))
    assert find_groups(graph, allow_inexact=["softmax", "lp"]).removable_filters == 0


def test_the_result_is_the_normalisation_of_what_is_left(tmp_path: Path) -> None:
    proto = model(NORMALISED)
    result = prune(proto, allow_inexact=("layernorm",), **OPTIONS)
    assert result.report["inexact"] == ["LayerNormalization 'l'"]
    onnx.checker.check_model(result.model, full_check=True)
    kept = np.setdiff1d(np.arange(8), result.plan.removed["a"])
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    x = images(proto, 2)
    a = np.einsum("nchw,oc->nohw", x, weights["w"][kept, :, 0, 0])
    mean, deviation = a.mean(1, keepdims=True), a.std(1, keepdims=True)
    b = (a - mean) / np.sqrt(deviation**2 + 1e-5)
    b = b * weights["k"][kept, None, None] + weights["o"][kept, None, None]
    expected = np.einsum("nchw,oc->nohw", b, weights["v"][:, kept, 0, 0])
    np.testing.assert_allclose(run(result.model, x)[0], expected, rtol=1e-3, atol=1e-4)
    again = apply(proto, Plan.load(result.plan.save(tmp_path / "plan.json")))
    np.testing.assert_array_equal(run(again, x)[0], run(result.model, x)[0])


def test_a_plan_remembers_what_it_was_allowed() -> None:
    plan = Plan({"a": (1, 2)}, ("layernorm",))
    assert json.loads(plan.to_json())["allow_inexact"] == ["layernorm"]
    assert Plan.from_json(plan.to_json()) == plan
    assert "allow_inexact" not in Plan({"a": (1, 2)}).to_json()


def test_a_name_that_is_no_operator_is_refused() -> None:
    with pytest.raises(UnknownName, match="allow_inexact 'layernrom': no operator's name begins"):
        onnxprune.prune(model(NORMALISED), allow_inexact=("layernrom",), **OPTIONS)
