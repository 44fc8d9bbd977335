"""LRP rules, judged by dense matrices that follow the papers' formulas."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from onnxprune.errors import UnknownName
from onnxprune.relevance.mirror import Mirror
from onnxprune.relevance.rules import (
    RULES,
    Composite,
    Layer,
    Rule,
    denominator,
    find_composite,
    whole_of,
)
from onnxprune.relevance.sharing import contributions
from tests.support.dense import DEEP, EXACT, REPLICAS, Array, every, mirror_of, replicate_zplus
from tests.support.models import images, model

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


FUNCTIONS = {
    "weighted": (1, lambda x: 3 * x),
    "handed on": (1, lambda x: x.view_as(x)),
    "one place for all": (1, lambda x: x.sum(1, keepdim=True)),
    "channels last": (1, lambda x: (2 * x.movedim(1, -1)).contiguous()),
    "a sum of two": (2, torch.add),
}


@pytest.mark.parametrize("again", [False, True], ids=["once", "again"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_contribution_is_an_input_times_its_gradient(name: str, again: bool) -> None:
    count, run = FUNCTIONS[name]
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(count)]
    values = [x.detach().clone() for x in inputs]
    output = run(*inputs)
    over = torch.randn(output.shape)
    gradients = torch.autograd.grad(output, inputs, over, retain_graph=True)
    expected = [x * g for x, g in zip(values, gradients, strict=True)]
    for _ in range(1 + again):
        for found, wanted in zip(
            contributions(inputs, [output], [over.clone()], again=again), expected, strict=True
        ):
            torch.testing.assert_close(found, wanted)
    for x, value in zip(inputs, values, strict=True):
        torch.testing.assert_close(x.detach(), value, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("rule", "filters"),
    [
        ("epsilon-plus", "zplus"),
        ("epsilon-alpha2-beta1", "alpha-beta"),
        ("epsilon-gamma-box", "gamma"),
    ],
)
def test_a_mixed_rule_is_its_own_on_convolutions_and_epsilon_on_matrices(
    rule: str, filters: str
) -> None:
    x = np.random.default_rng(2).normal(size=(2, 4, 3, 3))
    for layer, same in (("conv", filters), ("gemm", "epsilon")):
        mirror = mirror_of(model(ONE_LAYER.format(layer=LAYERS[layer])))
        found, expected = (every(mirror, x, [0, 1], r)["x"] for r in (rule, same))
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


# Rules over depth


def of_weight(weight: Tensor, x: Tensor) -> Tensor:
    """A convolution of one image, flat."""
    return torch.nn.functional.conv2d(x, weight)[0].flatten()


def test_the_two_sides_of_alpha_beta_add_up_to_the_layer() -> None:
    rule = RULES["alpha-beta"].at(0.5, filters=True)
    whole = {name for name, one in RULES.items() if one.at(0.5, filters=True).is_whole}
    assert whole == {"alpha-beta", "epsilon-alpha2-beta1"}
    assert not replace(rule, bias=False).is_whole
    assert not Rule("falling", rule.branches[1:]).is_whole
    rng = np.random.default_rng(0)
    x, w, b = (torch.from_numpy(rng.standard_normal(size)) for size in ((5, 4), (4, 3), 3))
    layer = Layer(lambda given: given[0] @ given[1] + given[2], (x, w, b), 0, (1,), (2,))
    for one in (layer, replace(layer, arguments=(x.abs(), w, b))):
        found = whole_of([denominator(rule, branch, one) for branch in rule.branches])
        torch.testing.assert_close(found, one.run(one.arguments), rtol=EXACT, atol=EXACT)


def test_what_is_needed_briefly_is_written_over() -> None:
    """A thread keeps memory for modified weights, not for those that another walk needs."""
    rule = RULES["alpha-beta"].at(0.5, filters=True)
    x, w, b = torch.ones(2, 3), torch.tensor([[1.0, -1], [2, -2], [-3, 3]]), torch.zeros(2)
    seen = list[torch.Tensor]()

    def run(given: Sequence[Any]) -> torch.Tensor:
        seen.append(given[1])
        product: torch.Tensor = given[0] @ given[1] + given[2]
        return product

    layer = Layer(run, (x, w, b), 0, (1,), (2,))
    for briefly, places in ((True, 1), (False, 2)):
        seen.clear()
        for branch in rule.branches:
            made = denominator(rule, branch, layer, briefly=briefly)
            assert torch.equal(seen[-1], branch.terms[0].modify(w))
            assert torch.equal(made.z.detach(), x @ seen[-1])
        assert len({one.data_ptr() for one in seen}) == places


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
    torch.testing.assert_close(
        mixed["f"], every(mirror, x, [0, 1, 3], "epsilon")["f"], rtol=EXACT, atol=EXACT
    )


def test_a_layer_on_a_border_has_the_rule_that_begins_there() -> None:
    mirror = mirror_of(model(ONE_LAYER.format(layer=LAYERS["conv"])))  # its depth is 1/2
    x = images(mirror.graph.model, 2)
    found, expected = (
        every(mirror, x, [0, 1], r)["x"] for r in ("zplus@0-0.5,epsilon@0.5-1", "epsilon")
    )
    assert torch.equal(found, expected)


def test_one_rule_all_the_way_is_that_rule() -> None:
    mirror = mirror_of(model(DEEP))
    x = images(mirror.graph.model, 3)
    one, split = (every(mirror, x, [0, 1, 3], r) for r in ("zplus", "zplus@0-0.3,zplus@0.3-1"))
    assert all(torch.equal(one[name], split[name]) for name in one)


# What is refused


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


def test_a_rule_of_ones_own_is_named_by_its_function(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from onnxprune.relevance import RULES\n"
        "def mine(): return RULES['gamma']\n"
        "def number(): return 3\n"
    )
    assert find_composite(f"{file}:mine") is RULES["gamma"]
    with pytest.raises(UnknownName, match="returns int; expected a function without arguments"):
        find_composite(f"{file}:number")


def test_one_rule_serves_all_layers_unless_two_are_given() -> None:
    one, other = Rule("one"), Rule("other")
    assert Composite.of(one).at(0.5, filters=False) is one
    assert Composite.of(one, other).at(0.5, filters=False) is other
    assert Composite.of(one, other, name="both").name == "both"
