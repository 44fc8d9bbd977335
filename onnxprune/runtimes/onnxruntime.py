"""onnxruntime: the ONNX file as it is, in a process of its own."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("onnxruntime",)

TYPES = {"float": "float32", "double": "float64"}
"""Element types whose name differs from NumPy's."""


def convert(model: Path, folder: Path) -> Path:
    """Copy a model, with the files of its weights."""
    for file in model.parent.glob(f"{model.name}*"):
        shutil.copyfile(file, folder / file.name)
    return folder / model.name


def load(file: Path, threads: int) -> OnnxSession:
    """Start a session on the CPU."""
    return OnnxSession(file, threads)


class OnnxSession:
    """A model on onnxruntime."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised, not printed
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [
            (one.name, _type(one.type), _shape(one)) for one in self._session.get_inputs()
        ]
        self.outputs = [one.name for one in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        found = self._session.run(None, dict(feeds))
        return dict(zip(self.outputs, map(np.asarray, found), strict=True))


def _type(text: str) -> str:
    """`tensor(float)` is NumPy's float32."""
    name = text.removeprefix("tensor(").removesuffix(")")
    return TYPES.get(name, name)


def _shape(port: Any) -> list[int | None]:
    return [size if isinstance(size, int) else None for size in port.shape]
