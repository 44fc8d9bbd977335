"""The net of `tests.support.deployed`, as a file."""

from pathlib import Path

import onnx
import pytest

from tests.support.deployed import NET


@pytest.fixture
def net(tmp_path: Path) -> Path:
    onnx.save(NET, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"
