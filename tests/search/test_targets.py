"""Targets are met, floors and limits hold, and what is out of reach is refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.data import Data
from onnxprune.errors import UnreachableTarget
from tests.support.models import model
from tests.support.runs import CONTROLS, FREE, harmonic, journal, params, samples
from tests.support.small_net import Small


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_rate_is_reached_and_not_overshot(small: Small, control: str, share: float) -> None:
    result = onnxprune.prune(small.proto, samples(small), control=control, rate=share, round_to=1)
    assert share <= len(result.plan) / 14 < share + 1 / 14 + 1e-9
    assert result.report["rate"] == pytest.approx(len(result.plan) / 14)
    assert result.report["stopped"] == "target"


@pytest.mark.parametrize("goal", [0.5, 300.0])
def test_parameters_are_reached(small: Small, goal: float) -> None:
    result = onnxprune.prune(small.proto, **FREE, params=goal)
    allowed = goal * params(small.proto) if goal <= 1 else goal
    assert params(result.model) <= allowed
    assert result.report["after"]["params"] == params(result.model)
    assert result.report["before"]["params"] == params(small.proto)


def test_multiply_adds_are_reached(small: Small) -> None:
    result = onnxprune.prune(small.proto, **FREE, macs=0.5)
    # Two convolutions, on 64 and on 16 positions, and a product.
    by_hand = {t.name: numpy_helper.to_array(t).size for t in result.model.graph.initializer}
    macs = 64 * by_hand["w1"] + 16 * by_hand["w2"] + by_hand["w3"]
    assert result.report["after"]["macs"] == macs
    assert macs <= 0.5 * result.report["before"]["macs"]


@pytest.mark.parametrize("compensate", ["none", "bias"])
def test_a_size_is_that_of_the_file_and_reached(
    small: Small, tmp_path: Path, compensate: str
) -> None:
    ask: dict[str, Any] = {"control": "one-shot", "threads": 1, "compensate": compensate}
    goal = small.path.stat().st_size - 1000
    result = onnxprune.prune(
        small.proto, samples(small), **ask, size=goal, run_dir=tmp_path / "run"
    )
    file = (tmp_path / "run" / "pruned.onnx").stat().st_size
    assert result.report["after"]["size_bytes"] == file
    assert goal - 600 < file <= goal, "one filter of both is 84 weights"
    assert result.report["stopped_by"] == ["size"]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_latency_is_reached_and_confirmed(
    small: Small, control: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that counts weights: what the report holds is what was measured last."""
    asked = []

    def clock(protos: Sequence[ModelProto], **where: Any) -> list[float]:
        asked.append((where["batch_size"], where["threads"], tuple(where["shape"])))
        return [float(params(proto)) for proto in protos]

    monkeypatch.setattr("onnxprune.search.clocks.latencies", clock)
    ask: dict[str, Any] = {"control": control, "threads": 1, "latency_batch": 4}
    goal = 0.6 * params(small.proto)
    result = onnxprune.prune(small.proto, samples(small), **ask, latency_ms=goal)
    assert params(result.model) == result.report["after"]["latency_ms"] <= goal
    assert result.report["before"]["latency_ms"] == params(small.proto)
    assert result.report["latency"] == {"batch": 4, "threads": 1, "on": "onnxruntime"}
    assert result.report["stopped_by"] == ["latency_ms"]
    assert set(asked) == {(4, 1, (1, 8, 8))}


@pytest.mark.parametrize("share", [0.6, 2.0])
def test_latencies_of_a_report_are_of_one_moment(
    small: Small, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine that gets busier with every call."""
    calls = []

    def clock(protos: Sequence[ModelProto], **where: Any) -> list[float]:
        calls.append(len(protos))
        return [float(params(proto) * 1.1 ** len(calls)) for proto in protos]

    monkeypatch.setattr("onnxprune.search.clocks.latencies", clock)
    whole = params(small.proto)
    ask: dict[str, Any] = {"control": "one-shot", "threads": 1, "latency_ms": share * whole}
    result = onnxprune.prune(small.proto, samples(small), **ask)
    before, after = (result.report[side]["latency_ms"] for side in ("before", "after"))
    assert after <= share * whole
    assert after / before == pytest.approx(params(result.model) / whole)


def test_a_latency_is_measured_without_samples(small: Small) -> None:
    result = onnxprune.prune(small.proto, **FREE, latency_ms=1e6)
    assert not result.plan.removed
    assert 0 < result.report["after"]["latency_ms"] < 1e6


@pytest.mark.parametrize("control", CONTROLS)
def test_every_state_of_a_search_has_round_widths(
    small: Small, tmp_path: Path, control: str
) -> None:
    folder = tmp_path / "run"
    result = onnxprune.prune(
        small.proto,
        samples(small),
        control=control,
        threads=1,
        rate=0.4,
        round_to=4,
        run_dir=folder,
    )
    assert result.report["rate"] >= 0.4
    for line in journal(folder):
        first = sum(channel < 8 for channel in line["dead"])
        second = len(line["dead"]) - first
        # Of 8 filters multiples of 4 stay, of 6 all or 4.
        assert (first % 4, second) in ((0, 0), (0, 2))


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("floor", [{"max_drop": 0.1}, {"min_accuracy": 0.8}])
def test_the_floor_holds(small: Small, control: str, floor: dict[str, float]) -> None:
    result = onnxprune.prune(small.proto, samples(small), control=control, threads=1, **floor)
    level = floor.get("min_accuracy", 1 - floor.get("max_drop", 0))
    assert harmonic(result.model, small) >= level - 1e-6
    assert result.report["after"]["accuracy"]["harmonic"] == pytest.approx(
        harmonic(result.model, small)
    )
    assert result.report["stopped"] in ("floor", "limits")


def test_a_floor_above_the_model_as_it_came_is_refused(small: Small, tmp_path: Path) -> None:
    wrong = Data(small.x, np.where(np.arange(24) % 8, small.y, (small.y + 1) % 3), ("a", "b", "c"))
    ask: dict[str, Any] = {"run_dir": tmp_path / "run", "threads": 1}
    with pytest.raises(UnreachableTarget, match=r"^floor: .* 0\.8750 .* min-accuracy 0\.9; give"):
        onnxprune.prune(small.proto, wrong, min_accuracy=0.9, **ask)
    assert not (tmp_path / "run").exists()
    onnxprune.prune(small.proto, wrong, min_accuracy=0.875, **ask)


def test_without_target_and_floor_a_drop_of_a_hundredth_is_allowed(
    small: Small, tmp_path: Path
) -> None:
    onnxprune.prune(small.proto, samples(small), threads=1, run_dir=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["floor"] == {
        "min_accuracy": None,
        "max_drop": 0.01,
        "confidence": 0.9,
    }


@pytest.mark.parametrize("ask", [{"macs": 50}, {"params": 0.001}])
def test_what_is_far_out_of_reach_is_refused_before_anything_is_searched(
    small: Small, ask: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty multiply-adds, where fifty percent were meant."""
    monkeypatch.setattr("onnxprune.run.search", lambda *_: pytest.fail("searched"))
    with pytest.raises(UnreachableTarget, match="cannot be reached; the most that can go is rate"):
        onnxprune.prune(small.proto, samples(small), threads=1, **ask)


def test_with_a_floor_a_target_may_be_out_of_reach(small: Small) -> None:
    ask: dict[str, Any] = {"max_drop": 0.1, "macs": 50, "threads": 1}
    result = onnxprune.prune(small.proto, samples(small), **ask)
    assert result.report["stopped"] == "floor"


def test_biases_that_a_correction_adds_count_in_a_target(small: Small) -> None:
    proto = without_biases(small.proto)
    for goal in range(150, 330, 12):
        ask: dict[str, Any] = {"params": goal, "round_to": 1, "threads": 1}
        found = onnxprune.prune(proto, samples(small), **ask, control="one-shot", compensate="bias")
        assert found.report["corrected"]
        assert params(found.model) <= goal


def without_biases(proto: ModelProto) -> ModelProto:
    """The same net without the biases of its convolutions, which a correction adds again."""
    bare = ModelProto.FromString(proto.SerializeToString())
    spared = set()
    for node in bare.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            spared.add(node.input.pop())
    kept = [tensor for tensor in bare.graph.initializer if tensor.name not in spared]
    del bare.graph.initializer[:]
    bare.graph.initializer.extend(kept)
    return bare


def test_a_target_out_of_reach_says_what_can_be_had(small: Small) -> None:
    with pytest.raises(UnreachableTarget, match=r"most that can go is rate 0\.857"):
        onnxprune.prune(small.proto, **FREE, rate=0.9)
    with pytest.raises(UnreachableTarget, match=r"size \d+ bytes; .*ask for less$"):
        onnxprune.prune(small.proto, **FREE, size=10.0)
    with pytest.raises(UnreachableTarget, match=r"latency 0\.\d+ ms; ask for less$"):
        onnxprune.prune(small.proto, **FREE, latency_ms=1e-9)


PINNED = """
net (float[N,2,4,4] x) => (float[N,3,4,4] y)
<float[8,2,1,1] w1, float[5,8,1,1] w2, float[5,4,4] scale, float[9,5,1,1] w3, float[3,9,1,1] w4> {
  a = Conv(x, w1)
  b = Conv(a, w2)
  n = LayerNormalization<axis=1>(b, scale)
  c = Conv(n, w3)
  y = Conv(c, w4)
}
"""


def test_a_target_out_of_reach_names_what_pins_the_most() -> None:
    with pytest.raises(UnreachableTarget) as caught:
        onnxprune.prune(model(PINNED), **FREE, macs=0.01)
    (line,) = str(caught.value).splitlines()
    assert "what pins most: feeds LayerNormalization 'n'" in line
    assert "(5 of 25 filters)" in line


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"min_channels": 4}, "or loosen min-channels"),
        ({"max_layer_rate": 0.5}, "or loosen max-layer-rate"),
        ({"round_to": 4}, "or loosen round-to"),
        ({"exclude": ("one",)}, "or loosen exclude"),
        ({"include": ("two",)}, "or loosen include"),
        ({"min_channels": 2, "max_layer_rate": 0.75}, "or loosen min-channels, max-layer-rate"),
    ],
)
def test_a_target_out_of_reach_names_the_limits(
    small: Small, limits: dict[str, Any], says: str
) -> None:
    with pytest.raises(UnreachableTarget, match=f"{says}$"):
        onnxprune.prune(small.proto, **FREE, rate=0.85, **limits)


@pytest.mark.parametrize(
    ("ask", "stopped", "by"),
    [
        ({"rate": 0.2, "macs": 0.9}, "target", ["rate", "macs"]),
        ({"max_drop": 0.0, "min_accuracy": 0.1}, "floor", ["max_drop"]),
        ({"max_drop": 1.0, "max_layer_rate": 0.3}, "limits", ["max_layer_rate"]),
        ({"max_drop": 1.0}, "limits", []),
    ],
)
def test_a_report_says_what_ended_the_run(
    small: Small, ask: dict[str, Any], stopped: str, by: list[str]
) -> None:
    report = onnxprune.prune(
        small.proto, samples(small), control="iterative", threads=1, **ask
    ).report
    assert (report["stopped"], report["stopped_by"]) == (stopped, by)


def test_limits_hold(small: Small) -> None:
    limited = onnxprune.prune(small.proto, **FREE, rate=0.28, exclude=("one",), min_channels=2)
    assert set(limited.plan.removed) == {"two"}
    with pytest.raises(UnreachableTarget):
        onnxprune.prune(small.proto, **FREE, rate=0.28, exclude=("one",), min_channels=3)
