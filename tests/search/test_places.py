"""An axis that layers look at alike counts places; one that filters write along does not."""

import numpy as np
import pytest

from onnxprune.graph import Graph
from onnxprune.search.holding import head_of, say
from onnxprune.search.places import counts_places
from tests.support.models import model

WEIGHTS = """<
    float[6,8,3] w, float[1,6,3] v, float[8,1] u, float[1,12,8] r, float[1,12,4] q, float[4,1] g,
    float[20,6] f, float[24,1] t, float[24,24] m
>"""
CONVOLUTIONS = "a = Conv<pads=[1, 1]>(x, w)  b = Relu(a)"
ONE = f"{CONVOLUTIONS}  c = Conv<pads=[1, 1]>(b, v)"
TURNED = "y = Transpose<perm=[0, 2, 1]>"
OUT = "k = Constant<value_ints=[1]>()"
LAST = "l = Constant<value_ints=[2]>()"
STEPWISE = {
    "convolutions": f"{ONE}  {TURNED}(c)",
    "a sigmoid": f"{ONE}  d = Sigmoid(c)  {TURNED}(d)",
    "an axis that moves": f"{ONE}  {OUT}  {LAST}  d = Squeeze(c, k)  y = Unsqueeze(d, l)",
    "another shape": f"{ONE}  s = Constant<value_ints=[0, -1, 1]>()  y = Reshape(c, s)",
    "a product": "a = Transpose<perm=[0, 2, 1]>(x)  y = MatMul(a, u)",
    "a residual": f"{ONE}  d = Add(c, c)  e = Add(d, c)  {TURNED}(e)",
    "a gate": f"{ONE}  d = Sigmoid(c)  e = Mul(c, d)  {TURNED}(e)",
    "a recurrent layer": (
        f"a = Transpose<perm=[2, 0, 1]>(x)  b, h = GRU<hidden_size=4>(a, r, q)  {OUT}"
        "  c = Squeeze(b, k)  d = MatMul(c, g)  y = Transpose<perm=[1, 0, 2]>(d)"
    ),
}
FEATURES = {
    "a mean over steps": f"{CONVOLUTIONS}  c = GlobalAveragePool(b)  y = Identity(c)",
    "units": f"{CONVOLUTIONS}  c = GlobalAveragePool(b)  d = Flatten(c)  y0 = Gemm<transB=1>(d, f)"
    f"  {LAST}  y = Unsqueeze(y0, l)",
    "weights over steps": f"{CONVOLUTIONS}  y = MatMul(b, t)",
    "places and features": f"{CONVOLUTIONS}  s = Constant<value_ints=[0, -1, 1]>()"
    "  y = Reshape(b, s)",
    "what is read": f"{OUT}  y = ReduceMean<axes=[1], keepdims=1>(x)",
    "a product over steps": f"{ONE}  d = MatMul(c, m)  {TURNED}(d)",
}


def net(body: str, steps: int = 24) -> Graph:
    text = f"net (float[N,8,{steps}] x) => (float[N,A,B] y) {WEIGHTS} {{ {body} }}"
    return Graph(model(text))


@pytest.mark.parametrize("body", STEPWISE.values(), ids=STEPWISE)
def test_steps_are_places(body: str) -> None:
    assert counts_places(net(body), "y")


@pytest.mark.parametrize("body", FEATURES.values(), ids=FEATURES)
def test_what_filters_and_units_write_are_features(body: str) -> None:
    assert not counts_places(net(body), "y")


def test_a_number_at_each_step_is_no_vector() -> None:
    """Neither is the step whose number is highest a class, whatever the output is called."""
    values = np.random.default_rng(0).normal(size=(40, 24, 1)).cumsum(1)
    for body in ("convolutions", "a sigmoid"):
        head = head_of(net(STEPWISE[body]), "y", values)
        assert (head.kind, head.axis) == ("values", 0)
        assert "all of them together" in say(head, values.shape)
    named = net(STEPWISE["a product"].replace("y =", "logits =") + "  y = Identity(logits)")
    assert head_of(named, "logits", values).kind == "values"
    assert head_of(named, "logits", values, "values").axis == 0
    assert head_of(named, "logits", values, "vector").kind == "vector"
    assert head_of(net(FEATURES["units"]), "y", values).kind == "vector"


def test_probabilities_of_places_are_classes() -> None:
    """Where something is may be asked as well: shares of one, or what a softmax reads."""
    scores = np.random.default_rng(0).normal(size=(40, 24, 1))
    shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    assert head_of(net(STEPWISE["convolutions"]), "y", shares).kind == "classes"


def test_a_way_that_branches_at_every_layer_is_walked_once() -> None:
    body = f"{ONE}  d0 = Add(c, c)  "
    body += "  ".join(f"e{k} = Sigmoid(d{k})  d{k + 1} = Add(e{k}, d{k})" for k in range(600))
    assert counts_places(net(f"{body}  {TURNED}(d600)"), "y")
