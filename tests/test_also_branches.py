"""Runs in which whole branches go."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.channels import find_groups
from onnxprune.graph import Graph
from onnxprune.search import Limits, Picker
from tests.support.models import images, model, relative_error, run

NET = """
g (float[N,3,6,6] x) => (float[N,4] y)
<float[8,3,3,3] w, float[6,8,3,3] v, float[8,6,3,3] u, float[5,8,1,1] s, float[8,5,1,1] t,
 float[8,4] z> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  b = Relu(a)
  c = Conv<pads=[1,1,1,1]>(b, v)
  d = Relu(c)
  e = Conv<pads=[1,1,1,1]>(d, u)
  f = Add(b, e)
  g = Conv(f, s)
  h = Relu(g)
  i = Conv(h, t)
  j = Add(f, i)
  p = GlobalAveragePool(j)
  q = Flatten(p)
  y = Gemm(q, z)
}
"""
"""Two residual blocks, of 6 and 5 filters; the first adds next to nothing."""


@pytest.fixture(scope="module")
def net() -> ModelProto:
    proto = model(NET)
    for tensor in proto.graph.initializer:
        if tensor.name == "u":
            array = numpy_helper.to_array(tensor) * np.float32(1e-5)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return proto


def samples(proto: ModelProto) -> tuple[np.ndarray, np.ndarray]:
    x = images(proto, 80)
    return x, run(proto, x)[0].argmax(1)


@pytest.mark.parametrize("control", ["one-shot", "iterative", "accuracy-aware"])
@pytest.mark.parametrize("compensate", ["none", "bias", "least-squares"])
def test_a_branch_that_does_nothing_goes(
    net: ModelProto, control: str, compensate: str, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"control": control, "compensate": compensate, "round_to": 1}
    x, y = samples(net)
    found = onnxprune.prune(net, (x, y), **asked, include=["c"], rate=1.0, also=("branches",))
    assert found.plan.removed == {"c": tuple(range(6))}
    assert "c" not in {name for node in found.model.graph.node for name in node.output}
    assert found.report["after"]["accuracy"]["harmonic"] == 1.0
    assert relative_error(run(found.model, x)[0], run(net, x)[0]) < 1e-3
    again = onnxprune.apply(net, found.plan.save(tmp_path / "plan.json"))
    assert relative_error(run(again, x)[0], run(net, x)[0]) < 1e-3


@pytest.mark.parametrize("compensate", ["none", "bias", "least-squares"])
def test_a_search_goes_on_after_branches_went(net: ModelProto, compensate: str) -> None:
    """Every filter that may go is gone in the end, in steps that rank what is left."""
    options: dict[str, Any] = {"compensate": compensate, "round_to": 1, "trust_baseline": True}
    found = onnxprune.prune(net, samples(net), **options, rate=32 / 35, also=("branches",))
    removed = {name: len(numbers) for name, numbers in found.plan.removed.items()}
    assert removed["c"] == 6
    assert removed["g"] == 5
    kinds = [node.op_type for node in found.model.graph.node]
    assert kinds.count("Conv") == 1


def test_without_the_option_one_filter_stays(net: ModelProto) -> None:
    found = onnxprune.prune(net, samples(net), rate=6 / 35, round_to=1, compensate="none")
    assert len(found.plan.removed["c"]) == 5


def test_a_branch_keeps_the_channels_that_are_asked_for(net: ModelProto) -> None:
    groups = find_groups(Graph(net), also=("branches",))
    most = [Picker(groups, Limits(min_channels=n, round_to=1)).most() for n in (1, 2)]
    assert [[int(dead[axis].sum()) for axis in groups.whole] for dead in most] == [[6, 5], [4, 3]]
