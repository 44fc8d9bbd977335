"""`--log-json`: stderr is JSON lines, whatever is written to it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from onnxprune.cli.commands import main
from tests.support.small_net import Small


def events(run: Result) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in run.stderr.splitlines()]
    assert all({"time", "elapsed", "event"} <= one.keys() for one in found)
    return found


def of(kind: str, run: Result) -> list[dict[str, Any]]:
    return [one for one in events(run) if one["event"] == kind]


@pytest.fixture
def pruned(small: Small, tmp_path: Path) -> Result:
    command = ["prune", str(small.path), "-o", str(tmp_path / "a.onnx"), "--data", str(small.data)]
    options = ["--rate", "0.4", "--trust-baseline", "--run-dir", str(tmp_path / "run")]
    return CliRunner().invoke(main, [*command, *options, "--log-json"])


def test_every_line_is_an_event_and_the_last_one_the_exit_code(pruned: Result) -> None:
    found = events(pruned)
    assert found[0]["event"] == "start"
    assert {"onnxprune", "onnx", "onnxruntime", "torch", "numpy", "python"} <= found[0][
        "versions"
    ].keys()
    assert (found[-1]["event"], found[-1]["exit_code"]) == ("end", 0)
    elapsed = [one["elapsed"] for one in found]
    assert elapsed == sorted(elapsed)


def test_steps_are_those_of_the_journal(pruned: Result, tmp_path: Path) -> None:
    lines = (tmp_path / "run" / "journal.jsonl").read_text("utf-8").splitlines()
    journal = [json.loads(line) for line in lines]
    steps = of("step", pruned)
    for name in ("rate", "params", "macs", "evaluations", "corrected", "stopped"):
        assert [one[name] for one in steps] == [line[name] for line in journal], name


def test_phases_of_the_log_are_those_of_the_report(pruned: Result, tmp_path: Path) -> None:
    report = json.loads((tmp_path / "run" / "report.json").read_text("utf-8"))
    assert report["seconds"] <= sum(report["phases"].values()) + 0.1
    told = {one["phase"] for one in of("phase", pruned)}
    assert set(report["phases"]) - {"other"} <= told
    assert {"analysis", "damage", "surgery", "evaluation", "checking", "writing"} <= told


def test_what_people_read_is_the_text_of_a_line(pruned: Result, tmp_path: Path) -> None:
    texts = [one["text"] for one in of("log", pruned)]
    assert f"pruned model: {tmp_path / 'a.onnx'}" in texts


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["inspect", "missing.onnx"], 1, "missing.onnx: no such file"),
        (["inspect", "--nonsense"], 2, "No such option"),
    ],
)
def test_an_error_is_a_line_with_its_level(arguments: list[str], code: int, text: str) -> None:
    run = CliRunner().invoke(main, [*arguments, "--log-json"])
    (error,) = of("log", run)
    assert error["level"] == "error"
    assert text in error["text"]
    assert run.exit_code == events(run)[-1]["exit_code"] == code


def test_what_is_printed_unfinished_is_not_lost() -> None:
    code = (
        "import sys; from onnxprune.cli.logs import logged\n"
        "with logged(['--log-json']): sys.stderr.write('warning: half a line \\u2212')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    said = [json.loads(line) for line in done.stderr.decode("ascii").splitlines()]
    assert [one["text"] for one in said if one["event"] == "log"] == ["half a line \u2212"]
    assert said[1]["level"] == "warning"
