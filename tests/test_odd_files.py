"""Files with odd names, and functions that end the program, end in a result or in one line."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image

from onnxprune.cli.commands import main
from tests.support.models import model

NET = """
net (float[N,3,8,8] x) => (float[N,2] y) <float[6,3,3,3] wa, float[4,6,3,3] wb, float[2,4] wy> {
  a = Conv(x, wa) b = Relu(a) c = Conv(b, wb) e = GlobalAveragePool(c) f = Flatten(e)
  y = Gemm<transB=1>(f, wy)
}
"""
QUICK = ("--trust-baseline", "--threads", "1", "--device", "cpu", "--rate", "0.3")


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    """A folder of classes, an image, the model, and what is written."""
    base = os.fsencode(tmp_path)
    rng = np.random.default_rng(0)
    for name in (b"caf\xe9", b"\xff\xfe"):
        Path(os.fsdecode(base + b"/data/" + name)).mkdir(parents=True)
        for number in range(3):
            file = base + b"/data/" + name + b"/\xe9%d.png" % number
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(os.fsdecode(file))
    names = [
        os.fsdecode(base + b"/" + one) for one in (b"m\xe9.onnx", b"small\xe9.onnx", b"run\xe9")
    ]
    Path(names[0]).write_bytes(model(NET).SerializeToString())
    words = ["prune", names[0], "--data", f"{tmp_path}/data", "-o", names[1], "--run-dir", names[2]]
    found = CliRunner().invoke(main, [*words, *QUICK])
    assert found.exit_code == 0, found.output
    assert r"m\xe9.onnx" not in found.stdout and r"small\xe9.onnx" in found.stderr
    page = (Path(names[2]) / "report.html").read_text("utf-8")
    assert r"caf\xe9" in page and r"\xff\xfe" in page
    again = CliRunner().invoke(main, ["report", names[2]])
    assert again.exit_code == 0, again.output
    compared = CliRunner().invoke(
        main,
        ["compare", names[0], names[1], "--data", f"{tmp_path}/data", "--trust-baseline", "--json"],
    )
    assert compared.exit_code == 0, compared.output
    classes = json.loads(compared.stdout)["after"]["accuracy"]["per_class"]
    assert {os.fsencode(name) for name in classes} == {b"caf\xe9", b"\xff\xfe"}


@pytest.mark.parametrize("raises", ["sys.exit(0)", "raise SystemExit", "raise KeyError('x')"])
@pytest.mark.parametrize("option", ["--control", "--criterion", "--metric", "--data"])
def test_a_function_that_ends_the_program_writes_no_success(
    tmp_path: Path, option: str, raises: str
) -> None:
    onnx.save(model(NET), tmp_path / "m.onnx")
    (tmp_path / "mine.py").write_text(f"import sys\ndef mine(*given, **more):\n    {raises}\n")
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 3, 8, 8), np.float32), y=np.arange(4) % 2)
    given = {"--data": str(tmp_path / "d.npz"), option: f"{tmp_path}/mine.py:mine"}
    words = ["prune", f"{tmp_path}/m.onnx", "-o", f"{tmp_path}/o.onnx", *QUICK]
    words += [word for pair in given.items() for word in pair]
    found = CliRunner().invoke(main, words)
    errors = [line for line in found.stderr.splitlines() if line.startswith("error: ")]
    assert found.exit_code == 1 and len(errors) == 1, found.output
    assert not (tmp_path / "o.onnx").exists()
