"""What needs no torch loads none: importing any room, inspect, apply."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "onnxprune"
MODEL = ROOT / "samples" / "fashion_mnist" / "model.onnx"


def run_python(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


LIGHT = (
    "onnxprune",
    *sorted(f"onnxprune.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py")),
)
LOADED = "import sys; print('loaded:', *sorted({'torch', 'onnxruntime'} & set(sys.modules)))"


@pytest.mark.parametrize("module", LIGHT)
def test_importing_loads_no_torch(module: str) -> None:
    assert run_python(f"import {module}\n{LOADED}") == "loaded:\n"


def test_listing_converters_loads_no_framework() -> None:
    code = f"import onnxprune.converters as c; assert c.CONVERTERS\n{LOADED}"
    assert run_python(code) == "loaded:\n"


def test_a_loaded_torch_is_seen() -> None:
    assert run_python(f"import torch\n{LOADED}") == "loaded: torch\n"


CLI = f"""
import sys
from onnxprune.cli import main
try:
    main(sys.argv[1:])
except SystemExit as stop:
    assert not stop.code, stop.code
{LOADED}
"""


def test_inspect_loads_no_torch() -> None:
    assert run_python(CLI, "inspect", str(MODEL)).endswith("loaded:\n")


def test_apply_loads_no_torch(tmp_path: Path) -> None:
    prune = ("prune", str(MODEL), "--control", "one-shot", "--criterion", "magnitude")
    run_python(
        CLI,
        *(*prune, "--rate", "0.3", "--compensate", "none"),
        *("-o", str(tmp_path / "pruned.onnx"), "--run-dir", str(tmp_path / "run")),
    )
    again = tmp_path / "again.onnx"
    plan = tmp_path / "run" / "plan.json"
    printed = run_python(CLI, "apply", str(MODEL), str(plan), "-o", str(again))
    assert printed.endswith("loaded: onnxruntime\n")  # which runs what was written
    assert again.read_bytes() == (tmp_path / "pruned.onnx").read_bytes()
