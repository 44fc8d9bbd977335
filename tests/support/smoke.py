"""What the base installation serves, tried where nothing else is installed.

    python -I tests/support/smoke.py

`tasks.py release` runs it in an empty environment of each Python.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def onnxprune(*arguments: object, code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run the program that is installed beside this Python, and hold it to its exit code."""
    program = Path(sys.executable).parent / "onnxprune"
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def smoke(folder: Path) -> None:
    """Look at the sample, take eight filters of a layer by a plan, and compare."""
    from onnxprune.samples import fashion_mnist as sample

    onnxprune("--version")
    found = json.loads(onnxprune("inspect", sample.MODEL, "--json").stdout)
    group = next(one for one in found["groups"] if one["filters"] == one["channels"] > 8)
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"format": 1, "removed": {group["name"]: list(range(8))}}))
    small = folder / "small.onnx"
    onnxprune("apply", sample.MODEL, plan, "-o", small)
    compared = ("compare", sample.MODEL, small, "--data", sample.TEST, "--threads", 1, "--json")
    figures = json.loads(onnxprune(*compared).stdout)
    assert figures["after"]["params"] < figures["before"]["params"]
    if importlib.util.find_spec("torch") is None:
        refused = onnxprune(
            *("prune", sample.MODEL, "--data", sample.REFERENCE, "-o", folder / "x.onnx"), code=1
        )
        assert 'pip install "onnxprune[cpu]"' in refused.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as empty:
        smoke(Path(empty))
    sys.stdout.write(f"Python {sys.version.split()[0]}: the base installation works\n")
