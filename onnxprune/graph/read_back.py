"""Files that are read again before they take their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import ModelProto

from onnxprune.errors import OutputError
from onnxprune.graph.storage import digest, load_model


def reads_back(model: ModelProto) -> Callable[[Path], None]:
    """Return a check of a file: that a model which is read from it is this one.

    Raises: OutputError, when called with the path of a file that holds another.
    """
    expected = digest(model)

    def check(path: Path) -> None:
        if digest(load_model(path)) != expected:
            raise OutputError(f"{path.parent}: a file reads back otherwise than it was written")

    return check
