"""Latency on another runtime: one of our own that sleeps, and OpenVINO where it is installed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from onnxprune.data import Data
from onnxprune.errors import MissingPackage, UnknownName
from onnxprune.run import prune
from onnxprune.search import Settings, clock, measured_on, time_in_turn
from onnxprune.search.clocks import profiler
from tests.support.models import images, model
from tests.support.runtimes import write_runtime

NET = """
g (float[N,3,8,8] x) => (float[N,2] y) <float[16,3,3,3] w, float[8,16,3,3] v, float[2,8] h> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  r = Relu(a)
  c = Conv<pads=[1,1,1,1]>(r, v)
  p = GlobalAveragePool(c)
  f = Flatten(p)
  y = Gemm<transB=1>(f, h)
}
"""
SLEEPS = "time.sleep(0.03)"
ASK: dict[str, Any] = {
    "control": "one-shot",
    "criterion": "magnitude",
    "compensate": "none",
    "trust_baseline": True,
    "threads": 1,
}


def samples(proto: ModelProto) -> Data:
    x = images(proto, 8)
    return Data(x, np.arange(8) % 2, ("a", "b"))


@pytest.fixture
def sleeper(tmp_path: Path) -> str:
    """A runtime that takes 30 ms for whatever it runs."""
    return str(write_runtime(tmp_path / "sleeper.py", running=SLEEPS))


def test_a_model_is_timed_there(sleeper: str) -> None:
    proto = model(NET)
    there = Settings(threads=1, latency_on=sleeper)
    assert clock(samples(proto), there)(proto) > 30
    assert clock(samples(proto), Settings(threads=1))(proto) < 30
    assert min(time_in_turn([proto, proto], None, Settings(threads=1, latency_on=sleeper))) > 30


def test_nodes_have_times_there(sleeper: str) -> None:
    proto = model(NET)
    times = profiler(samples(proto), Settings(threads=1, latency_on=sleeper))(proto)
    assert 0 < max(times.values()) < sum(times.values()), "no node takes it all"


def test_the_times_of_the_nodes_are_scaled_as_the_whole_is(
    sleeper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proto = model(NET)
    monkeypatch.setattr("onnxprune.search.clocks.node_times", lambda *a, **b: {"a": 1.0, "c": 0.5})
    monkeypatch.setattr("onnxprune.search.clocks.time_in_turn", lambda *a, **b: [2.0, 30.0])
    for runtime, expected in (
        (sleeper, {"a": 15.0, "c": 7.5}),
        ("onnxruntime", {"a": 1, "c": 0.5}),
    ):
        measure = profiler(samples(proto), Settings(threads=1, latency_on=runtime))
        assert measure(proto) == expected


def test_a_run_says_where_its_latency_was_measured(sleeper: str) -> None:
    proto = model(NET)
    result = prune(
        proto,
        samples(proto),
        rate=0.3,
        latency_on=sleeper,
        **ASK,
    )
    assert result.report["latency"]["on"].startswith("sleeper")
    assert result.report["before"]["latency_ms"] > 30


def test_a_target_is_measured_there(sleeper: str) -> None:
    """It takes 30 ms with any number of filters, so that 10 ms are out of reach."""
    proto = model(NET)
    with pytest.raises(Exception, match=r"target: cannot be reached.*latency \d\d\.\d"):
        prune(
            proto,
            samples(proto),
            latency_ms=10.0,
            latency_on=sleeper,
            **ASK,
        )


def test_a_runtime_that_is_not_installed_is_told_before_anything_else(tmp_path: Path) -> None:
    absent = write_runtime(tmp_path / "absent.py", packages='("nowhere_to_be_found",)')
    with pytest.raises(MissingPackage, match=r"^--latency-on .*absent.py: not installed; install"):
        prune(model(NET), "no/such/samples", latency_on=str(absent))


def test_an_unknown_runtime_is_refused() -> None:
    with pytest.raises(UnknownName, match=r"openvno.*expected one of onnxruntime, openvino"):
        Settings(latency_on="openvno")


def test_openvino_is_named_with_its_version() -> None:
    pytest.importorskip("openvino")
    proto = model(NET)
    asked = Settings(threads=1, latency_on="openvino")
    assert measured_on(asked).startswith("openvino 20")
    assert 0 < clock(samples(proto), asked)(proto) < 1000
