"""The campaigns in short: a few kills and faults of each kind. They need Linux."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reliability.calls import UNSEEN, Call, disordered

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks and waits as on Linux")


@pytest.mark.parametrize(
    ("what", "share", "subjects"),
    [
        ("kills", "7/75", ("iterative, bias", "apply, two files")),
        ("faults", "9/190", ("one-shot, none, two files", "apply, two files")),
        ("signals", "5/13", ("accuracy-aware, least-squares",)),
        ("order", "1/1", ("apply, two files", "deploy", "compare")),
    ],
)
def test_nothing_is_lost(what: str, share: str, subjects: tuple[str, ...], tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    command = [sys.executable, "-m", "tests.reliability", what, "--share", share, "-o", str(record)]
    command += [word for one in subjects for word in ("--subject", one)]
    done = subprocess.run([*command, "--uniform", "20"], cwd=ROOT, capture_output=True, text=True)
    found = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(found) >= 3
    assert not [one for one in found if one["wrong"]]


def test_the_order_of_writing_is_looked_at() -> None:
    made = [Call("open", "a"), Call("write", "a"), Call("fsync", "a"), Call("replace", "a", "d/b")]
    assert disordered([*made, Call("fsync", "d")]) == []
    assert disordered(made) == ["d/b: its name may not be on the disk"]
    late = [*made[:3], Call("write", "a"), made[3], Call("fsync", "d")]
    assert disordered(late) == ["d/b: got its name before it was on the disk"]
    assert disordered([Call(UNSEEN, "c")]) == ["c: opened by other ways than those of files.py"]
