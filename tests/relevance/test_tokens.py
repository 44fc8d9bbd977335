"""Where the samples of a tensor do not come first, filters are measured sample by sample."""

import numpy as np
import pytest

from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.relevance import Meter, find_composite, score
from tests.support.models import images, model, run

CLASSES = ("a", "b", "c")
NET = """
g (float[N,3,4,4] x) => (float[N,3] y)
<float[6,3,1,1] w, float[6,8] v, float[8,6] u, float[6,3] z> {{
  a = Conv(x, w)
  t = Transpose<perm=[0,2,3,1]>(a)
  {before}
  m = MatMul(f, v)
  r = Relu(m)
  o = MatMul(r, u)
  {after}
  e = ReduceMean<axes=[1,2], keepdims=0>(i)
  y = MatMul(e, z)
}}
"""
IMAGES = NET.format(before="f = Identity(t)", after="i = Identity(o)")
"""Samples first."""
FOLDED = NET.format(
    before="s = Constant<value_ints=[-1,6]>()\n  f = Reshape(t, s)",
    after="q = Constant<value_ints=[-1,4,4,6]>()\n  i = Reshape(o, q)",
)
"""Tokens of all samples one under another."""
SECOND = NET.format(
    before="s = Constant<value_ints=[0,16,6]>()\n  p = Reshape(t, s)\n  "
    "f = Transpose<perm=[1,0,2]>(p)",
    after="n = Transpose<perm=[1,0,2]>(o)\n  q = Constant<value_ints=[0,4,4,6]>()\n  "
    "i = Reshape(n, q)",
)
"""Tokens, samples, units."""
LAYOUTS = {"folded": FOLDED, "second": SECOND}


def samples(count: int = 16) -> Data:
    """As many as there are tokens, so that one may be taken for the other."""
    x = images(model(IMAGES), count)
    return Data(x, np.arange(count) % 3, CLASSES)


@pytest.mark.parametrize("criterion", ["lrp", "taylor", "gradient", "activation"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_do_not_depend_on_where_samples_lie(layout: str, criterion: str) -> None:
    data, tables = samples(), []
    np.testing.assert_allclose(
        run(model(LAYOUTS[layout]), data.x)[0], run(model(IMAGES), data.x)[0], rtol=1e-5
    )
    for text in (IMAGES, LAYOUTS[layout]):
        graph = Graph(model(text))
        groups = find_groups(graph, also=("dense",))
        tables.append(score(graph, groups, data, criterion, device="cpu").values)
    np.testing.assert_allclose(*tables, rtol=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damage_does_not_depend_on_where_samples_lie(layout: str) -> None:
    data, found = samples(), []
    for text in (IMAGES, LAYOUTS[layout]):
        graph = Graph(model(text))
        meter = Meter(graph, data, find_composite("epsilon"), device="cpu")
        damage = meter(graph, find_groups(graph, also=("dense",)))
        found.append(damage.effects @ damage.effects.T)
    np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4 * np.abs(found[0]).max())
