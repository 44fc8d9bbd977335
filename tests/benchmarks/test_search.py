"""What a search costs is counted in parts, and against a loop that does everything anew."""

import argparse

import numpy as np
import pytest

from onnxprune.data import Data
from onnxprune.graph import Graph
from onnxprune.search.settings import Settings
from tests.benchmarks.search import compare
from tests.support.models import images, run
from tests.support.small_net import Small


@pytest.mark.parametrize("samples", [24, 200])
def test_both_costs_are_printed(
    samples: int, small: Small, one_thread: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of few samples and of many, which are parted."""
    x = images(small.proto, samples)
    data = Data(x, run(small.proto, x)[0].argmax(1), ("a", "b", "c"))
    settings = Settings.of(threads=1, device="cpu", rate=0.4, compensate="least-squares")
    compare(Graph(small.proto), data, settings, argparse.Namespace(repeats=1, every=3))
    text = capsys.readouterr().out
    rows = {
        line.split("|")[1].strip(): line.split("|")[2:5]
        for line in text.splitlines()
        if "|" in line
    }
    for part in ("relevance", "evaluation", "pruning"):
        assert all(float(cell) > 0 for cell in rows[part])
    assert "plain loop / search: " in text and np.isfinite(float(rows["picking"][0]))
