"""What looks like a shuffle and is none: one that is read in between, or that does more."""

import numpy as np
import pytest

from onnxprune.channels import find_groups, find_shuffles
from onnxprune.graph import Graph
from tests.support.assertions import check_pruned, some
from tests.support.models import model

SHUFFLED = """
g (float[N,3,H,8] x) => (float[N,2,H,8] y{output})
<float[8,3,1,1] w, float[2,8,1,1] v> {{
  a = Conv(x, w)
  s = Constant<value_ints=[{split}]>()  r = Reshape(a, s)
  t = Transpose<perm=[{order}]>(r)
  q = Constant<value_ints=[0,8,-1,8]>()  u = Reshape(t, q)
  {more}
  y = Conv(u, v)
}}
"""
CHANNELS = {"split": "0,2,4,-1,8", "order": "0,2,1,3,4", "output": "", "more": ""}
"""Of two groups of four channels the first, the second and so on."""


def shuffled(**changed: str) -> Graph:
    return Graph(model(SHUFFLED.format(**{**CHANNELS, **changed})))


def test_a_shuffle_is_seen() -> None:
    (found,) = find_shuffles(shuffled()).found
    assert (found.source, found.axis) == ("a", 1)
    assert found.taken.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


NONE = {
    "read in between": {
        "output": ", float[N] z",
        "more": "z = ReduceMean<axes=[1,2,3,4], keepdims=0>(t)",
    },
    "returned in between": {"output": ", float[N,4,2,H,8] t"},
    "of two axes": {"split": "0,2,4,-1,2,4", "order": "0,2,1,3,5,4"},
    "of an axis that is open": {"split": "0,8,2,-1,8", "order": "0,1,3,2,4"},
}


@pytest.mark.parametrize("changed", NONE.values(), ids=NONE)
def test_what_is_no_shuffle(changed: dict[str, str]) -> None:
    """What may go then goes without harm, at every height."""
    graph = shuffled(**changed)
    assert find_shuffles(graph).found == ()
    groups = find_groups(graph)
    dead = some(groups, 0.3, seed=0) if groups.removable.any() else np.zeros(len(groups), np.bool_)
    check_pruned(graph, groups, dead, sizes=(8, 12))
