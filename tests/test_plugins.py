"""The user's own functions are found as Python would find them."""

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
