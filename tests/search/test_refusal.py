"""A target out of reach: what is said is true, and what is advised works."""

import re
from typing import Any

import pytest

import onnxprune
from onnxprune.errors import InvalidModel, UnreachableTarget
from onnxprune.report import inspection
from tests.support.models import model

FREE: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude"}
NET = """
net (float[N,3,4,4] x) => (float[N,2,4,4] y)
<float[8,3,1,1] w, float[8,8,1,1] u, float[2,8,1,1] v> {{
  a = Conv(x, w)
  b = {}(a)
  c = Conv(b, u)
  d = {}(c)
  y = Conv(d, v)
}}
"""
DENSE = """
net (float[N,3,4,4] x) => (float[N,5] y) <float[4,3,1,1] w, float[64,40] u, float[40,5] v> {
  a = Conv(x, w)
  f = Flatten(a)
  b = Gemm(f, u)
  r = Relu(b)
  y = Gemm(r, v)
}
"""
NORM = "Softmax<axis=1>"
MEAN = "LpNormalization<axis=1>"


def refused(text: str, **asked: Any) -> str:
    with pytest.raises(UnreachableTarget) as error:
        onnxprune.prune(model(text), **{**FREE, **asked})
    return str(error.value)


@pytest.mark.parametrize(
    ("first", "second", "advised", "more"),
    [
        (NORM, "Relu", "softmax", 8),
        (NORM, NORM, "softmax", 16),
        (NORM, MEAN, "softmax,lpnormalization", 16),
    ],
)
def test_the_operators_that_hold_back_are_named_with_the_option(
    first: str, second: str, advised: str, more: int
) -> None:
    text = NET.format(first, second)
    said = refused(text, macs=0.1)
    assert f"use --allow-inexact {advised}, which lets {more} more filters go" in said
    found = onnxprune.prune(model(text), **FREE, rate=0.5, allow_inexact=advised.split(","))
    assert found.report["rate"] >= 0.5
    listed = inspection.inspect(model(text))["groups"][0]["reason"]
    assert listed.endswith("(--allow-inexact softmax lifts this)")


def test_what_is_allowed_already_is_named_with_what_is_missing() -> None:
    said = refused(NET.format(NORM, MEAN), macs=0.05, allow_inexact=["softmax"])
    assert "use --allow-inexact softmax,lpnormalization, which lets 8 more filters go" in said


def test_where_nothing_may_go_less_is_no_way_out() -> None:
    said = refused(NET.format(NORM, NORM), macs=0.5)
    assert "rate 0.000" in said
    assert "ask for less" not in said
    stuck = (
        NET.format("TopK<axis=1>", "Relu")
        .replace("b = TopK<axis=1>(a)", "k = Constant<value_ints=[8]>() b, i = TopK<axis=1>(a, k)")
        .replace("d = Relu(c)", "d, j = TopK<axis=1>(c, k)")
    )
    assert refused(stuck, macs=0.5).endswith("no filter may go")


@pytest.mark.parametrize("asked", ["params", "macs"])
def test_dense_layers_are_named_with_their_share(asked: str) -> None:
    said = refused(DENSE, **{asked: 0.1})
    (share, left) = re.search(r"; (\d+) % of the (\S+) that are left", said).groups()
    found = onnxprune.prune(model(DENSE), **FREE, rate=0.75).report["after"]
    rest = {"params": 1 * 3, "macs": 1 * 3 * 16}[asked]
    assert int(share) == round(100 * (1 - rest / found[asked]))
    assert left == {"params": "parameters", "macs": "multiply-adds"}[asked]
    assert "dense layers" in said


def test_dense_layers_are_not_named_where_they_hold_nothing_back() -> None:
    assert "dense" not in refused(DENSE, rate=1.0)
    assert "dense" not in refused(NET.format("Relu", "Relu"), params=0.01)


def test_a_network_of_dense_layers_says_so() -> None:
    text = "net (float[N,4] x) => (float[N,2] y) <float[4,2] v> { y = Gemm(x, v) }"
    with pytest.raises(
        InvalidModel, match=r"has no convolutions, .*; its dense layers are pruned with"
    ):
        onnxprune.prune(model(text), **FREE, rate=0.5)


def test_a_figure_differs_from_what_was_asked_for() -> None:
    whole = 8 * 3 + 8 * 8 + 2 * 8
    least = 1 * 3 + 1 * 1 + 2 * 1
    for close in (1e-4, 1e-6, 1e-9):
        said = refused(NET.format("Relu", "Relu"), params=least / whole - close)
        written = re.search(r"params 6 \((\S+)\)", said)[1]
        assert float(written) > least / whole - close
        assert float(written) == pytest.approx(least / whole, abs=close)
    assert "params 6 (0.058)" in refused(NET.format("Relu", "Relu"), params=0.01)


def test_an_option_that_frees_nothing_is_not_advised() -> None:
    """What feeds the Softmax is added to an output as well, and stays for that."""
    text = NET.format(NORM, "Relu").replace(
        "float[N,2,4,4] y)", "float[N,2,4,4] y, float[N,8,4,4] s)"
    )
    said = refused(text.replace("b = Softmax", "s = Neg(a) b = Softmax"), macs=0.1)
    assert "lets" not in said
    assert said.endswith("ask for less")


def test_a_percentage_that_was_taken_for_a_figure_is_told_as_a_share() -> None:
    text = NET.format("Relu", "Relu")
    assert "for 50 % of macs, give 0.5" in refused(text, macs=50)
    assert "for 1.5 % of params, give 0.015" in refused(text, params=1.5)
    assert "give" not in refused(text, macs=0.001)
    assert "give" not in refused(text, size=101)
