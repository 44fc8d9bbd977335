"""What comes out of a whole run, and what is refused before one begins."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

import onnxprune
from onnxprune.channels.groups import find_groups
from onnxprune.compensate.methods import compensator
from onnxprune.errors import DataError, InvalidPlan, UnknownName
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.evaluator import Evaluator
from onnxprune.graph.graph import Graph
from onnxprune.relevance.criteria import score
from onnxprune.search.assemble import make_task, open_model
from onnxprune.search.control import Control
from onnxprune.search.nets import Nets
from onnxprune.search.plan import Plan
from onnxprune.search.settings import Settings
from onnxprune.search.task import State
from onnxprune.surgery.removal import remove_channels
from tests.support.models import run
from tests.support.runs import FREE, journal, params, samples
from tests.support.small_net import Small

FILES = {
    *("config.json", "journal.jsonl", "plan.json", "pruned.onnx", "report.json", "report.html"),
    *("about.json", "evidence.json"),
}


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

    monkeypatch.setattr("onnxprune.search.ranking.score", counted)
    settings = {"criterion": criterion, "compensate": compensate, "rate": 0.6, "threads": 1}
    result = onnxprune.prune(small.proto, samples(small), **settings)
    assert result.report["evaluations"] > 3
    assert (len(nets) == 1) == once


def test_weights_stay_until_correcting_them_helps_unseen_samples(
    small: Small, tmp_path: Path
) -> None:
    def states(rate: float, compensate: str) -> list[dict[str, Any]]:
        folder = tmp_path / f"{compensate}-{rate}"
        asked = {"rate": rate, "compensate": compensate, "round_to": 1, "threads": 1}
        found = onnxprune.prune(small.proto, samples(small), **asked, run_dir=folder)
        assert found.report["corrected"] == journal(folder)[-1]["corrected"]
        assert found.report["corrected"] == (found.report["held_out"] is not None)
        return journal(folder)

    untouched, corrected = states(0.8, "none"), states(0.8, "least-squares")
    assert not any(state["corrected"] for state in untouched)
    begun = [state["corrected"] for state in corrected].index(True)
    assert begun > 0
    assert all(state["corrected"] for state in corrected[begun:])
    assert [s["dead"] for s in corrected[:begun]] == [s["dead"] for s in untouched[:begun]]
    assert corrected[begun]["dead"] == untouched[begun]["dead"]
    settings = Settings.of(rate=0.8, compensate="least-squares", threads=1)
    nets = Nets(make_task(*open_model(small.proto, samples(small), settings), settings))
    dead = np.isin(np.arange(len(nets.task.groups)), untouched[begun]["dead"])
    held_out = nets.hold_out(State(dead))
    assert held_out is not None
    was = Accuracy.from_counts(untouched[begun]["accuracy"])
    assert was.soft_harmonic < held_out.soft_harmonic


def test_a_floor_is_held_by_correcting_before_it_ends_the_run(small: Small) -> None:
    floor = {"max_drop": 0.05, "aim": "rate", "round_to": 1, "threads": 1, "confidence": 0}
    untouched = onnxprune.prune(small.proto, samples(small), compensate="none", **floor)
    corrected = onnxprune.prune(small.proto, samples(small), compensate="least-squares", **floor)
    assert corrected.report["corrected"]
    assert corrected.report["rate"] > untouched.report["rate"]
    before = corrected.report["before"]["accuracy"]["harmonic"]
    assert corrected.report["after"]["accuracy"]["harmonic"] >= before - 0.05 - 1e-9


def test_the_report_says_what_corrected_weights_make_of_samples_they_were_fitted_without(
    small: Small,
) -> None:
    data = samples(small)
    # A ridge that is given: with fewer samples to choose by, another one would be chosen.
    asked = {"control": "one-shot", "rate": 0.6, "threads": 1, "ridge": 0.01}
    asked |= {"mirrored": "never"}
    result = onnxprune.prune(small.proto, data, **asked)
    graph = Graph(small.proto)
    groups = find_groups(graph)
    dead = result.plan.dead(groups)
    thirds = np.arange(len(data)) % 3
    right = np.zeros(len(data), np.bool_)
    for third in range(3):
        known, left_out = (
            replace(data, x=data.x[chosen], y=data.y[chosen])
            for chosen in (thirds != third, thirds == third)
        )
        correct = compensator(
            graph, groups, known, "least-squares", ridge=0.01, rounds=Control().fit_rounds
        )
        assert correct is not None
        corrected = correct(remove_channels(graph, groups, dead), dead)
        scores = Evaluator(left_out, threads=1).outputs(corrected)[corrected.graph.output[0].name]
        right[thirds == third] = scores.argmax(1) == left_out.y
    shares = [right[data.y == k].mean() for k in range(len(data.classes))]
    assert result.report["held_out"]["per_class"] == pytest.approx(shares)
    assert result.report["held_out"] != result.report["after"]["accuracy"]


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
        assert report[side]["accuracy"].keys() == {
            "mean",
            "harmonic",
            "shrunk_harmonic",
            "per_class",
        }
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


def test_a_correction_that_breaks_the_floor_is_not_made(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ruin:
        folds = np.arange(len(small.x)) % 2

        def __call__(self, proto: ModelProto, _: Any, **asked: Any) -> ModelProto:
            zeros = ModelProto()
            zeros.CopyFrom(proto)
            for tensor in zeros.graph.initializer:
                nothing = np.zeros_like(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(nothing, tensor.name))
            return zeros

    monkeypatch.setattr("onnxprune.compensate.compensator", lambda *_, **__: Ruin())
    floor = {"max_drop": 0.05, "aim": "rate", "round_to": 1, "threads": 1}
    untouched = onnxprune.prune(small.proto, samples(small), compensate="none", **floor)
    kept = onnxprune.prune(small.proto, samples(small), compensate="least-squares", **floor)
    assert not kept.report["corrected"]
    assert kept.plan == untouched.plan
