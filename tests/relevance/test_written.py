"""Relevance through values that are written over others, or combined with them."""

import pytest
import torch

from onnxprune.errors import UnsupportedOp
from tests.support.dense import EXACT, every, mirror_of
from tests.support.models import images, model

NET = """
net (float[1,3,6,6] x) => (float[1,4] z)
<float[4,3,1,1] w, float[4,3,1,1] e, float[4,4] v,
 int64[1,1] row = {{0}}, int64[1] zero = {{0}}, int64[4] shape = {{1, 4, 6, 6}}> {{
  a = Conv(x, w)
  b = Conv(x, e)
  rows = Expand(zero, shape)
  h = {node}
  p = GlobalAveragePool(h)
  f = Flatten(p)
  z = MatMul(f, v)
}}
"""
WRITES = {
    "ScatterND": 'ScatterND<reduction="{}">(a, row, b)',
    "ScatterElements": 'ScatterElements<axis=0, reduction="{}">(a, rows, b)',
}


def found(node: str, rule: str) -> dict[str, torch.Tensor]:
    mirror = mirror_of(model(NET.format(node=node)))
    return every(mirror, images(mirror.graph.model, 1), [0], rule)


@pytest.mark.parametrize("rule", ["epsilon", "zplus"])
@pytest.mark.parametrize(("how", "same"), [("add", "Add"), ("max", "Max"), ("min", "Min")])
@pytest.mark.parametrize("operator", WRITES)
def test_a_combination_with_the_whole_is_the_operator_of_two(
    operator: str, how: str, same: str, rule: str
) -> None:
    written = found(WRITES[operator].format(how), rule)
    expected = found(f"{same}(a, b)", rule)
    for name in ("a", "b"):
        torch.testing.assert_close(written[name], expected[name], rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("operator", WRITES)
def test_a_product_with_what_is_there_is_refused_by_name(operator: str) -> None:
    with pytest.raises(UnsupportedOp, match=f"LRP is not defined across {operator}"):
        found(WRITES[operator].format("mul"), "epsilon")
