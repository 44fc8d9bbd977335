"""One model on one runtime: what its row says."""

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.deploy import deploy, trial
from onnxprune.deploy.trial import MADE_UP, Trial
from onnxprune.graph import Graph
from onnxprune.runtimes import Remote
from onnxprune.search import Settings
from tests.deploy.test_deploying import RIGHT, own, row_of
from tests.support.deployed import NET
from tests.support.models import model

TELLING = """
g (float[N, 3, 8, 8] x) => (float[N, 4] y, int64[N, 1] k) <float[4, 3, 3, 3] w> {
  c = Conv(x, w) p = GlobalMaxPool(c) y = Flatten(p) k = ArgMax<axis=1>(y)
}
"""


def tried(proto: Any = NET) -> Trial:
    return Trial(Graph(proto), None, None, Settings())


def test_each_time_is_that_of_its_own_runtime(
    net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def clock(nets: Any, **_: Any) -> list[float]:
        return [2.0 if isinstance(one, Remote) else 1.0 for one in nets]

    monkeypatch.setattr(trial, "latencies", clock)
    row = row_of(deploy(net, tmp_path / "edge", to=[own(tmp_path, "right", RIGHT)], threads=1))
    assert (row["onnxruntime_ms"], row["latency_ms"]) == (1.0, 2.0)
    assert row["python"] is None


def test_the_size_is_that_of_all_files(net: Path, tmp_path: Path) -> None:
    out, code = tmp_path / "edge", {"converting": "(folder / 'a.bin').write_bytes(bytes(1000))"}
    row = row_of(deploy(net, out, to=[own(tmp_path, "two", code)], threads=1))
    assert row["files"] == ["net.own", "a.bin"]
    assert row["size_bytes"] == 1000 + (out / "net.own").stat().st_size


def test_another_python_is_told(net: Path, tmp_path: Path) -> None:
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    record = deploy(
        net, tmp_path / "edge", to=["onnxruntime"], threads=1, python=(("onnxruntime", str(link)),)
    )
    assert row_of(record)["python"] == str(link)


def test_inputs_that_are_made_up_differ() -> None:
    found = [feeds["x"] for feeds in tried()._made_up()]
    assert len(found) == MADE_UP
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations(found, 2))


def test_outputs_of_a_choice_may_jump() -> None:
    """A tie that falls the other way is no mistake of a runtime."""
    assert tried(model(TELLING))._jumping == ["k"]
