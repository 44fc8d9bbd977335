"""How the scores of a layer are spread: each filter is in one bar, with those that stay or went."""

import json
from pathlib import Path

import numpy as np

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
