"""Pruning with very many classes: halves without a common class, goals reached, rows kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from PIL import Image

from onnxprune.channels.groups import find_groups
from onnxprune.graph.graph import Graph
from onnxprune.search.settings import Settings
from onnxprune.surgery import count, remove_channels
from tests.benchmarks import thousand_classes
from tests.benchmarks.peers import CannotRun, gone_by, share_gone
from tests.benchmarks.thousand_classes import GOALS, WAYS, Judge, Trial, cell, goals_of, main, run
from tests.benchmarks.walks import Goal, Way
from tests.support.models import model
from tests.support.models import run as outputs

CLASSES = 40
NET = """g (float[N, 3, 8, 8] x) => (float[N, 40] logits)
    <float[20, 3, 3, 3] w1, float[20] b1, float[30, 20, 3, 3] w2, float[30] b2, float[40, 30] w3>
{
    c1 = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
    r1 = Relu(c1)
    c2 = Conv <pads = [1, 1, 1, 1]> (r1, w2, b2)
    r2 = Relu(c2)
    m = GlobalAveragePool(r2)
    f = Flatten(m)
    logits = Gemm <transB = 1> (f, w3)
}"""
OWN = [way for way in WAYS if not way.onnxsim and way.importance in ("", "even")]
"""The ways that need no other tool."""


@pytest.fixture(scope="module")
def trial() -> Trial:
    """A net, and images of one class each, of which it recognises some."""
    proto = model(NET)
    x = np.random.default_rng(1).normal(size=(CLASSES, 3, 8, 8)).astype(np.float32)
    return Trial("tiny", 0, True, proto, x, one_of_each(outputs(proto, x)[0].argmax(1)))


def one_of_each(answers: np.ndarray) -> np.ndarray:
    """The answers, where nobody had them before, and the classes that are left."""
    _, first = np.unique(answers, return_index=True)
    y = np.full(CLASSES, -1)
    y[first] = answers[first]
    y[y < 0] = np.setdiff1d(np.arange(CLASSES), answers)
    return y


def test_no_class_that_judges_is_seen_by_the_pruning(trial: Trial) -> None:
    for split in range(4):
        seen, unseen = replace(trial, split=split).halves
        assert sorted([*seen, *unseen]) == list(range(CLASSES))
        assert len(seen) == len(unseen)
    even, odd, other = (replace(trial, split=split).halves for split in range(3))
    assert [list(half) for half in odd] == [list(half) for half in even[::-1]]
    assert list(other[0]) not in [list(half) for half in even]


@pytest.mark.parametrize("way", OWN, ids=lambda way: way.title)
def test_a_way_ends_right_below_its_goals(way: Way, trial: Trial, tmp_path: Path) -> None:
    kept: dict = {}
    (line,) = run(trial, [way], kept, tmp_path / "kept.json")
    (row,) = json.loads((tmp_path / "kept.json").read_text()).values()
    assert row == kept[trial.key(way)]
    assert not row["problem"], line
    assert [point["goal"] for point in row["points"]] == [goal.name for goal in goals_of(way)]
    for goal, point in zip(goals_of(way), row["points"], strict=True):
        left = point["macs"] if goal.over == "macs" else 1 - point["rate"]
        assert goal.share - 0.08 < left <= goal.share + 1e-9
    spent = [point["cpu"] for point in row["points"]]
    assert spent == sorted(spent)


def test_without_labels_the_references_are_what_the_network_says(trial: Trial) -> None:
    _, data = replace(trial, labelled=False).references(Settings(preprocess="raw"))
    rows = trial.halves[0]
    assert not data.labelled
    assert data.y.tolist() == outputs(trial.model, trial.x[rows])[0].argmax(1).tolist()
    _, labelled = trial.references(Settings(preprocess="raw"))
    assert labelled.y.tolist() == trial.y[rows].tolist()


def test_a_net_is_judged_on_the_other_half(trial: Trial) -> None:
    graph = Graph(trial.model)
    groups = find_groups(graph)
    small = remove_channels(graph, groups, np.arange(len(groups)) % 4 == 0)
    rows = trial.halves[1]
    before, after = (outputs(one, trial.x[rows])[0].argmax(1) for one in (trial.model, small))
    right, same = after == trial.y[rows], after == before
    assert 0 < right.mean() < 1
    assert right.mean() != same.mean()
    found = Judge(trial, Settings(preprocess="raw"))(small)
    assert found["top-1"] == right.mean()
    assert found["agreement"] == same.mean()
    shares = (right + 2 * right.mean()) / 3
    assert found["shrunk"] == pytest.approx(1 / np.mean(1 / shares))
    assert found["macs"] == count(Graph(small)).macs / count(graph).macs


def test_rows_are_kept_and_a_stopped_run_goes_on(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for number, pixels in zip(trial.y, trial.x, strict=True):
        (tmp_path / "images" / f"{number:04d}").mkdir(parents=True)
        shown = (255 * np.clip(pixels.transpose(1, 2, 0) / 4 + 0.5, 0, 1)).astype(np.uint8)
        Image.fromarray(shown).save(tmp_path / "images" / f"{number:04d}" / "one.png")
    monkeypatch.setattr(thousand_classes, "SIZES", {"tiny": 8})
    monkeypatch.setattr(thousand_classes, "build", lambda name: trial.model)
    place = tmp_path / "kept.json"
    options = ["--images", str(tmp_path / "images"), "--network", "tiny", "-o", str(place)]
    options += ["--split", "0", "1", "--way", "even*/none", "LRP*/none"]
    main(options)
    told = capsys.readouterr()
    kept = json.loads(place.read_text())
    assert list(kept) == [
        f"tiny/{split}/True/{way}/none"
        for split in (0, 1)
        for way in ("even widths, reconstruction", "LRP z+, one ranking")
    ]
    even = [kept[f"tiny/{split}/True/even widths, reconstruction/none"] for split in (0, 1)]
    mean = np.mean([row["points"][1]["top-1"] for row in even])
    (row,) = (line for line in told.out.splitlines() if line.startswith("| even"))
    assert row.split("|")[4].split("/")[0].strip() == f"{mean:.3f}"
    assert "2 splits" in told.out

    del kept["tiny/1/True/LRP z+, one ranking/none"]
    kept["tiny/0/True/LRP z+, one ranking/none"]["cpu"] = 123.0
    place.write_text(json.dumps(kept))
    main(options)
    again = capsys.readouterr()
    *points, line = again.err.splitlines()
    assert len(points) == len(GOALS)
    assert line.split(":")[0] == "tiny/1/True/LRP z+, one ranking/none"
    main(["-o", str(place), "--only-table"])
    assert capsys.readouterr().out == again.out
    assert json.loads(place.read_text())["tiny/0/True/LRP z+, one ranking/none"]["cpu"] == 123.0


def test_splits_that_do_not_reach_a_goal_are_told() -> None:
    point = {"goal": "macs 90%", "top-1": 0.5, "shrunk": 0.4, "agreement": 0.75}
    rows = [{"points": [point]}, {"points": []}]
    assert cell(rows, Goal("macs", 0.9), 2) == "0.500 / 0.400 (0.750, 1 of 2 splits)"
    assert cell(rows, Goal("filters", 0.9), 2) == ""
    assert len(GOALS) == 6


def test_what_another_tool_removed_is_told_by_biases(trial: Trial) -> None:
    graph = Graph(trial.model)
    groups = find_groups(graph)
    dead = np.random.default_rng(0).random(len(groups)) < 0.3
    small = remove_channels(graph, groups, dead)
    assert gone_by(graph, groups, small).tolist() == dead.tolist()
    assert share_gone(groups, small) == pytest.approx(dead.mean())

    other = onnx.ModelProto()
    other.CopyFrom(small)
    (weight,) = (one for one in other.graph.initializer if one.name == "w2")
    changed = numpy_helper.to_array(weight) * np.float32(1.5)
    weight.CopyFrom(numpy_helper.from_array(changed, "w2"))
    with pytest.raises(CannotRun, match="w2: is not what"):
        gone_by(graph, groups, other)
