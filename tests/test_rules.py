"""Relevance, judged by dense matrices that follow the papers' formulas, and by zennit."""

import warnings
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from torch import Tensor, nn

from onnxprune.channels import find_groups
from onnxprune.errors import DataError, UnknownName, UnsupportedOp
from onnxprune.fold import folded
from onnxprune.graph import Graph
from onnxprune.mirror import Mirror
from onnxprune.relevance import relevance, start
from onnxprune.routes import find_logits
from onnxprune.rules import RULES, Composite, Rule, Span, find_composite
from tests.models import images, model

Array = npt.NDArray[np.float64]

EXACT = 1e-9
"""Relative, in float64: the replica sums in another order."""
ORACLE = 1e-4
"""Relative: zennit adds its stabilisers at other places."""
STABILISERS = 1e-3
"""Relative: what all the stabilisers on the way take from a sum, in float64."""
EPS = 1e-6


def mirror_of(proto: onnx.ModelProto, *, fold: bool = True) -> Mirror:
    plain = Mirror(Graph(proto), device="cpu", dtype=torch.float64)
    return folded(plain) if fold else plain


def every(mirror: Mirror, x: Array, y: list[int], rule: str | Composite) -> dict[str, Tensor]:
    """The relevance of every tensor that has one."""
    names = {name for node, _ in mirror.steps for name in (*node.inputs, *node.outputs)}
    chosen = find_composite(rule) if isinstance(rule, str) else rule
    return relevance(mirror, x, np.array(y), chosen, names - mirror.constants.keys())


def sums(relevances: dict[str, Tensor], names: str) -> list[list[float]]:
    return [relevances[name].flatten(1).sum(1).tolist() for name in names.split()]


# One layer against its matrix

LAYERS = {
    "conv": "a = Conv<pads=[1,1,1,1], strides=[2,2]>(x, w, b)",
    "grouped": "a = Conv<group=2>(x, g, b)",
    "asymmetric": 'a = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, even, b)',
    "gemm": "f = Flatten(x)  a = Gemm<alpha=0.5, beta=2.0>(f, m, n)",
    "matmul": "f = Flatten(x)  a = MatMul(f, m)",
}
ONE_LAYER = """
g (float[N,4,3,3] x) => (float[N,K] z)
<float[6,4,3,3] w, float[6,2,2,2] g, float[6,4,2,2] even, float[6] b, float[36,5] m, float[5] n> {{
  {layer}
  z = Flatten(a)
}}
"""


def dense(mirror: Mirror, x: Array) -> tuple[Array, Array]:
    """The layer's matrix and bias, from its own forward. Shapes: `[K, I]`, `[K]`."""
    zero = torch.zeros(1, *x.shape[1:], dtype=torch.float64)
    matrix = torch.autograd.functional.jacobian(lambda v: mirror(v)[0].flatten(), zero)
    bias = mirror(zero)[0].flatten()
    return matrix.flatten(1).numpy(), bias.detach().numpy()


def safe(z: Array) -> Array:
    return z + np.where(z < 0, -EPS, EPS)


def replicate_epsilon(x: Array, W: Array, b: Array, R: Array) -> Array:
    return x * (W.T @ (R / safe(W @ x + b)))


def positive_share(x: Array, W: Array, b: Array, R: Array) -> Array:
    contributions = W * x
    above = np.maximum(contributions, 0)
    return (above / safe(above.sum(1) + np.maximum(b, 0))[:, None] * R[:, None]).sum(0)


def negative_share(x: Array, W: Array, b: Array, R: Array) -> Array:
    contributions = W * x
    below = np.minimum(contributions, 0)
    return (below / safe(below.sum(1) + np.minimum(b, 0))[:, None] * R[:, None]).sum(0)


def replicate_zplus(x: Array, W: Array, b: Array, R: Array) -> Array:
    return positive_share(x, W, 0 * b, R)


def replicate_alpha_beta(x: Array, W: Array, b: Array, R: Array) -> Array:
    return 2 * positive_share(x, W, b, R) - negative_share(x, W, b, R)


def replicate_gamma(x: Array, W: Array, b: Array, R: Array) -> Array:
    y, contributions = W @ x + b, W * x
    found = np.zeros_like(x)
    for k in range(len(y)):
        keep = np.maximum if y[k] > 0 else np.minimum
        row = contributions[k] + 0.25 * keep(contributions[k], 0)
        total = row.sum() + b[k] + 0.25 * keep(b[k], 0)
        found += row / safe(np.array([total]))[0] * R[k] if y[k] else 0
    return found


REPLICAS: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "epsilon": replicate_epsilon,
    "zplus": replicate_zplus,
    "alpha-beta": replicate_alpha_beta,
    "gamma": replicate_gamma,
}


@pytest.mark.parametrize("signed", [False, True], ids=["positive", "signed"])
@pytest.mark.parametrize("rule", REPLICAS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_shares_relevance_as_the_formula_says(layer: str, rule: str, signed: bool) -> None:
    mirror = mirror_of(model(ONE_LAYER.format(layer=LAYERS[layer])))
    x = np.random.default_rng(2).normal(size=(3, 4, 3, 3))
    x = x if signed else np.abs(x)
    found = every(mirror, x, [0, 1, 2], rule)["x"]
    W, b = dense(mirror, x)
    for k in range(3):
        z = W @ x[k].ravel() + b
        R = (np.eye(len(z))[k] - 1 / len(z)) * z
        expected = REPLICAS[rule](x[k].ravel(), W, b, R / np.abs(R).sum())
        np.testing.assert_allclose(found[k].numpy().ravel(), expected, rtol=EXACT, atol=EXACT)


def test_epsilon_plus_is_zplus_on_convolutions_and_epsilon_on_matrices() -> None:
    x = np.abs(np.random.default_rng(2).normal(size=(2, 4, 3, 3)))
    for layer, same in (("conv", "zplus"), ("gemm", "epsilon")):
        mirror = mirror_of(model(ONE_LAYER.format(layer=LAYERS[layer])))
        found, expected = (every(mirror, x, [0, 1], r)["x"] for r in ("epsilon-plus", same))
        assert torch.equal(found, expected)


def test_a_weight_on_the_left_is_a_weight() -> None:
    text = """
    g (float[N,4,3] x) => (float[N,15] z) <float[5,4] w> { a = MatMul(w, x)  z = Flatten(a) }
    """
    mirror = mirror_of(model(text))
    x = np.random.default_rng(2).normal(size=(2, 4, 3))
    found = every(mirror, x, [0, 1], "zplus")["x"]
    W, b = dense(mirror, x)
    for k in range(2):
        R = (np.eye(15)[k] - 1 / 15) * (W @ x[k].ravel())
        expected = replicate_zplus(x[k].ravel(), W, b, R / np.abs(R).sum())
        np.testing.assert_allclose(found[k].numpy().ravel(), expected, rtol=EXACT, atol=EXACT)


# Where relevance starts


def test_relevance_starts_at_the_true_logit_less_the_mean() -> None:
    logits = torch.tensor([[3.0, 1.0, -2.0], [3.0, 1.0, -2.0]])
    found = start(logits, torch.tensor([0, 2]))
    terms = np.array([[2.0, -1 / 3, 2 / 3], [-1.0, -1 / 3, -4 / 3]])
    expected = terms / np.abs(terms).sum(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_a_single_logit_is_explained_as_it_is() -> None:
    assert start(torch.tensor([[3.0], [-2.0]]), torch.tensor([1, 0])).tolist() == [[1.0], [-1.0]]


def test_logits_of_zero_have_no_relevance() -> None:
    assert start(torch.zeros(2, 3), torch.tensor([1, 0])).abs().sum() == 0


def test_a_label_that_is_no_class_is_named() -> None:
    with pytest.raises(DataError, match="label 3, expected 0 to 2: the model has 3 outputs"):
        start(torch.zeros(2, 3), torch.tensor([1, 3]))


SMALL = """
g (float[N,3,8,8] x) => (float[N,4] {out}) <float[6,3,3,3] w, float[6] b, float[6,4] v> {{
  a = Conv(x, w, b)
  r = Relu(a)
  p = GlobalAveragePool(r)
  f = Flatten(p)
  z = MatMul(f, v)
  {tail}
}}
"""


@pytest.mark.parametrize(
    "tail",
    [
        "y = Softmax(z)",
        "y = LogSoftmax<axis=1>(z)",
        "s = Softmax(z)  y = Identity(s)",
        "y = Sigmoid(z)",
        "u = Unsqueeze(z, two)  s = Softmax<axis=1>(u)  y = Flatten(s)",
    ],
)
def test_a_final_softmax_or_activation_is_left_out(tail: str) -> None:
    text = SMALL.format(out="y", tail=tail).replace("w, float", "w, int64[1] two = {2}, float")
    mirror = mirror_of(model(text))
    plain = mirror_of(model(SMALL.format(out="z", tail="")))
    assert find_logits(mirror) == ("u" if "u =" in tail else "z")
    x = images(mirror.graph.model, 2)
    found, expected = (every(m, x, [0, 3], "epsilon") for m in (mirror, plain))
    assert torch.equal(found["a"], expected["a"])


# Conservation

RESIDUAL = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[6,3,3,3] w1, float[6,6,3,3] w2, float[6,6,1,1] w3, float[12,4] v,
 float[6] b1, float[6] b2, float[6] b3,
 float[6] scale, float[6] shift, float[6] mean, float[6] var> {{
  a = Conv(x, w1{b1})
  r = Relu(a)
  m = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r)
  c = Conv<pads=[1,1,1,1]>(m, w2{b2})
  d = Conv(m, w3{b3})
  {norm}
  s = Add(n, d)
  u = Relu(s)
  q = Concat<axis=1>(u, m)
  t = Transpose<perm=[0,2,3,1]>(q)
  p = ReduceMean<axes=[1,2], keepdims=0>(t)
  z = MatMul(p, v)
}}
"""
WITH_BIAS = {"b1": ", b1", "b2": ", b2", "b3": ", b3"}
WITHOUT_BIAS = {"b1": "", "b2": "", "b3": ""}
IDENTITY = {"norm": "n = Identity(c)"}
NORM = {"norm": "n = BatchNormalization(c, scale, shift, mean, var)"}


def residual(**parts: str) -> onnx.ModelProto:
    return model(RESIDUAL.format(**parts))


def test_epsilon_conserves_relevance_where_no_bias_takes_part() -> None:
    mirror = mirror_of(residual(**WITHOUT_BIAS, **IDENTITY))
    x = images(mirror.graph.model, 3)
    found = every(mirror, x, [0, 1, 3], "epsilon")
    whole = sums(found, "z")[0]
    for layer in sums(found, "p t q r a x"):
        assert layer == pytest.approx(whole, rel=STABILISERS)
    cut = found["u"].flatten(1).sum(1) + found["q"][:, 6:].flatten(1).sum(1)
    assert cut.tolist() == pytest.approx(whole, rel=STABILISERS)


@pytest.mark.parametrize("norm", [IDENTITY, NORM], ids=["plain", "normalised"])
def test_zplus_conserves_relevance_also_with_biases(norm: dict[str, str]) -> None:
    mirror = mirror_of(residual(**WITH_BIAS, **norm), fold=False)
    x = images(mirror.graph.model, 3)
    found = every(mirror, x, [0, 1, 3], "zplus")
    start_sum = sums(found, "p")[0]
    for layer in sums(found, "t q"):
        assert layer == pytest.approx(start_sum, rel=STABILISERS)
    for pair in (("a", "r"), ("r", "m"), ("u", "s"), ("c", "n")):
        first, second = sums(found, " ".join(pair))
        assert first == pytest.approx(second, rel=STABILISERS)
    parts = np.add(*sums(found, "n d"))
    assert parts.tolist() == pytest.approx(sums(found, "s")[0], rel=STABILISERS)


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_folding_a_normalisation_does_not_change_what_is_before_and_behind(rule: str) -> None:
    proto = residual(**WITHOUT_BIAS, **NORM)
    x = images(proto, 3)
    found, merged = (every(mirror_of(proto, fold=f), x, [0, 1, 3], rule) for f in (False, True))
    assert torch.allclose(found["n"], merged["n"])
    if rule == "zplus":
        assert torch.allclose(found["c"], merged["c"])


def test_a_maximum_gives_all_to_the_winner() -> None:
    text = """
    g (float[N,2,4,4] x) => (float[N,4] z) {
      q = Neg(x)
      m = Max(x, q)
      p = MaxPool<kernel_shape=[4,2], strides=[4,2]>(m)
      z = Flatten(p)
    }
    """
    mirror = mirror_of(model(text))
    x = images(mirror.graph.model, 2)
    found = every(mirror, x, [0, 3], "epsilon")
    assert (found["m"] != 0).sum() == 8
    assert found["m"].sum(1).flatten().abs().sum() > 0
    assert torch.equal(found["x"], found["m"])  # Neg is an activation: it passes on what it gets


def test_a_copy_spreads_nothing_and_loses_nothing() -> None:
    text = """
    g (float[N,4,2,2] x) => (float[N,16] z) <float[1] none = {0}> {
      s, t = Split<axis=1>(x)
      c = Concat<axis=1>(t, s)
      d = DepthToSpace<blocksize=2>(c)
      z = Flatten(d)
    }
    """
    mirror = mirror_of(model(text))
    x = images(mirror.graph.model, 2)
    found = every(mirror, x, [0, 3], "epsilon")
    assert found["x"].flatten(1).sort(1).values.tolist() == found["z"].sort(1).values.tolist()


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


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_a_bias_added_by_a_node_is_a_bias(rule: str) -> None:
    text = SMALL.replace("float[6] b,", "float[6] b, float[4] e,")
    apart = text.format(out="s", tail="s = Add(e, z)")
    within = text.replace("z = MatMul(f, v)", "s = Gemm(f, v, e)").format(out="s", tail="")
    mirrors = [mirror_of(model(t)) for t in (apart, within)]
    x = images(mirrors[0].graph.model, 2)
    one, two = (every(mirror, x, [0, 3], rule)["f"] for mirror in mirrors)
    assert torch.allclose(one, two, rtol=1e-4)


# What cannot be crossed


def test_an_operator_without_relevance_is_refused_by_name() -> None:
    text = SMALL.format(out="z", tail="").replace("r = Relu(a)", "r = Softmax<axis=1>(a)")
    mirror = mirror_of(model(text))
    with pytest.raises(UnsupportedOp, match="Softmax 'r': LRP is not defined across Softmax"):
        every(mirror, images(mirror.graph.model, 1), [0], "epsilon")


def test_what_nobody_asks_for_is_not_crossed() -> None:
    text = SMALL.format(out="z", tail="").replace("r = Relu(a)", "r = Softmax<axis=1>(a)")
    mirror = mirror_of(model(text))
    x = images(mirror.graph.model, 1)
    found = relevance(mirror, x, np.array([0]), RULES["epsilon"], ["f", "r"])
    assert sorted(found) == ["f", "r"]


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


def test_a_tensor_that_relevance_does_not_reach_is_left_out() -> None:
    text = SMALL.format(out="z", tail="dead = Relu(r)")
    mirror = mirror_of(model(text))
    found = every(mirror, images(mirror.graph.model, 1), [0], "epsilon")
    assert "dead" not in found
    assert {"x", "a", "z"} <= found.keys()


def test_shape_arithmetic_carries_no_relevance() -> None:
    text = SMALL.format(out="z", tail="").replace(
        "f = Flatten(p)",
        "h = Shape<start=0, end=1>(x)  k = Concat<axis=0>(h, rest)  f = Reshape(p, k)",
    )
    mirror = mirror_of(model(text.replace("<float[6,3", "<int64[1] rest = {-1}, float[6,3")))
    plain = mirror_of(model(SMALL.format(out="z", tail="")))
    x = images(mirror.graph.model, 2)
    found, expected = (every(m, x, [0, 1], "epsilon") for m in (mirror, plain))
    assert torch.equal(found["x"], expected["x"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "beta",
            r"LRP rule 'beta': unknown; expected one of epsilon, zplus, gamma, alpha-beta, ep",
        ),
        ("beta@0-1", "LRP rule 'beta': unknown"),
        ("zplus@0-0.5", r"LRP rules 'zplus@0-0.5': end at 0.5; expected 1, the logits"),
        ("zplus@0-0.5,gamma@0.6-1", r"LRP rule 'gamma@0.6-1': expected to begin at 0.5 and to end"),
        ("zplus@0.5-0.2", r"LRP rule 'zplus@0.5-0.2': expected to begin at 0 "),
        (
            "zplus@0-2",
            r"LRP rule 'zplus@0-2': expected to begin at 0 and to end after it, at most a",
        ),
        ("zplus@0-0.5,epsilon", r"LRP rule 'epsilon': expected rule@from-to, such as zplus@0-0.5"),
        ("zplus,epsilon", r"LRP rule 'zplus,epsilon': unknown"),
    ],
)
def test_rules_that_say_nothing_clear_are_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(UnknownName, match=message) as caught:
        find_composite(text)
    assert "\n" not in str(caught.value)


# Rules over depth

DEEP = """
g (float[N,3,8,8] x) => (float[N,4] z)
<float[5,3,3,3] w1, float[5] b1, float[6,5,3,3] w2, float[6] b2, float[7,6,3,3] w3, float[7] b3,
 float[7,4] v> {
  a = Conv(x, w1, b1)
  r = Relu(a)
  b = Conv(r, w2, b2)
  s = Relu(b)
  c = Conv(s, w3, b3)
  t = Relu(c)
  p = GlobalAveragePool(t)
  f = Flatten(p)
  z = MatMul(f, v)
}
"""


def of_weight(weight: Tensor, x: Tensor) -> Tensor:
    """A convolution of one image, flat."""
    return torch.nn.functional.conv2d(x, weight)[0].flatten()


def test_rules_over_depth_are_each_rule_in_its_layers() -> None:
    """A layer's relevance at its input follows from that at its output by its own rule alone."""
    mirror = mirror_of(model(DEEP))
    x = images(mirror.graph.model, 3)
    mixed = every(
        mirror, x, [0, 1, 3], "gamma@0-.25,zplus@.25-0.5,alpha-beta@0.5-.75,epsilon@0.75-1"
    )
    env = mirror.trace(x)
    constants = {name: value.numpy() for name, value in mirror.constants.items()}
    ends = {
        "gamma": ("x", "a", "w1", "b1"),
        "zplus": ("r", "b", "w2", "b2"),
        "alpha-beta": ("s", "c", "w3", "b3"),
    }
    for rule, (before, after, weight, bias) in ends.items():
        for k in range(3):
            w = torch.from_numpy(constants[weight])
            value = env[before][k : k + 1]
            zero = torch.zeros_like(value)
            W = torch.autograd.functional.jacobian(partial(of_weight, w), zero)
            b = np.repeat(constants[bias], mixed[after][k, 0].numel())
            R = mixed[after][k].numpy().ravel()
            expected = REPLICAS[rule](value.numpy().ravel(), W.flatten(1).numpy(), b, R)
            np.testing.assert_allclose(
                mixed[before][k].numpy().ravel(), expected, rtol=EXACT, atol=EXACT
            )
    assert torch.equal(mixed["f"], every(mirror, x, [0, 1, 3], "epsilon")["f"])


def test_one_rule_all_the_way_is_that_rule() -> None:
    mirror = mirror_of(model(DEEP))
    x = images(mirror.graph.model, 3)
    one, split = (every(mirror, x, [0, 1, 3], r) for r in ("zplus", "zplus@0-0.3,zplus@0.3-1"))
    assert all(torch.equal(one[name], split[name]) for name in one)


def test_relevance_of_a_class_is_that_of_its_logit() -> None:
    """What is explained is the class that is asked for, whatever the image shows."""
    mirror = mirror_of(model(DEEP))
    x = images(mirror.graph.model, 1)
    logits = mirror(x)[0]
    shares = [every(mirror, x, [k], "epsilon")["f"][0] for k in range(4)]
    env, v = mirror.trace(x), mirror.constants["v"]
    for k, found in enumerate(shares):
        terms = (torch.eye(4, dtype=torch.float64)[k] - 1 / 4) * logits
        expected = env["f"][0] * (v @ (terms / terms.abs().sum() / (logits + EPS * logits.sign())))
        np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_single_precision_is_enough(rule: str) -> None:
    proto = residual(**WITH_BIAS, **NORM)
    x = images(proto, 3)
    exact = every(mirror_of(proto), x, [0, 1, 3], rule)
    single = every(folded(Mirror(Graph(proto), device="cpu")), x, [0, 1, 3], rule)
    for name in ("a", "c", "d"):
        assert single[name].dtype == torch.float32
        largest = exact[name].abs().max()
        assert (single[name] - exact[name]).abs().max() < 1e-3 * largest


# zennit

NETWORKS = {"vgg16": "VGGCanonizer", "resnet18": "ResNetCanonizer"}


def network(name: str) -> nn.Module:
    """A network with random weights; normalisation without epsilon, which zennit applies twice."""
    from onnxprune.converters.torchvision import import_torchvision

    torch.manual_seed(0xC0FFEE)
    net: nn.Module = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    if name == "vgg16":
        net.avgpool = nn.Identity()
        net.classifier = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.05)
    return net.eval()


def zennit_relevance(
    net: nn.Module, canonizer: str, rule: str, x: Tensor, y: Tensor
) -> list[Tensor]:
    """The relevance at the output of each convolution, in the order in which they run."""
    import zennit.torchvision
    from zennit.composites import LayerMapComposite, layer_map_base
    from zennit.rules import AlphaBeta, Epsilon, Gamma, ZPlus
    from zennit.types import Convolution

    hook = {
        "epsilon": Epsilon(),
        "zplus": ZPlus(zero_params="bias"),
        "gamma": Gamma(),
        "alpha-beta": AlphaBeta(),
    }[rule]
    composite = LayerMapComposite(
        layer_map=[*layer_map_base(), (Convolution, hook), (nn.Linear, hook)],
        canonizers=[getattr(zennit.torchvision, canonizer)()],
    )
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    with composite.context(net) as modified:
        convs = [m for m in modified.modules() if isinstance(m, nn.Conv2d)]
        handles = [conv.register_forward_hook(keep) for conv in convs]
        logits = modified(x.clone().requires_grad_())
        logits.backward(start(logits.detach(), y))
        for handle in handles:
            handle.remove()
    return [output.grad for output in outputs if output.grad is not None]


@pytest.fixture
def quiet() -> Iterator[None]:
    """The exporters and zennit warn of their own affairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", NETWORKS)
def test_filters_have_the_relevance_that_zennit_gives_them(name: str) -> None:
    from onnxprune.converters import Options
    from onnxprune.converters.pytorch import export_network

    net = network(name)
    options = Options(input_shape=(3, 32, 32), exporter="classic", keep_batchnorm=True)
    mirror = mirror_of(export_network(net, name, options).model)
    outputs = [filters.output for filters in find_groups(mirror.graph).filters]
    net = net.double()
    x, y = torch.randn(2, 3, 32, 32, dtype=torch.float64), torch.tensor([3, 7])
    for rule in REPLICAS:
        found = relevance(mirror, x, y, RULES[rule], outputs, reduce=lambda _, r: r.sum((2, 3)))
        expected = zennit_relevance(net, NETWORKS[name], rule, x, y)
        assert len(expected) == len(outputs) == {"vgg16": 13, "resnet18": 20}[name]
        for output, theirs in zip(outputs, expected, strict=True):
            theirs = theirs.sum((2, 3))
            difference = (found[output] - theirs).abs()
            assert theirs.abs().max() > 0
            assert (difference <= ORACLE * theirs.abs() + 1e-9 * theirs.abs().max()).all(), output


UNBIASED = ("mobilenet_v3_small", "convnext_tiny")


def unbiased(name: str) -> nn.Module:
    """A network whose activations are of the size of trained ones, and in which no bias adds."""
    from onnxprune.converters.torchvision import import_torchvision

    torch.manual_seed(0xBEE)
    net: nn.Module = import_torchvision().models.get_model(name, weights=None, num_classes=10)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 0.5
    with torch.no_grad():
        for _ in range(4 if norms else 0):
            net.train()(torch.randn(8, 3, 64, 64))
        for norm in norms:
            norm.running_mean.zero_()
        for key, value in net.named_parameters():
            if key.endswith("bias"):
                value.zero_()
    return net.eval()


@pytest.mark.slow
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", UNBIASED)
def test_whole_networks_lose_only_what_biases_and_the_stabiliser_take(name: str) -> None:
    from onnxprune.converters import Options
    from onnxprune.converters.pytorch import export_network

    options = Options(input_shape=(3, 64, 64), exporter="classic", keep_batchnorm=True)
    mirror = mirror_of(export_network(unbiased(name), name, options).model)
    outputs = [filters.output for filters in find_groups(mirror.graph).filters]
    logits = find_logits(mirror)
    exact = Rule("epsilon", epsilon=1e-13)
    composite = Composite("exact", (Span(1.0, exact, exact),))
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 64))
    found = relevance(mirror, x, np.array([1, 3]), composite, [logits, *outputs])
    assert set(outputs) <= found.keys()
    first, last = sums(found, f"{outputs[0]} {logits}")
    size = float(found[outputs[0]].abs().sum())
    assert first == pytest.approx(last, abs=1e-6 * max(size, 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rule", RULES)
def test_the_gpu_agrees(rule: str) -> None:
    proto = residual(**WITH_BIAS, **NORM)
    x = images(proto, 3)
    mirrors = [folded(Mirror(Graph(proto), device=d, dtype=torch.float64)) for d in ("cpu", "cuda")]
    expected, found = (every(mirror, x, [0, 1, 3], rule) for mirror in mirrors)
    assert torch.allclose(found["a"].cpu(), expected["a"], rtol=1e-6, atol=1e-12)
