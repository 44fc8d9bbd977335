"""Relevance through products of activations: gates, attention and computed weights."""

import numpy as np
import pytest
import torch

from onnxprune.relevance import find_composite
from onnxprune.relevance.lrp import relevance
from onnxprune.relevance.routes import find_routes
from tests.support.dense import EXACT, STABILISERS, every, mirror_of, safe, sums
from tests.support.models import images, model

# Gates

GATED = """
g (float[N,3,6,6] x) => (float[N,4] z)
<float[4,3,1,1] w, float[4,3,1,1] e, float[2,4,1,1] s1, float[4,2,1,1] s2, float[4,4] v,
 float three = {{3.0}}, float sixth = {{0.1666}}, float zero = {{0.0}}, float six = {{6.0}},
 float half = {{0.5}}, float one = {{1.0}}, float root = {{1.4142}}> {{
  a = Conv(x, w)
  b = Conv(x, e)
  {gate}
  p = GlobalAveragePool(h)
  f = Flatten(p)
  z = MatMul(f, v)
}}
"""
EXCITE = """
q = GlobalAveragePool(a)
t = Conv(q, s1)
k = Relu(t)
l = Conv(k, s2)
g = Sigmoid(l)
h = Mul(g, a)
"""
GATES = {
    "SiLU": ("g = Sigmoid(a)  h = Mul(g, a)", "a"),
    "HardSwish": ("m = Add(a, three) n = Clip(m, zero, six) o = Mul(n, sixth) h = Mul(o, a)", "a"),
    "GELU": ("m = Div(a, root) n = Erf(m) o = Add(n, one) h0 = Mul(a, half) h = Mul(o, h0)", "h0"),
    "GLU": ("g = Sigmoid(b)  h = Mul(g, a)", "a"),
    "GLU turned": ("g = Sigmoid(a)  h = Mul(b, g)", "b"),
    "excitation": (EXCITE, "a"),
    "square": ("h = Mul(a, a)", "a"),
    "division": ("m = Abs(b) n = Add(m, one)  h = Div(a, n)", "a"),
    "scale": ("h = Mul(half, a)", "a"),
}


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
@pytest.mark.parametrize("gate", GATES)
def test_a_product_gives_all_to_the_signal(gate: str, rule: str) -> None:
    body, signal = GATES[gate]
    mirror = mirror_of(model(GATED.format(gate=body)))
    found = every(mirror, images(mirror.graph.model, 2), [0, 1], rule)
    assert torch.equal(found[signal], found["h"])


def test_a_gate_without_a_signal_behind_it_has_more_activations() -> None:
    for gate in ("GLU", "GLU turned"):
        mirror = mirror_of(model(GATED.format(gate=GATES[gate][0])))
        found = every(mirror, images(mirror.graph.model, 2), [0, 1], "epsilon")
        behind = "b" if gate == "GLU" else "a"
        # An activation passes relevance on the main path only.
        assert not torch.equal(found[behind], found["g"])


def test_filters_inside_a_gate_are_valued_without_changing_the_main_path() -> None:
    mirror = mirror_of(model(GATED.format(gate=EXCITE)))
    x = images(mirror.graph.model, 2)
    found = every(mirror, x, [0, 1], "epsilon")
    assert found["t"].abs().sum() > 0
    assert torch.equal(found["a"], found["h"])
    assert torch.equal(found["g"][:, :, 0, 0], found["h"].sum((2, 3)))
    # Within the gate: contributions to log sigmoid(l), by hand.
    env = mirror.trace(x)
    log_slope = (1 - env["g"]) * env["l"]
    assert torch.allclose(found["l"], found["g"] * log_slope, rtol=1e-4)


def test_a_mask_is_a_gate_without_filters() -> None:
    gate = "m = Greater(a, half)  g = Cast<to=1>(m)  h = Mul(g, a)"
    mirror = mirror_of(model(GATED.format(gate=gate)))
    found = every(mirror, images(mirror.graph.model, 2), [0, 1], "epsilon")
    assert torch.equal(found["a"], found["h"])
    assert "b" not in found


BYTES = """
g (int32[N,6] x) => (float[N,4] z)
<int64[1] last = {2}, int32[1,1,5] names = {0,1,2,3,4}, float[5,3] w, float[3,4] v> {
  u = Unsqueeze(x, last)
  e = Equal(u, names)
  o = Cast<to=1>(e)
  a = MatMul(o, w)
  r = Relu(a)
  m = ReduceMean<axes=[1], keepdims=0>(r)
  z = MatMul(m, v)
}
"""


def test_relevance_reaches_what_reads_bytes() -> None:
    mirror = mirror_of(model(BYTES))
    x = np.random.default_rng(0).integers(0, 5, (3, 6)).astype(np.int32)
    found = relevance(mirror, x, np.array([0, 1, 3]), find_composite("epsilon"), ["a", "z"])
    assert found["a"].abs().sum() > 0
    assert found["a"].sum().item() == pytest.approx(found["z"].sum().item(), rel=STABILISERS)


# Products of activations

ATTENTION = """
g (float[N,4,6] x) => (float[N,5] z)
<float[6,3] q, float[6,3] k, float[6,3] v, float[3,5] head, float[1] one, int64[1] middle = {1}> {
  a = MatMul(x, q)
  b = MatMul(x, k)
  c = MatMul(x, v)
  bt = Transpose<perm=[0,2,1]>(b)
  l = MatMul(a, bt)
  s = Softmax<axis=-1>(l)
  m = MatMul(s, c)
  p = ReduceMean<axes=[1], keepdims=0>(m)
  z = MatMul(p, head)
}
"""


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_attention_gives_all_to_the_values_and_is_a_weight(rule: str) -> None:
    mirror = mirror_of(model(ATTENTION))
    x = images(mirror.graph.model, 2)
    found = every(mirror, x, [0, 4], rule)
    env = mirror.trace(x)
    s, c, m = (env[name].numpy() for name in "scm")
    for k in range(2):
        ratio = found["m"][k].numpy() / safe(m[k])
        expected = c[k] * (s[k].T @ ratio)
        np.testing.assert_allclose(found["c"][k].numpy(), expected, rtol=EXACT, atol=EXACT)
    assert found["a"].abs().sum() > 0  # queries are valued, as filters inside a gate are
    for received, given in zip(*sums(found, "c m"), strict=True):
        assert received == pytest.approx(given, rel=STABILISERS)


def test_the_factor_with_fewer_activations_behind_it_is_the_signal() -> None:
    mirror = mirror_of(model(ATTENTION))
    (product,) = (step.node for step in mirror.steps if "m" in step.node.outputs)
    routes = find_routes(mirror, find_composite("epsilon"), ["s", "c"], ["z"])
    assert routes[product.name].inputs == ("c", "s")  # the signal first


def test_a_weight_that_a_branch_computes_is_a_weight() -> None:
    text = """
    g (float[1,3,3,3] x) => (float[1,4] z) <float[12,3,3,3] w, float[4,1,1,1] u, int64[4] shape =
    {4,3,1,1}> {
      a = Conv(x, w)
      k = Reshape(a, shape)
      y = Conv(x, k)
      r = Relu(y)
      p = GlobalAveragePool(r)
      z = Flatten(p)
    }
    """
    mirror = mirror_of(model(text))
    x = images(mirror.graph.model, 1)
    found = every(mirror, x, [1], "epsilon")
    W = mirror.trace(x)["k"].numpy().reshape(4, 3)
    env = mirror.trace(x)
    pixels, y = x[0].reshape(3, 9), env["y"][0].numpy().reshape(4, 9)
    expected = pixels * (W.T @ (found["y"][0].numpy().reshape(4, 9) / safe(y)))
    through_weight = found["x"][0].numpy().reshape(3, 9)
    np.testing.assert_allclose(through_weight, expected, rtol=1e-5, atol=1e-8)


# Places, conditions and scales that a branch computes

SAMPLED = """
g (float[N,3,5,5] x) => (float[N,4] z) <float[4,3,1,1] w, float[2,3,1,1] u, float[4,4] v> {
  a = Conv(x, w)
  b = Conv(x, u)
  grid = Transpose<perm=[0,2,3,1]>(b)
  y = GridSample(a, grid)
  p = GlobalAveragePool(y)
  f = Flatten(p)
  z = MatMul(f, v)
}
"""


def test_places_that_a_branch_computes_are_a_gate() -> None:
    mirror = mirror_of(model(SAMPLED))
    x = images(mirror.graph.model, 2)
    found = every(mirror, x, [0, 1], "epsilon")
    for of_image, of_signal, given in zip(*sums(found, "x a y"), strict=True):
        assert of_image == pytest.approx(given, rel=STABILISERS)
        assert of_signal == pytest.approx(given, rel=STABILISERS)
    assert found["b"].abs().sum() > 0


def test_a_condition_chooses_and_has_no_relevance() -> None:
    """A leaky ReLU, as exporters write it that do not know one."""
    chosen = "m = Greater(a, zero)  k = Mul(a, half)  h = Where(m, a, k)"
    leaky = "h = LeakyRelu<alpha=0.5>(a)"
    one, other = (mirror_of(model(GATED.format(gate=gate))) for gate in (chosen, leaky))
    x = images(one.graph.model, 2)
    found, expected = (every(mirror, x, [0, 1], "epsilon") for mirror in (one, other))
    torch.testing.assert_close(found["a"], expected["a"])
    assert "m" not in found


def test_relevance_passes_dynamic_quantisation() -> None:
    gate = "q, s, t = DynamicQuantizeLinear(a)  h = DequantizeLinear(q, s, t)"
    mirror = mirror_of(model(GATED.format(gate=gate)))
    found = every(mirror, images(mirror.graph.model, 2), [0, 1], "epsilon")
    assert torch.equal(found["a"], found["h"])
    assert "s" not in found


# A product and the sum that gives it a bias

BIASED = """
g (float[N,5,3] x) => (float[N,4] z)
<float[3,6] w, float[6] b, float[6,4] v, float[4] t> {{
  {first}
  r = Relu(h)
  m = ReduceMean<axes=[1], keepdims=0>(r)
  {second}
}}
"""
APART = {"first": "a = MatMul(x, w)  h = Add(b, a)", "second": "c = MatMul(m, v)  z = Add(c, t)"}


@pytest.mark.parametrize("rule", ["epsilon", "zplus", "gamma", "alpha-beta"])
def test_a_product_and_the_sum_behind_it_are_one_layer(rule: str) -> None:
    whole = model(BIASED.format(first=APART["first"], second="z = Gemm(m, v, t)"))
    apart = model(BIASED.format(**APART))
    x = images(whole, 3)
    one, two = (every(mirror_of(proto), x, [0, 1, 3], rule) for proto in (whole, apart))
    for name in ("x", "a", "h", "m"):
        assert torch.allclose(one[name], two[name], rtol=EXACT), name
    # The relevance of a unit is that of its sum, with the bias.
    assert torch.equal(two["a"], two["h"])


def test_a_folded_product_computes_the_same() -> None:
    proto = model(BIASED.format(**APART))
    x = images(proto, 2)
    plain, merged = (mirror_of(proto, fold=fold).trace(x)["z"] for fold in (False, True))
    assert torch.allclose(plain, merged, rtol=EXACT)
