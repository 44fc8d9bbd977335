"""The user's own functions are found as Python would find them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.errors import UnknownName
from onnxprune.plugins import find_function

SOURCE = """
from __future__ import annotations
from dataclasses import dataclass
from neighbour import NUMBER

@dataclass
class Options:
    number: int = NUMBER

def number():
    return Options().number
"""


def test_the_classes_of_a_file_know_their_module(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_plugins.py").write_text("NUMBER = 3\n")
    file = tmp_path / "mine.py"
    file.write_text(SOURCE.replace("neighbour", "neighbour_of_plugins"))
    before = list(sys.path)
    found = find_function(f"{file}:number", "a function")
    assert found() == 3
    assert sys.modules[found.__module__].__file__ == str(file)
    assert sys.path == before


def test_a_file_takes_no_module_s_place(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("def number():\n    return 1\n")
    import torch

    assert find_function(f"{tmp_path}/torch.py:number", "a function")() == 1
    assert sys.modules["torch"] is torch


def test_a_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    for value in (1, 2):
        file.write_text(f"def number():\n    return {value}\n")
        assert find_function(f"{file}:number", "a function")() == value


def test_the_nearest_name_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from pathlib import Path\nX = 1\ndef _hidden(): ...\ndef number(): ...\n")
    with pytest.raises(
        UnknownName, match=r"no 'numbre'; expected a function; did you mean 'number'"
    ):
        find_function(f"{file}:numbre", "a function")
    with pytest.raises(UnknownName, match=r"X: is int; expected a function"):
        find_function(f"{file}:X", "a function")


def test_what_lies_in_the_working_folder_is_not_imported(tmp_path: Path) -> None:
    """Neither by the console's script nor by `python -m`, which puts that folder first."""
    (tmp_path / "photos.py").write_text("open('run', 'w')\ndef load(): ...\n")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    code = "from onnxprune.plugins import find_function as f\n"
    code += "try: f('photos:load', 'a function')\nexcept Exception as error: print(error)"
    module = ["-m", "onnxprune", *"prune m.onnx -o o.onnx --metric photos:load".split()]
    for words in (["-c", code], module):
        found = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert "photos.py in the working folder is run as photos.py:..." in str(found)
    assert not (tmp_path / "run").exists()


def test_an_import_is_said_before_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "installed_for_once.py").write_text("import logging\nlogging.warning('runs')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with caplog.at_level(logging.INFO), pytest.raises(UnknownName, match="has no 'load'"):
        find_function("installed_for_once:load", "a function")
    assert caplog.messages == [
        f"importing installed_for_once ({tmp_path / 'installed_for_once.py'})",
        "runs",
    ]


@pytest.mark.parametrize("code", ["import sys; sys.exit(0)", "raise SystemExit", "exit()"])
def test_a_file_cannot_end_the_program(tmp_path: Path, code: str) -> None:
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UnknownName, match=r"cannot be imported \(SystemExit"):
        find_function(f"{tmp_path}/mine.py:load", "a function")
