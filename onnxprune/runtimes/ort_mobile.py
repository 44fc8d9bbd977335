"""ONNX Runtime Mobile: an .ort file, and the list of operators that a small build needs."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

PACKAGES = ("onnxruntime", "onnx")


def convert(model: Path, folder: Path) -> Path:
    """Convert a model by onnxruntime's own tool."""
    place = Path("ort")
    place.mkdir(exist_ok=True)
    tool = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
    options = ["--output_dir", str(place), "--optimization_style=Fixed"]
    subprocess.run([*tool, *options, str(model)], check=True)
    file = folder / f"{model.stem}.ort"
    shutil.move(place / file.name, file)
    shutil.move(place / f"{model.stem}.required_operators.config", folder)
    return file


def load(file: Path, threads: int) -> Any:
    """Start a session on the CPU, as for an ONNX file."""
    return runpy.run_path(str(Path(__file__).with_name("onnxruntime.py")))["load"](file, threads)
