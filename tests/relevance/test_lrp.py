"""Where relevance starts, what conserves it, where it ends, and in which precision."""

import numpy as np
import pytest
import torch

from onnxprune.errors import DataError, UnsupportedOp
from onnxprune.graph.graph import Graph
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.lrp import relevance, start
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.routes import find_logits
from onnxprune.relevance.rules import RULES
from tests.support.dense import (
    DEEP,
    EPS,
    NORM,
    STABILISERS,
    WITH_BIAS,
    every,
    mirror_of,
    residual,
    sums,
)
from tests.support.models import images, model

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

WITHOUT_BIAS = {"b1": "", "b2": "", "b3": ""}
IDENTITY = {"norm": "n = Identity(c)"}


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


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
def test_a_bias_added_by_a_node_is_a_bias(rule: str) -> None:
    text = SMALL.replace("float[6] b,", "float[6] b, float[4] e,")
    apart = text.format(out="s", tail="s = Add(e, z)")
    within = text.replace("z = MatMul(f, v)", "s = Gemm(f, v, e)").format(out="s", tail="")
    mirrors = [mirror_of(model(t)) for t in (apart, within)]
    x = images(mirrors[0].graph.model, 2)
    one, two = (every(mirror, x, [0, 3], rule)["f"] for mirror in mirrors)
    assert torch.allclose(one, two, rtol=1e-4)


def test_a_constant_behind_an_activation_takes_a_share_by_rules_with_biases_alone() -> None:
    shifted = "q = Relu(a)\n  k = Constant<value_float = 0.5>()\n  r = Add(q, k)"
    mirror = mirror_of(model(SMALL.format(out="z", tail="").replace("r = Relu(a)", shifted)))
    x = images(mirror.graph.model, 2)
    for rule, same in (("zplus", True), ("epsilon", False)):
        found = every(mirror, x, [0, 3], rule)
        assert torch.equal(found["q"], found["r"]) == same


# What cannot be crossed


def test_an_operator_without_relevance_is_refused_by_name() -> None:
    text = SMALL.format(out="z", tail="").replace("r = Relu(a)", "r = Hardmax<axis=1>(a)")
    mirror = mirror_of(model(text))
    with pytest.raises(UnsupportedOp, match="Hardmax 'r': LRP is not defined across Hardmax"):
        every(mirror, images(mirror.graph.model, 1), [0], "epsilon")


def test_what_nobody_asks_for_is_not_crossed() -> None:
    text = SMALL.format(out="z", tail="").replace("r = Relu(a)", "r = Hardmax<axis=1>(a)")
    mirror = mirror_of(model(text))
    x = images(mirror.graph.model, 1)
    found = relevance(mirror, x, np.array([0]), RULES["epsilon"], ["f", "r"])
    assert sorted(found) == ["f", "r"]


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


# Precision


@pytest.mark.parametrize("rule", RULES)
def test_single_precision_is_enough(rule: str) -> None:
    proto = residual(**WITH_BIAS, **NORM)
    x = images(proto, 3)
    exact = every(mirror_of(proto), x, [0, 1, 3], rule)
    single = every(folded(Mirror(Graph(proto), device="cpu")), x, [0, 1, 3], rule)
    for name in ("a", "c", "d"):
        assert single[name].dtype == torch.float32
        largest = exact[name].abs().max()
        assert (single[name] - exact[name]).abs().max() < 1e-5 * largest
