"""Runs that let the units of dense layers go: plan, report, corrections, command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.cli.commands import main
from onnxprune.errors import InvalidPlan
from onnxprune.search import Plan
from tests.support.models import images, model, relative_error, run

EXACT = 1e-5
"""Relative, in single precision."""
ONCE: dict[str, Any] = {"control": "one-shot", "compensate": "none", "also": ("dense",)}

NET = """
g (float[N,3,4,4] x) => (float[N,4] y)
<float[8,3,3,3] w, float[32,16] v, float[16] b, float[16,12] m, float[12] c, float[12,4] u> {
  a = Conv(x, w)
  r = Relu(a)
  f = Flatten(r)
  h = Gemm(f, v, b)
  i = Relu(h)
  d = MatMul(i, m)
  e = Add(d, c)
  s = Relu(e)
  y = Gemm(s, u)
}
"""
"""8 filters, 16 and 12 units."""


def samples(proto: ModelProto, count: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Images, and what the model says of them."""
    x = images(proto, count)
    return x, run(proto, x)[0].argmax(1)


def test_a_run_counts_units_apart_and_its_plan_is_replayed(tmp_path: Path) -> None:
    proto = model(NET)
    found = onnxprune.prune(proto, **ONCE, criterion="magnitude", rate=0.5, round_to=1)
    before, after = found.report["before"], found.report["after"]
    assert (before["filters"], before["units"]) == (8, 16 + 12 + 4)
    gone = {layer["name"]: layer["removed"] for layer in found.report["layers"]}
    kinds = {layer["name"]: layer["kind"] for layer in found.report["layers"]}
    assert kinds == {"a": "convolution", "h": "dense", "d": "dense", "y": "dense"}
    assert after["filters"] == 8 - gone["a"]
    assert after["units"] == 32 - gone["h"] - gone["d"]
    assert sum(gone.values()) == 18
    assert found.report["rate"] == 0.5
    assert len(found.plan) == 18
    plan = found.plan.save(tmp_path / "plan.json")
    assert json.loads(plan.read_text())["also"] == ["dense"]
    x = images(proto, 3)
    small, zero = (onnxprune.apply(proto, plan, masked=masked) for masked in (False, True))
    np.testing.assert_array_equal(run(small, x)[0], run(found.model, x)[0])
    assert relative_error(run(small, x)[0], run(zero, x)[0]) < EXACT


def test_without_the_option_nothing_of_it_is_said() -> None:
    found = onnxprune.prune(model(NET), control="one-shot", criterion="magnitude", rate=0.5)
    assert [layer["name"] for layer in found.report["layers"]] == ["a"]
    assert "units" not in found.report["before"]
    assert "also" not in found.plan.to_json()


@pytest.mark.parametrize("control", ["one-shot", "accuracy-aware"])
def test_relevance_ranks_units(control: str) -> None:
    """Half of the units copy others, so that half of the net can go without a loss."""
    proto = model(NET)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name == "u":
            array[6:] *= 1e-4
        if tensor.name == "m":
            array[8:] *= 1e-4
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    asked = ONCE | {"control": control}
    found = onnxprune.prune(proto, samples(proto), **asked, rate=14 / 36, round_to=1, exclude=["a"])
    assert set(found.plan.removed["h"]) == set(range(8, 16))
    assert set(found.plan.removed["d"]) == set(range(6, 12))
    assert found.report["after"]["accuracy"]["harmonic"] == 1.0


def test_least_squares_gives_what_reads_units_the_part_of_those_that_are_gone() -> None:
    """Two units that are alike: one takes over what the other was read with."""
    proto = model(NET)
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("v", "b"):
            array[..., 8:] = array[..., :8]
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    asked = ONCE | {"compensate": "least-squares"}
    data = samples(proto)
    found = onnxprune.prune(
        proto, data, **asked, criterion="random", include=["h"], rate=1 / 36, round_to=1, ridge=1e-6
    )
    assert found.report["corrected"]
    assert relative_error(run(found.model, data[0])[0], run(proto, data[0])[0]) < 1e-3


def test_a_plan_of_units_says_what_it_was_made_with() -> None:
    proto = model(NET)
    with pytest.raises(InvalidPlan, match="no convolution 'h'"):
        onnxprune.apply(proto, Plan({"h": (1,)}))
    assert onnxprune.apply(proto, Plan({"h": (1,)}, also=("dense",))) != proto
    with pytest.raises(InvalidPlan, match="plan: also 'dens'"):
        Plan.from_json('{"format": 1, "also": ["dens"], "removed": {}}')


def test_the_command_line_takes_the_option(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model(NET), path)

    def call(*words: object) -> str:
        result = CliRunner().invoke(main, list(map(str, words)))
        assert result.exit_code == 0, result.output
        return str(result.stdout)

    found = json.loads(call("inspect", path, "--also", "dense", "--json"))
    assert (found["filters"], found["removable_filters"], found["coverage"]) == (8, 8, 1.0)
    assert (found["units"], found["removable_units"]) == (32, 28)
    assert "32 dense units, of which 28 (87.5 %) may go" in call("inspect", path, "--also", "dense")
    plan, small, again = (tmp_path / name for name in ("plan.json", "s.onnx", "a.onnx"))
    free = ("--control", "one-shot", "--criterion", "magnitude", "--rate", "0.5", "--also", "dense")
    assert "Dense units" in call("prune", path, "-o", small, *free, "--plan", plan)
    call("apply", path, plan, "-o", again)
    assert onnx.load(again).graph.initializer == onnx.load(small).graph.initializer


def test_a_net_without_convolutions_is_pruned_and_compared() -> None:
    text = """
    g (float[N,6] x) => (float[N,4] y) <float[6,16] v, float[16] b, float[16,4] u> {
      h = Gemm(x, v, b)
      r = Relu(h)
      y = Gemm(r, u)
    }
    """
    proto = model(text)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    data = (x, run(proto, x)[0].argmax(1))
    found = onnxprune.prune(proto, data, also=("dense",), rate=0.25, round_to=1)
    assert found.report["after"]["units"] == 12 + 4
    compared = onnxprune.compare(proto, found.model, data)
    assert compared["after"]["params"] == found.report["after"]["params"]
