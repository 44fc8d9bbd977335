"""A comparison fails by its exit code, and the workflow of docs/how-to/ci.md does what it says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml
from click.testing import CliRunner, Result

import onnxprune
from onnxprune.cli.commands import main
from tests.support.runs import FREE
from tests.support.small_net import Small

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to" / "ci.md"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: Small) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(small.proto, "model.onnx")
    onnx.save(onnxprune.prune(small.proto, rate=0.7, **FREE).model, "small.onnx")
    return tmp_path


def compare(small: Small, *arguments: str, other: str = "small.onnx") -> Result:
    work = ("--data", str(small.data), "--threads", "1")
    return CliRunner().invoke(main, ["compare", "model.onnx", other, *work, *arguments])


def test_a_condition_that_holds_is_one_line_and_exit_code_1(small: Small) -> None:
    done = compare(small, "--fail-if", "params_ratio > 0.9 or harmonic_drop > 5%")
    assert done.exit_code == 1
    assert re.fullmatch(
        r"error: --fail-if: harmonic_drop > 0.05 \(harmonic_drop is [\d.]+\)\n", done.stderr
    )
    assert "Parameters" in done.stdout


def test_a_condition_that_does_not_hold_is_exit_code_0(small: Small) -> None:
    done = compare(small, "--fail-if", "harmonic_drop > 0 or size_ratio > 1", other="model.onnx")
    assert (done.exit_code, done.stderr) == (0, "")


def test_a_page_shows_two_models(small: Small, folder: Path) -> None:
    assert compare(small, "--page", "two.html", "--markdown", "two.md").exit_code == 0
    page = (folder / "two.html").read_text("utf-8")
    assert "<h1>model.onnx → small.onnx</h1>" in page
    assert "% smaller" in page
    assert "the first and the second model looked at" in page.replace("\n", " ")
    lines = (folder / "two.md").read_text("utf-8").splitlines()
    figures = [line for line in lines if line.startswith(("| Parameters", "| MACs", "| Filters"))]
    assert len(figures) == 3
    assert all(line.split("|")[2].strip() in page for line in figures)
    assert "evidence" not in compare(small, "--json", "--page", "two.html").stdout
    assert compare(small, "--page", "model.onnx").exit_code == 1
    assert compare(small, "--page", "two", "--markdown", "two").exit_code == 1
    assert compare(small, "--exact", "--page", "two.html").exit_code == 2


@pytest.mark.parametrize("given", ["small.onnx", "edge"])
def test_what_is_no_run_is_told_how_to_get_a_page(folder: Path, given: str) -> None:
    (folder / "edge").mkdir()
    (folder / "edge" / "deploy.json").write_text("{}")
    done = CliRunner().invoke(main, ["report", given])
    assert done.exit_code == 1
    assert done.stderr.endswith("onnxprune report A B --data TEST\n")


def test_a_report_of_two_models_is_the_page_of_their_comparison(small: Small) -> None:
    deployed = "--to", "ort-mobile,onnxruntime", "--data", str(small.data), "-o", "edge"
    assert CliRunner().invoke(main, ["deploy", "small.onnx", *deployed]).exit_code == 0
    words = ["report", "edge/small.ort", "edge/small.onnx"]
    work = ["--data", str(small.data), "--threads", "1", "--trust-baseline", "-o"]
    done = CliRunner().invoke(main, [*words, *work, "two.html"])
    assert (done.exit_code, done.stdout) == (0, "two.html\n")
    page = Path("two.html").read_text("utf-8")
    assert "<h1>small.ort → small.onnx</h1>" in page
    assert "24 samples" in page
    asked = CliRunner().invoke(main, words)
    assert (asked.exit_code, "--data" in asked.stderr) == (2, True)
    assert CliRunner().invoke(main, [*words, *work, "edge/small.ort"]).exit_code == 1
    for other in (words[2], "other.onnx"):
        gone = CliRunner().invoke(main, ["report", "none.onnx", other, *work, "two.html"])
        assert (gone.exit_code, "none.onnx" in gone.stderr) == (1, True)


def test_what_two_models_are_compared_by_is_not_for_runs() -> None:
    done = CliRunner().invoke(main, ["report", "run", "run", "--threads", "1"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: --threads: is for two models, not for runs")


@pytest.mark.parametrize("text", ["harmonic_dorp > 1", "harmonic_drop", "", "harmonic_drop >"])
def test_a_wrong_condition_is_refused_before_anything_is_read(text: str) -> None:
    words = ["compare", "missing.onnx", "missing.onnx", "--data", "missing", "--fail-if", text]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Invalid value for '--fail-if': ")
    assert "missing" not in line


def test_json_names_the_classes_and_is_whole_where_the_condition_holds(small: Small) -> None:
    done = compare(small, "--json", "--fail-if", "samples > 1")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert list(found["before"]["accuracy"]["per_class"]) == found["classes"] == ["0", "1", "2"]


def test_markdown_goes_to_the_screen_or_to_a_file(small: Small) -> None:
    shown = compare(small, "--markdown")
    said, _, *table = shown.stdout.splitlines()
    assert said.startswith("More than half of the accuracy is gone")
    assert table[0] == "|  | before | after | change |"
    assert "\u2500" not in shown.stdout
    both = compare(small, "--markdown", "table.md", "--json", "--fail-if", "samples > 1")
    assert both.exit_code == 1
    assert json.loads(both.stdout)["samples"] == 24
    assert (
        Path("table.md").read_text("utf-8").startswith("**Failed:** `samples > 1 (samples is 24)`")
    )
    assert compare(small, "--markdown", "nowhere/table.md").exit_code == 1
    assert compare(small, "--markdown", "--json").exit_code == 2


# The workflow


def workflow() -> dict[Any, Any]:
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def steps() -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in workflow()["jobs"]["compare"]["steps"] if "name" in one}


def test_the_workflow_is_one_of_github() -> None:
    found = workflow()
    assert found.keys() == {"name", True, "permissions", "jobs"}  # YAML reads `on` as true
    assert found[True]["pull_request"]["paths"] == ["models/**"]
    (job,) = found["jobs"].values()
    assert job["runs-on"].startswith("ubuntu")
    for step in job["steps"]:
        assert ("uses" in step) != ("run" in step)
        assert step.keys() <= {"uses", "with", "name", "env", "run", "if", "continue-on-error"}


def test_the_workflow_can_be_followed(folder: Path, small: Small) -> None:
    (folder / "models").mkdir()
    for name in ("model.onnx", "small.onnx"):
        Path(name).rename(folder / "models" / name)
    (folder / "bin").mkdir()
    gh = folder / "bin" / "gh"
    gh.write_text('#!/bin/sh\necho "$@" > called\n')
    gh.chmod(0o755)
    programs = [str(gh.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    known = {**os.environ, "PATH": os.pathsep.join(programs), "GITHUB_STEP_SUMMARY": "summary.md"}
    results = {}
    for name in ("Compare", "Show the table", "Comment on the pull request"):
        step = steps()[name]
        env = {
            key: re.sub(r"\$\{\{.*?\}\}", "7", text) for key, text in step.get("env", {}).items()
        }
        script = step["run"].replace("test/", str(small.data))
        done = subprocess.run(
            ["bash", "-e", "-c", script], env={**known, **env}, capture_output=True, text=True
        )
        results[name] = done.returncode
        if name == "Compare":
            assert done.stderr.splitlines()[-1].startswith(
                "error: --fail-if: harmonic_drop > 0.01 ("
            )
    assert list(results.values()) == [1, 0, 0]
    assert Path("summary.md").read_text("utf-8").startswith("**Failed:** ")
    assert Path("called").read_text() == (
        "pr comment 7 --body-file comparison.md --edit-last --create-if-none\n"
    )
