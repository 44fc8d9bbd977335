"""A network of one input without a batch axis: each sample is a run."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.graph.graph import Graph
from onnxprune.search.samples import samples_are_runs
from tests.support.models import model

MEANED = """
net (float[T,20] x) => (float[8] y) <float[16,1,3,3] w, float[8,16,3,3] v> {
  front = Constant<value_ints=[0,1]>()
  rest = Constant<value_ints=[0,2,3]>()
  a = Unsqueeze(x, front)
  b = Conv(a, w)
  c = Relu(b)
  d = Conv(c, v)
  e = GlobalAveragePool(d)
  y = Squeeze(e, rest)
}
"""
"""Frames, whose convolutions see several, and an output that is of all of them."""

BATCH = "net (float[N,20] x) => (float[N,8] y) <float[20,8] w> { y = MatMul(x, w) }"
BOXES = """
net (float[N,20] x) => (float[M,4] y) <float[20,8] w> {
  shape = Constant<value_ints=[-1,4]>()
  a = MatMul(x, w)
  y = Reshape(a, shape)
}
"""
FIXED = "net (float[30,20] x) => (float[30,8] y) <float[20,8] w> { y = MatMul(x, w) }"
VALID = MEANED.replace("[8] y", "[S,8,16] y").replace(
    "  e = GlobalAveragePool(d)\n  y = Squeeze(e, rest)\n",
    "  e = Transpose<perm=[2,1,3,0]>(d)\n  last = Constant<value_ints=[3]>()\n"
    "  y = Squeeze(e, last)\n",
)
SECOND = """
net (float[N,20,T] x) => (float[T,N,6] y) <float[16,20,1] w, float[6,16,1] v> {
  a = Conv(x, w)
  b = Relu(a)
  c = Conv(b, v)
  y = Transpose<perm=[2,0,1]>(c)
}
"""
"""Scores of each step, the batch behind them, as recurrent networks of torch have it."""
NAMED = SECOND.replace("float[N,20,T] x", "float[batch_size,20,T] x").replace("[T,N,6]", "[P,Q,6]")
UNNAMED = SECOND.replace("[T,N,6]", "[P,Q,6]")


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        (MEANED, True),
        (VALID, True),
        (UNNAMED, True),
        (SECOND, False),
        (NAMED, False),
        (BATCH, False),
        (BOXES, False),
        (FIXED, False),
    ],
)
def test_outputs_that_do_not_grow_with_the_first_axis_are_of_runs(text: str, runs: bool) -> None:
    assert samples_are_runs(Graph(model(text))) is runs


def in_folder(x: np.ndarray[Any, Any], folder: Path) -> str:
    for number, one in enumerate(x):
        np.savez(folder / f"{number}.npz", x=one)
    return str(folder)


def in_file(x: np.ndarray[Any, Any], folder: Path) -> str:
    np.savez(folder / "samples.npz", x=x)
    return str(folder / "samples.npz")


SOURCES: dict[str, Callable[[np.ndarray[Any, Any], Path], Any]] = {
    "folder": in_folder,
    "file": in_file,
    "array": lambda x, _: x,
    "list": lambda x, _: list(x),
    "dicts": lambda x, _: [{"x": one} for one in x],
}


@pytest.mark.parametrize("source", SOURCES)
def test_runs_are_pruned_one_by_one(
    source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.random.default_rng(0).normal(size=(12, 30, 20)).astype(np.float32)
    with caplog.at_level(logging.INFO, "onnxprune"):
        given = SOURCES[source](x, tmp_path)
        found = onnxprune.prune(model(MEANED), given, macs=0.5, round_to=1, threads=1)
    assert "input 'x' has no batch axis: each sample is a run" in caplog.text
    assert found.report["samples"] == 12
    assert found.report["after"]["macs"] <= 0.5 * found.report["before"]["macs"]
    assert found.report["before"]["macs"] > 26 * 16 * 8 * 9


def test_a_batch_that_is_the_second_axis_of_an_output_is_one() -> None:
    x = np.random.default_rng(0).normal(size=(12, 20, 30)).astype(np.float32)
    found = onnxprune.prune(model(SECOND), x, macs=0.5, round_to=1, threads=1)
    assert found.report["samples"] == 12
    assert found.report["after"]["macs"] <= 0.5 * found.report["before"]["macs"]
