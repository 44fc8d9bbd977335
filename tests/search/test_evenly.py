"""Without samples every layer loses the same share of its filters."""

import numpy as np
import pytest

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.ranking import quantiles
from tests.support.models import model
from tests.support.runs import samples
from tests.support.small_net import Small

UNLIKE = """
net (float[N,3,4,4] x) => (float[N,5,4,4] y)
<float[40,3,1,1] w1, float[20,40,1,1] w2, float[10,20,1,1] w3, float[5,10,1,1] w4> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  c = Conv(b, w3)
  y = Conv(c, w4)
}
"""
"""Its first layer has the smallest kernels, so one ranking of all would empty it first."""


@pytest.mark.parametrize("criterion", ["magnitude", "geometric-median", "random"])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.7])
def test_each_layer_loses_the_rate(criterion: str, rate: float) -> None:
    asked = {"control": "one-shot", "criterion": criterion, "rate": rate, "round_to": 1}
    lost = [
        layer["removed"] / layer["filters"]
        for layer in onnxprune.prune(model(UNLIKE), **asked).report["layers"][:3]
    ]
    assert lost == pytest.approx([rate] * 3, abs=0.1)
    once = onnxprune.prune(model(UNLIKE), **asked, evenly="never").report["layers"]
    if criterion == "magnitude":
        assert once[0]["removed"] / 40 > rate


def test_within_a_layer_the_ranking_holds() -> None:
    groups = find_groups(Graph(model(UNLIKE)))
    scores = np.random.default_rng(0).random(len(groups))
    places = quantiles(groups, scores)
    for group in range(3):
        own = groups.group == group
        assert (np.argsort(places[own]) == np.argsort(scores[own])).all()
        assert np.sort(places[own]) == pytest.approx((np.arange(own.sum()) + 0.5) / own.sum())


def test_with_samples_layers_are_compared(small: Small) -> None:
    asked = {"control": "one-shot", "rate": 0.5, "round_to": 1, "threads": 1}
    plans = {
        evenly: onnxprune.prune(small.proto, samples(small), **asked, evenly=evenly).plan
        for evenly in ("auto", "always", "never")
    }
    assert plans["auto"] == plans["never"]
    lost = [len(filters) for filters in plans["always"].removed.values()]
    assert sorted(lost) == [3, 4]
