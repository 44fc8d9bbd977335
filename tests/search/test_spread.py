"""How the scores of a layer are spread: each filter is in one bar, with those that stay or went."""

import json
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.search import spread
from tests.support.small_net import Small


def test_each_filter_is_counted_on_its_side(small: Small, tmp_path: Path) -> None:
    result = onnxprune.prune(
        small.path,
        small.data,
        rate=0.5,
        control="one-shot",
        criterion="magnitude",
        compensate="none",
        run_dir=tmp_path / "run",
        threads=1,
    )
    layers = json.loads((tmp_path / "run" / "evidence.json").read_text())["layers"]
    for width in result.report["layers"]:
        found = layers[width["name"]]["scores"]
        assert len(found["kept"]) == len(found["gone"]) == spread.BINS
        assert sum(found["gone"]) == width["removed"]
        assert sum(found["kept"]) == width["filters"] - width["removed"]
        together = np.add(found["kept"], found["gone"])
        assert together[0] >= 1 and together[-1] >= 1  # the ends are scores of filters
        assert found["low"] < found["high"]
    least = [layers[w["name"]]["scores"] for w in result.report["layers"] if w["removed"]]
    assert least and all(one["gone"][-1] == 0 for one in least)  # the best filter stays


@pytest.mark.parametrize(
    "ends", [(1.0, 1.0 + 2**-52), (0.0, 5e-324), (-1.7e308, 1.7e308), (1e300, 1e300), (2.0, 2.0)]
)
def test_scores_however_close_or_far_apart_are_counted(ends: tuple[float, float]) -> None:
    """Layers whose filters are all alike have such, and would cost the page all others."""
    found = spread._counts(np.array([*ends, ends[0]]), *ends)
    assert len(found) == spread.BINS
    assert sum(found) == 3


def test_ends_that_are_far_apart_are_in_the_outer_bars() -> None:
    found = spread._counts(np.array([-1.7e308, 0.0, 1.7e308]), -1.7e308, 1.7e308)
    assert (found[0], found[spread.BINS // 2], found[-1]) == (1, 1, 1)


def test_bars_are_those_of_a_histogram() -> None:
    values = np.random.default_rng(0).standard_normal(500)
    ends = float(values.min()), float(values.max())
    expected = np.histogram(values, spread.BINS, ends)[0].tolist()
    assert spread._counts(values, *ends) == expected
