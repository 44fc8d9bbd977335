"""LiteRT (TensorFlow Lite): a .tflite file by onnx2tf, with the inputs in the order ONNX has."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("onnx2tf", "ai_edge_litert", "onnx")


def convert(model: Path, folder: Path) -> Path:
    """Convert a model by onnx2tf, which tries orders of axes until its outputs are as in ONNX."""
    held = importlib.import_module("onnx").load(str(model), load_external_data=False).graph
    constants = {tensor.name for tensor in held.initializer}
    names = [value.name for value in held.input if value.name not in constants]
    importlib.import_module("onnx2tf").convert(
        input_onnx_file_path=str(model),
        output_folder_path="saved",
        keep_ncw_or_nchw_or_ncdhw_input_names=names,
        non_verbose=True,
    )
    file = folder / f"{model.stem}.tflite"
    file.write_bytes(Path("saved", f"{model.stem}_float32.tflite").read_bytes())
    return file


def load(file: Path, threads: int) -> LiteRtSession:
    """Start an interpreter on the CPU."""
    return LiteRtSession(file, threads)


class LiteRtSession:
    """A model on LiteRT."""

    def __init__(self, file: Path, threads: int) -> None:
        interpreter = importlib.import_module("ai_edge_litert.interpreter").Interpreter
        self._net = interpreter(str(file), num_threads=threads)
        self._net.allocate_tensors()
        self._inputs = {one["name"]: one for one in self._net.get_input_details()}
        self._outputs = {one["name"]: one for one in self._net.get_output_details()}
        self.inputs = [
            (name, one["dtype"], [int(size) for size in one["shape"]])
            for name, one in self._inputs.items()
        ]
        self.outputs = list(self._outputs)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        for name, one in self._inputs.items():
            self._net.set_tensor(one["index"], np.ascontiguousarray(feeds[name]))
        self._net.invoke()
        return {name: self._net.get_tensor(one["index"]) for name, one in self._outputs.items()}
