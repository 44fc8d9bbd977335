"""The time of each node: named as the runtime names it, and adding up to the whole."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from onnxprune.errors import InvalidModel
from onnxprune.evaluation.profile import node_times
from onnxprune.evaluation.runtime import block_width, latencies
from tests.support.models import model

NET = """
net (float[N,8,64,64] x) => (float[N,8,64,64] y)
<float[64,8,3,3] w, float[8,64,1,1] v> {
  a = Conv<pads=[1,1,1,1]>(x, w)
  r = Relu(a)
  y = Conv(r, v)
}
"""


def test_the_layer_that_computes_most_takes_most() -> None:
    """The first convolution, which its Relu is joined to, multiplies nine times as often."""
    times = node_times(model(NET), threads=1, shape=(8, 64, 64))
    assert {"r", "y"} <= times.keys()
    assert times["r"] > times["y"] > 0
    assert times[""] >= 0


def test_of_the_runs_behind_the_first_ones_the_fastest_quarter_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    took = {"a_kernel_time": [1, *range(1001, 1009)], "b_fused_kernel_time": [1, *8 * [500]]}
    took["model_run"] = [1, *8 * [4000]]

    def end_profiling() -> str:
        events = [
            {"name": name, "dur": one, "cat": "Node"} for name, runs in took.items() for one in runs
        ]
        (tmp_path / "profile.json").write_text(json.dumps(events))
        return str(tmp_path / "profile.json")

    fake = SimpleNamespace(place="cpu", batch_of=print, run=print)
    fake.session = SimpleNamespace(end_profiling=end_profiling)
    monkeypatch.setattr("onnxprune.evaluation.profile.Network", lambda *_, **__: fake)
    times = node_times(model(NET), warmup=1, repeats=8)
    mean = (1.001 + 1.002) / 2
    assert times == pytest.approx({"a": mean, "b": 0.5, "": 4.0 - 0.5 - mean})


def test_times_grow_with_the_batch() -> None:
    one, eight = (
        sum(node_times(model(NET), threads=1, batch_size=size, shape=(8, 64, 64)).values())
        for size in (1, 8)
    )
    assert eight > 1.5 * one


def test_open_axes_need_a_shape() -> None:
    open_net = model(NET.replace("64,64] x", "H,W] x").replace("64,64] y", "H,W] y"))
    with pytest.raises(InvalidModel, match="open axes"):
        node_times(open_net)


def test_models_are_timed_in_turn() -> None:
    small = model(NET.replace("64,64]", "8,8]"))
    large, tiny = latencies([model(NET), small], threads=1, repeats=5)
    assert large > 2 * tiny


@pytest.mark.parametrize(
    ("found", "device", "width"),
    [
        (["AVX2", "AVX512F"], "cpu", 16),
        (["X86_V3", "X86_V4"], "auto", 16),
        (["AVX2"], "cpu", 8),
        (["AVX512F"], "cuda", 8),
        ([], "auto", 8),
    ],
)
def test_the_block_is_that_of_the_processor(
    monkeypatch: pytest.MonkeyPatch, found: list[str], device: str, width: int
) -> None:
    monkeypatch.setattr(np, "show_config", lambda mode: {"SIMD Extensions": {"found": found}})
    assert block_width(device) == width
