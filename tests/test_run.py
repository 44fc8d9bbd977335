"""Whole runs: targets are met, floors hold, killed runs end as if nothing had happened."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.criteria import score
from onnxprune.data import Data, load_data
from onnxprune.errors import (
    DataError,
    InvalidPlan,
    OutputError,
    RunDirectoryError,
    UnknownName,
    UnreachableTarget,
)
from onnxprune.plan import Limits, Plan
from onnxprune.samples import fashion_mnist
from onnxprune.search import NEEDED
from onnxprune.settings import Settings
from tests.conftest import Small
from tests.models import model, run

FILES = {"config.json", "journal.jsonl", "plan.json", "pruned.onnx", "report.json", "report.html"}
FREE: dict[str, Any] = {"control": "one-shot", "criterion": "magnitude", "threads": 1}
"""Needs no samples."""
CONTROLS = ("one-shot", "iterative", "accuracy-aware")


def params(proto: ModelProto) -> int:
    return sum(numpy_helper.to_array(t).size for t in proto.graph.initializer)


def samples(small: Small) -> Data:
    return Data(small.x, small.y, ("a", "b", "c"))


def harmonic(proto: ModelProto, small: Small) -> float:
    right = run(proto, small.x)[0].argmax(1) == small.y
    shares = np.array([right[small.y == k].mean() for k in range(3)])
    return 0.0 if not shares.all() else float(3 / (1 / shares).sum())


def journal(folder: Path) -> list[dict[str, Any]]:
    """The lines of a journal, less what the clock says."""
    lines = map(json.loads, (folder / "journal.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


# Targets, floors and limits


@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_rate_is_reached_and_not_overshot(small: Small, control: str, share: float) -> None:
    result = onnxprune.prune(small.proto, samples(small), control=control, rate=share, threads=1)
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

    def clock(proto: ModelProto, **where: Any) -> float:
        asked.append((where["batch_size"], where["threads"], tuple(where["shape"])))
        return float(params(proto))

    monkeypatch.setattr("onnxprune.outcome.latency", clock)
    ask: dict[str, Any] = {"control": control, "threads": 1, "latency_batch": 4}
    goal = 0.6 * params(small.proto)
    result = onnxprune.prune(small.proto, samples(small), **ask, latency_ms=goal)
    assert params(result.model) == result.report["after"]["latency_ms"] <= goal
    assert result.report["before"]["latency_ms"] == params(small.proto)
    assert result.report["latency"] == {"batch": 4, "threads": 1}
    assert result.report["stopped_by"] == ["latency_ms"]
    assert set(asked) == {(4, 1, (1, 8, 8))}


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


def test_without_target_and_floor_a_drop_of_a_hundredth_is_allowed(
    small: Small, tmp_path: Path
) -> None:
    onnxprune.prune(small.proto, samples(small), threads=1, run_dir=tmp_path / "run")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["floor"] == {"min_accuracy": None, "max_drop": 0.01}


def test_a_target_out_of_reach_says_what_can_be_had(small: Small) -> None:
    with pytest.raises(UnreachableTarget, match=r"most that can go is rate 0\.857"):
        onnxprune.prune(small.proto, **FREE, rate=0.9)
    with pytest.raises(UnreachableTarget, match=r"size \d+ bytes; ask for less$"):
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


# What comes out


@pytest.mark.parametrize("compensate", ["none", "bias", "least-squares"])
def test_the_result_is_a_model_that_runs(small: Small, compensate: str) -> None:
    result = onnxprune.prune(
        small.proto, samples(small), control="one-shot", rate=0.4, compensate=compensate, threads=1
    )
    onnx.checker.check_model(result.model, full_check=True)
    assert run(result.model, small.x)[0].shape == (24, 3)
    replayed = onnxprune.apply(small.proto, result.plan)
    assert (replayed == result.model) == (compensate == "none")


def test_least_squares_fits_on_images_without_labels_too(small: Small, tmp_path: Path) -> None:
    more = tmp_path / "more.npz"
    np.savez(more, x=2 * small.x[:8], y=np.full(8, 7))
    ask: dict[str, Any] = {"control": "one-shot", "rate": 0.4, "threads": 1}

    def pruned(where: Path | None, compensate: str) -> ModelProto:
        unlabelled = None if where is None else str(where)
        given = {**ask, "compensate": compensate, "unlabelled": unlabelled}
        return onnxprune.prune(small.proto, samples(small), **given).model

    assert pruned(more, "least-squares") != pruned(None, "least-squares")
    assert pruned(more, "least-squares") == pruned(more, "least-squares")
    assert pruned(more, "none") == pruned(None, "none")
    with pytest.raises(DataError, match="no such file or folder"):
        pruned(tmp_path / "absent", "least-squares")


@pytest.mark.parametrize(
    ("compensate", "criterion", "once"),
    [
        ("least-squares", "taylor", True),
        ("least-squares", "magnitude", False),
        ("none", "taylor", False),
    ],
)
def test_a_net_that_is_refitted_is_ranked_once(
    small: Small, monkeypatch: pytest.MonkeyPatch, compensate: str, criterion: str, once: bool
) -> None:
    nets = []

    def counted(graph: Any, *arguments: Any, **options: Any) -> Any:
        nets.append(len(graph.nodes))
        return score(graph, *arguments, **options)

    monkeypatch.setattr("onnxprune.run.score", counted)
    settings = {"criterion": criterion, "compensate": compensate, "rate": 0.6, "threads": 1}
    result = onnxprune.prune(small.proto, samples(small), **settings)
    assert result.report["evaluations"] > 3
    assert (len(nets) == 1) == once


def test_weights_stay_until_correcting_them_is_worth_it(small: Small, tmp_path: Path) -> None:
    def states(rate: float, compensate: str) -> list[dict[str, Any]]:
        folder = tmp_path / f"{compensate}-{rate}"
        found = onnxprune.prune(
            small.proto, samples(small), rate=rate, compensate=compensate, threads=1, run_dir=folder
        )
        assert found.report["corrected"] == journal(folder)[-1]["corrected"]
        return journal(folder)

    untouched, corrected = states(0.8, "none"), states(0.8, "least-squares")
    assert not any(state["corrected"] for state in untouched)
    begun = [state["corrected"] for state in corrected].index(True)
    assert begun > 1
    assert all(state["corrected"] for state in corrected[begun:])
    assert [s["dead"] for s in corrected[:begun]] == [s["dead"] for s in untouched[:begun]]
    worth = untouched[begun]["soft_harmonic"] / corrected[begun]["soft_harmonic"]
    assert corrected[begun]["dead"] == untouched[begun]["dead"]
    assert worth < NEEDED


def test_a_floor_is_held_by_correcting_before_it_ends_the_run(small: Small) -> None:
    floor = {"max_drop": 0.05, "threads": 1}
    untouched = onnxprune.prune(small.proto, samples(small), compensate="none", **floor)
    corrected = onnxprune.prune(small.proto, samples(small), compensate="least-squares", **floor)
    assert corrected.report["corrected"]
    assert corrected.report["rate"] > untouched.report["rate"]
    before = corrected.report["before"]["accuracy"]["harmonic"]
    assert corrected.report["after"]["accuracy"]["harmonic"] >= before - 0.05 - 1e-9


def test_a_masked_model_computes_what_the_pruned_one_does(small: Small) -> None:
    result = onnxprune.prune(small.proto, **FREE, rate=0.4)
    masked = onnxprune.apply(small.path, result.plan, masked=True)
    assert params(masked) == params(small.proto)
    np.testing.assert_allclose(
        run(masked, small.x)[0], run(result.model, small.x)[0], rtol=1e-4, atol=1e-5
    )


def test_the_given_model_is_not_changed(small: Small) -> None:
    before = small.proto.SerializeToString()
    onnxprune.prune(small.proto, **FREE, rate=0.4)
    assert small.proto.SerializeToString() == before


def test_layers_of_a_report_are_those_of_the_plan(small: Small) -> None:
    result = onnxprune.prune(small.proto, **FREE, rate=0.4)
    removed = {one["name"]: one["removed"] for one in result.report["layers"]}
    assert removed == {name: len(result.plan.removed.get(name, ())) for name in ("one", "two")}
    assert [one["filters"] for one in result.report["layers"]] == [8, 6]


def test_the_seed_decides(small: Small) -> None:
    free = {**FREE, "criterion": "random", "rate": 0.5}
    plans = [onnxprune.prune(small.proto, **free, seed=seed).plan for seed in (0, 0, 1)]
    assert plans[0] == plans[1] != plans[2]


def test_a_run_is_recorded(small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = onnxprune.prune(small.path, small.data, rate=0.4, threads=1, run_dir=folder)
    assert {path.name for path in folder.iterdir()} == FILES
    assert onnx.load(folder / "pruned.onnx") == result.model
    assert Plan.load(folder / "plan.json") == result.plan
    report = json.loads((folder / "report.json").read_text())
    assert report == result.report
    for side in ("before", "after"):
        assert report[side].keys() == {
            *("params", "macs", "filters", "size_bytes", "latency_ms", "accuracy")
        }
        assert report[side]["accuracy"].keys() == {"mean", "harmonic", "per_class"}
        assert report[side]["latency_ms"] > 0
    assert {"rate", "seconds", "evaluations"} <= report.keys()
    assert report["evaluations"] >= len(journal(folder)) - 1
    assert journal(folder)[0]["rate"] == 0.0
    assert journal(folder)[-1]["stopped"] == "target"


def test_an_open_image_size_is_that_of_the_samples(small: Small) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(small.proto)
    for dim in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    result = onnxprune.prune(proto, samples(small), control="one-shot", rate=0.3, threads=1)
    assert result.report["before"]["macs"] == 64 * 8 * 9 + 16 * 6 * 8 * 9 + 18
    assert result.report["after"]["latency_ms"] > 0
    dims = result.model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param for dim in dims[2:]] == ["side", "side"]


# Resuming


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on real images, some of each class: from it, killed runs are made."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    onnxprune.prune(fashion_mnist.MODEL, fashion_mnist.REFERENCE, settings=FASHION, run_dir=folder)
    return folder


FASHION = Settings.of(per_class=2, rate=0.2, threads=1, compensate="bias")


def killed(finished: Path, folder: Path, steps: int, rest: bytes = b"") -> Path:
    """A run directory as a kill leaves it after so many steps, in the middle of a line."""
    folder.mkdir()
    (folder / "config.json").write_bytes((finished / "config.json").read_bytes())
    lines = (finished / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:steps]) + rest)
    return folder


@pytest.mark.parametrize(("steps", "rest"), [(0, b""), (2, b""), (3, b'{"rate": 0.1, "par')])
def test_a_killed_run_ends_as_if_nothing_had_happened(
    finished: Path, tmp_path: Path, steps: int, rest: bytes
) -> None:
    folder = killed(finished, tmp_path / "run", steps, rest)
    result = onnxprune.prune(
        fashion_mnist.MODEL,
        fashion_mnist.REFERENCE,
        settings=FASHION,
        run_dir=folder,
        resume=True,
    )
    assert len(journal(finished)) > 4
    for name in ("plan.json", "pruned.onnx", "config.json"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()
    assert journal(folder) == journal(finished)
    assert (
        result.report["after"]["accuracy"]
        == (json.loads((finished / "report.json").read_text())["after"]["accuracy"])
    )


def test_a_finished_run_resumed_does_nothing_more(finished: Path) -> None:
    before = (finished / "journal.jsonl").read_bytes()
    plan = (finished / "plan.json").read_bytes()
    onnxprune.prune(
        fashion_mnist.MODEL,
        fashion_mnist.REFERENCE,
        settings=FASHION,
        run_dir=finished,
        resume=True,
    )
    assert (finished / "journal.jsonl").read_bytes() == before
    assert (finished / "plan.json").read_bytes() == plan


def test_real_images_are_classified_as_well_as_promised(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    images = load_data(fashion_mnist.REFERENCE, shape=(1, 28, 28), limit=2)
    right = run(onnx.load(finished / "pruned.onnx"), images.x)[0].argmax(1) == images.y
    assert report["after"]["accuracy"]["mean"] == pytest.approx(right.mean())
    assert report["samples"] == 20
    assert 0.2 <= report["rate"] < 0.21


def test_a_run_is_not_overwritten(finished: Path) -> None:
    with pytest.raises(RunDirectoryError, match="holds a run already; give --resume"):
        onnxprune.prune(
            fashion_mnist.MODEL, fashion_mnist.REFERENCE, settings=FASHION, run_dir=finished
        )


def test_another_run_is_not_continued(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 2)
    other = replace(FASHION, seed=1, limits=Limits(min_channels=2))
    with pytest.raises(RunDirectoryError, match="made with other limits, seed; resume with"):
        onnxprune.prune(
            fashion_mnist.MODEL,
            fashion_mnist.REFERENCE,
            settings=other,
            run_dir=folder,
            resume=True,
        )
    with pytest.raises(RunDirectoryError, match="made with other data_sha256"):
        onnxprune.prune(
            fashion_mnist.MODEL, fashion_mnist.TEST, settings=FASHION, run_dir=folder, resume=True
        )


def test_a_broken_journal_is_named(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 1, b"not json\n")
    with pytest.raises(RunDirectoryError, match=r"journal\.jsonl: line 2 cannot be read"):
        onnxprune.prune(
            fashion_mnist.MODEL,
            fashion_mnist.REFERENCE,
            settings=FASHION,
            run_dir=folder,
            resume=True,
        )


def test_broken_settings_are_named(finished: Path, tmp_path: Path) -> None:
    folder = killed(finished, tmp_path / "run", 1)
    (folder / "config.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"config\.json: cannot be read"):
        onnxprune.prune(
            fashion_mnist.MODEL,
            fashion_mnist.REFERENCE,
            settings=FASHION,
            run_dir=folder,
            resume=True,
        )


def test_a_journal_that_cannot_be_written_is_named(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"journal\.jsonl: cannot be written \(No space left"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, run_dir=tmp_path / "run")


def test_resuming_needs_a_directory(small: Small) -> None:
    with pytest.raises(RunDirectoryError, match="give its --run-dir"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, resume=True)


def test_a_run_directory_must_be_a_folder(small: Small) -> None:
    with pytest.raises(OutputError, match="cannot be created"):
        onnxprune.prune(small.proto, **FREE, rate=0.3, run_dir=small.path)


# What is refused


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "needs reference samples"),
        ({**FREE}, "without samples there is no accuracy to stop at"),
        ({**FREE, "max_drop": 0.1}, "floor: needs reference samples"),
        ({"control": "one-shot", "criterion": "lrp", "rate": 0.3}, "samples"),
    ],
)
def test_samples_are_asked_for(small: Small, options: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        onnxprune.prune(small.proto, **options)


def test_names_are_checked(small: Small) -> None:
    with pytest.raises(UnknownName, match="control 'slow': unknown; expected one of one-shot"):
        onnxprune.prune(small.proto, control="slow")
    with pytest.raises(UnknownName, match="option 'speed': unknown; expected one of"):
        onnxprune.prune(small.proto, speed=3)
    with pytest.raises(UnknownName, match="criterion 'luck': unknown"):
        onnxprune.prune(small.proto, control="one-shot", criterion="luck", rate=0.2)
    with pytest.raises(UnknownName, match="compensate 'prayer': unknown"):
        onnxprune.prune(small.proto, samples(small), rate=0.2, compensate="prayer", threads=1)


def test_a_plan_of_another_model_is_refused(small: Small) -> None:
    with pytest.raises(InvalidPlan, match="made for another model"):
        onnxprune.apply(small.proto, Plan({"three": (0,)}))


def test_settings_read_back() -> None:
    asked = Settings.of(rate=0.5, exclude=("a*",), control="iterative", per_class=3)
    assert Settings.from_json(asked.to_json()) == asked
