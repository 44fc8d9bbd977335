"""The campaigns in short: a few kills and faults of each kind. They need Linux."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="forks and waits as on Linux")


@pytest.mark.parametrize(
    ("what", "share", "subjects"),
    [
        ("kills", "7/75", ("iterative, bias", "apply, two files")),
        ("faults", "9/95", ("one-shot, none, two files", "apply, two files")),
    ],
)
def test_nothing_is_lost(what: str, share: str, subjects: tuple[str, ...], tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    command = [sys.executable, "-m", "tests.reliability", what, "--share", share, "-o", str(record)]
    command += [word for one in subjects for word in ("--subject", one)]
    done = subprocess.run([*command, "--uniform", "20"], cwd=ROOT, capture_output=True, text=True)
    found = [json.loads(line) for line in record.read_text("utf-8").splitlines()]
    assert done.returncode == 0, done.stderr
    assert len(found) >= 5
    assert not [one for one in found if one["wrong"]]
