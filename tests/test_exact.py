"""Two files that compute the same, and the first node where they do not."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

import onnxprune
from onnxprune import Plan
from onnxprune.cli.commands import main
from onnxprune.errors import InvalidModel
from onnxprune.exact import compare_exactly
from onnxprune.graph import save_model
from tests.support.cuts import Cut
from tests.support.models import model
from tests.test_proof import CHAIN


@pytest.fixture
def cut() -> Cut:
    return Cut(model(CHAIN))


def test_a_model_equals_itself_to_the_last_bit(cut: Cut) -> None:
    found = compare_exactly(cut.graph.model, cut.graph.model, tolerance=0)
    assert found["equal"]
    assert found["largest"] == 0.0
    assert found["runs"] > 1


def test_with_its_plan_a_pruned_model_equals_the_unpruned_one(cut: Cut) -> None:
    plan = Plan.of(cut.groups, cut.dead)
    assert not compare_exactly(cut.graph.model, cut.pruned)["equal"]
    assert compare_exactly(cut.graph.model, cut.pruned, plan=plan)["equal"]


@pytest.mark.parametrize(("name", "node"), [("w", "a"), ("v", "b"), ("u", "y")])
def test_the_first_node_that_differs_is_named(name: str, node: str, cut: Cut) -> None:
    cut.scaled(name, 1.01)
    plan = Plan.of(cut.groups, cut.dead)
    problem = compare_exactly(cut.graph.model, cut.pruned, plan=plan)["problem"]
    assert f"the first node that differs is Conv '{node}', whose output '{node}' diff" in problem


def test_a_difference_within_the_tolerance_counts_as_none(cut: Cut) -> None:
    plan, before = Plan.of(cut.groups, cut.dead), cut.graph.model
    cut.scaled("u", 1.01)
    found = compare_exactly(before, cut.pruned, plan=plan, tolerance=0.011)
    assert found["equal"]
    assert found["largest"] == pytest.approx(0.01, rel=0.01)


def test_samples_show_what_noise_does_not(cut: Cut) -> None:
    x = np.zeros((3, 3, 8, 8), np.float32)
    cut.scaled("w", 1.01)  # of zeros that is nothing
    plan = Plan.of(cut.groups, cut.dead)
    assert compare_exactly(cut.graph.model, cut.pruned, (x, None), plan=plan)["equal"]


def test_numbers_that_are_none_are_named_where_they_begin(cut: Cut) -> None:
    cut.scaled("v", np.nan)
    with pytest.raises(InvalidModel, match=r"output 'y' holds NaN .* begins at Conv 'b', whose"):
        compare_exactly(cut.pruned, cut.pruned)


def test_the_command_says_it_and_its_exit_code_too(cut: Cut, tmp_path: Path) -> None:
    before, after, plan = (str(tmp_path / n) for n in ("a.onnx", "b.onnx", "plan.json"))
    save_model(cut.graph.model, before)
    Plan.of(cut.groups, cut.dead).save(plan)
    onnxprune.run.apply_to(after, before, plan)
    run = CliRunner().invoke(main, ["compare", before, after, "--exact", "--plan", plan])
    assert run.exit_code == 0
    assert "equal: " in run.output
    cut.scaled("v", 1.01)
    save_model(cut.pruned, after)
    run = CliRunner().invoke(main, ["compare", "--exact", before, after, "--plan", plan])
    assert run.exit_code == 1
    assert "error: not equal: output 'y' differs by " in run.output
    assert "the first node that differs is Conv 'b'" in run.output
    run = CliRunner().invoke(main, ["compare", before, after, "--exact", "--json", "-q"])
    assert run.exit_code == 1
    assert json.loads(run.stdout)["equal"] is False


def test_the_file_that_onnxruntime_refuses_is_named(cut: Cut, tmp_path: Path) -> None:
    unknown = onnx.ModelProto()
    unknown.CopyFrom(cut.graph.model)
    unknown.graph.node[0].domain = "my.ops"
    unknown.opset_import.append(onnx.helper.make_opsetid("my.ops", 1))
    files = [tmp_path / "known.onnx", tmp_path / "unknown.onnx"]
    for file, proto in zip(files, (cut.graph.model, unknown), strict=True):
        save_model(proto, file)
    with pytest.raises(InvalidModel, match=r"unknown\.onnx: .*my\.ops"):
        compare_exactly(*files)
