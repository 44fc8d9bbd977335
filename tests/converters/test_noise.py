"""What exporters print, from Python and from compiled code, is kept off the screen."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.converters._noise import quiet


def test_compiled_code_prints_into_the_log(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    os.write(1, b"before\n")
    with quiet():
        os.write(1, b"a whole graph\n")
        os.write(2, b"progress\n")
    os.write(1, b"after\n")
    assert capfd.readouterr() == ("before\nafter\n", "progress\n")
    assert "a whole graph" in caplog.text


def test_nothing_is_lost_where_an_exporter_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no way"), quiet():
        raise ValueError("no way")
    os.write(1, b"after\n")
    assert capfd.readouterr().out == "after\n"


def test_a_process_without_stdout_converts_as_well(tmp_path: Path) -> None:
    code = """
import os
from onnxprune.converters._noise import quiet
os.close(1)
with quiet():
    print("something")
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_graph_of_an_export_that_fails_is_not_printed(tmp_path: Path) -> None:
    """torch's classic exporter writes it to stdout, from C++."""
    (tmp_path / "nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return torch.special.bessel_j0(x)\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "onnxprune", "convert", f"{tmp_path}/nets.py:Net"]
    asked = ["--from", "pytorch", "--input-shape", "3,8,8", "--exporter", "classic"]
    to = ["-o", str(tmp_path / "net.onnx")]
    found = subprocess.run([*command, *asked, *to], capture_output=True, text=True, check=False)
    assert found.returncode == 1 and found.stdout == ""
    assert "the classic exporter failed" in found.stderr.splitlines()[-1]
