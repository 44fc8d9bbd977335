"""Latency as a figure: lines through times that are formulas of widths."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import find_groups
from onnxprune.errors import RunDirectoryError
from onnxprune.graph.graph import Graph
from onnxprune.search.journal import RunDirectory
from onnxprune.search.latency import SHARES, Latency, measure_latency
from onnxprune.search.limits import Limits
from onnxprune.search.picker import Picker
from onnxprune.surgery.cost import find_costs
from onnxprune.surgery.removal import remove_channels
from tests.support.models import model

NET = """
net (float[N,3,8,8] x) => (float[N,4] y)
<float[24,3,3,3] w, float[24] b, float[16,24,1,1] v, float[16,16,1,1] t, float[4,16] h> {
  a = Conv<pads=[1,1,1,1]>(x, w, b)
  r = Relu(a)
  e = Conv(r, v)
  k = Conv(e, t)
  s = Add(k, e)
  q = Relu(s)
  g = GlobalAveragePool(q)
  f = Flatten(g)
  y = Gemm<transB=1>(f, h)
}
"""
GRAPH = Graph(model(NET))
GROUPS = find_groups(GRAPH)
COSTS = find_costs(GRAPH, GROUPS)
PICKER = Picker(GROUPS, Limits(), 8)


def widths(proto: ModelProto) -> dict[str, list[int]]:
    return {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}


def formula(proto: ModelProto) -> Mapping[str, float]:
    """Times by the widths: `r` stands for `a` and `r`, `q` for `k`, `s` and `q`; `e` is itself."""
    out, inner = widths(proto)["w"][0], widths(proto)["v"][0]
    return {
        "r": 0.5 + 0.002 * 27 * out,
        "e": 0.003 * out * inner,
        "q": 0.001 * inner * inner + 0.01 * inner,
        "Reorder": 0.25,
        "": 0.125,
    }


def some(rng: np.random.Generator) -> BoolArray:
    dead = rng.random(len(GROUPS)) < 0.5
    dead[np.unique(GROUPS.group, return_index=True)[1]] = False
    return dead & GROUPS.removable


def test_times_that_follow_widths_are_found_again_for_every_net() -> None:
    figure = measure_latency(GRAPH, COSTS, PICKER, formula).figure(GRAPH, GROUPS)
    rng = np.random.default_rng(2)
    for _ in range(20):
        dead = some(rng)
        true = sum(formula(remove_channels(GRAPH, GROUPS, dead)).values())
        assert figure.of(dead) == pytest.approx(true, rel=2e-2)


def test_the_check_says_how_far_off_the_lines_are(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert measure_latency(GRAPH, COSTS, PICKER, formula).error < 1e-3
    assert "a latency of" in caplog.text
    turns = iter(range(100))

    def jumps(proto: ModelProto) -> Mapping[str, float]:
        return {**formula(proto), "": 50.0 * (next(turns) == 7)}

    assert measure_latency(GRAPH, COSTS, PICKER, jumps).error == pytest.approx(1, abs=0.2)


SPLIT = """
net (float[N,3,8,8] x) => (float[N,4,8,8] y)
<float[32,3,3,3] w, float[4,LEFT,1,1] v, float[4,RIGHT,1,1] t> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  sizes = Constant<value_ints=[LEFT,RIGHT]>()
  one, other = Split<axis=1>(a, sizes)
  b = Conv(one, v)
  c = Conv(other, t)
  y = Add(b, c)
}
"""


@pytest.mark.parametrize("left", [16, 2, 30])
@pytest.mark.parametrize("least", [1, 2])
def test_no_part_of_a_split_is_emptied_to_time_it(left: int, least: int) -> None:
    proto = model(SPLIT.replace("LEFT", str(left)).replace("RIGHT", str(32 - left)))
    graph = Graph(proto)
    groups = find_groups(graph)
    picker = Picker(groups, Limits(min_channels=least), 8)
    for share in SHARES:
        dead = picker.thinned(dict.fromkeys(range(len(groups.names)), share))
        kept = widths(remove_channels(graph, groups, dead))
        assert min(kept["v"][1], kept["t"][1]) >= least
        assert kept["w"][0] < 32


def test_names_that_say_nothing_are_a_constant() -> None:
    found = measure_latency(GRAPH, COSTS, PICKER, lambda _: {"kernel 7": 3.0, "": 1.0})
    assert (found.constant, dict(found.times)) == (4.0, {})


def test_a_run_measures_once(tmp_path: Path) -> None:
    made = []

    def measure() -> Latency:
        made.append(1)
        return Latency({"w": 0.1 + len(made), "h": 1 / 3}, 0.7, 0.01)

    run = RunDirectory(tmp_path)
    first = run.latency(GRAPH, measure)
    again = RunDirectory(tmp_path).latency(GRAPH, measure)
    assert run.latency(GRAPH, measure) == first == again
    assert made == [1]
    (tmp_path / "latency.json").write_text('{"times": 3}')
    with pytest.raises(RunDirectoryError, match=r"latency\.json: times is a .*: start a new"):
        run.latency(GRAPH, measure)
    assert RunDirectory(None).latency(GRAPH, measure).times["w"] == 2.1
