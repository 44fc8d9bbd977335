"""The fuzzer: it notices what is planted, goes on where it stopped, and what it saved ends well."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import InvalidValue
from tests.fuzz import harness
from tests.fuzz.harness import Workers
from tests.fuzz.judging import REFUSED, RESULT, ROOT, Kind, Outcome


def fault(path: Path, out: Path) -> None:
    """Do what the input says."""
    match path.read_text():
        case "fine":
            (out / "result").write_text("x")
        case "refuse":
            raise InvalidValue("x: is 1; expected 2")
        case "raise":
            raise KeyError("x")
        case "lines":
            error = InvalidValue("")
            error.args = ("one\ntwo",)
            raise error
        case "long":
            error = InvalidValue("")
            error.args = ("x" * 5000,)
            raise error
        case "hang":
            while True:
                time.monotonic()
        case "memory":
            np.ones(1 << 31)
        case "crash":
            os.abort()
        case "leave":
            raise SystemExit(0)
        case "write":
            (out.parent / "other").write_text("x")
        case "remove":
            path.unlink()
        case "here":
            Path("x").mkdir()
        case "start":
            subprocess.run(["true"], check=False)
        case "run":
            exec("1")
        case "import":
            (out / "photos.py").write_text("")
            sys.path.insert(0, str(out))
            sys.path_importer_cache.clear()
            __import__("photos")


def plain() -> list[bytes]:
    return [b"fine"]


FAULTS = {
    **{"raise": "KeyError", "hang": "hang", "memory": "MemoryError", "crash": "crash SIGABRT"},
    **{"lines": "message of several lines or control characters", "long": "long message"},
    **{"leave": "SystemExit", "write": "hurt", "remove": "hurt", "here": "hurt", "start": "hurt"},
    **{"run": "hurt", "import": "hurt"},
}


def test_every_planted_fault_is_noticed(tmp_path: Path) -> None:
    workers = Workers(Kind("planted", plain, fault), tmp_path, seconds=0.5, more=1 << 30)
    try:
        ended = {name: workers.judge(name.encode()) for name in ("fine", "refuse", *FAULTS)}
        assert workers.judge(b"fine").good  # after all of them
    finally:
        workers.end()
    assert (ended.pop("fine").ended, ended.pop("refuse").ended) == (RESULT, REFUSED)
    assert {name: outcome.ended for name, outcome in ended.items()} == FAULTS
    assert "fault" in ended["hang"].site
    assert "fault" in ended["raise"].site


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    kind = Kind("planted", lambda: [b"raise", b"fine", b"refuse"], fault)
    first, _ = harness.run(kind, tmp_path / "a", count=10)
    whole, findings = harness.run(kind, tmp_path / "a", count=30)
    alone, _ = harness.run(kind, tmp_path / "b", count=30)
    assert sum(first.values()) == 10
    assert whole == alone
    lines = [(tmp_path / name / "cases.txt").read_text() for name in "ab"]
    assert lines[0] == lines[1]
    assert all(path.read_bytes() for path in findings.folder.glob("planted.*"))


def test_findings_are_told_apart_by_where_they_are() -> None:
    one, other = Outcome("KeyError", "a.py:1:f", "x"), Outcome("KeyError", "a.py:2:f", "x")
    assert harness.name_of(one) == harness.name_of(one._replace(text="y"))
    assert harness.name_of(one) != harness.name_of(other)


def test_a_finding_is_made_smaller(tmp_path: Path) -> None:
    def run(path: Path, out: Path) -> None:
        if b"ab" in path.read_bytes():
            raise KeyError

    kind = Kind("planted", lambda: [b"x"], run)
    data, workers = b"x" * 100 + b"ab" + b"y" * 50, Workers(kind, tmp_path / "worker")
    outcome = workers.judge(data)
    workers.end()
    harness.Findings(tmp_path / "findings").add(kind, data, outcome)
    harness.shrink(kind, tmp_path)
    (path,) = [p for p in (tmp_path / "findings").iterdir() if p.suffix != ".txt"]
    assert path.read_bytes() == b"ab"


def test_inputs_are_the_same_in_every_process() -> None:
    kind = harness.kinds()["models"]
    made = [kind.make(0, index).hex()[:2000] for index in range(3)]
    code = "from tests.fuzz import harness; k = harness.kinds()['models']"
    code += "; print([k.make(0, i).hex()[:2000] for i in range(3)])"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(made)


@pytest.mark.parametrize(
    "kind", ["models", "model-texts", "runs,plans,scores,archives,images,annotations,options"]
)
def test_what_was_saved_and_a_few_new_inputs_end_well(kind: str) -> None:
    command = [sys.executable, "-m", "tests.fuzz.harness", kind, "--corpus", "--count", "25"]
    env = {name: value for name, value in os.environ.items() if name != "ONNXPRUNE_STRICT"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr[-2000:])
