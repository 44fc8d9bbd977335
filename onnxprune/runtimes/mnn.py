"""MNN: one .mnn file, computed in 32-bit floats."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("MNN",)

CONVERTER = "_tools"
"""The compiled converter's module; the script `mnnconvert` around it runs pip by itself."""

EXACT = {"precision": "high"}
"""Without it, CPUs that have half precision compute in that."""


def convert(model: Path, folder: Path) -> Path:
    """Convert a model by the compiled converter."""
    importlib.import_module("MNN")  # loads the libraries that the converter needs
    file = folder / f"{model.stem}.mnn"
    arguments = {"-f": "ONNX", "--modelFile": str(model), "--MNNModel": str(file)}
    flat = [text for pair in {**arguments, "--bizCode": "onnxprune"}.items() for text in pair]
    importlib.import_module(CONVERTER).mnnconvert(["MNNConvert", *flat])
    return file


def load(file: Path, threads: int) -> MnnSession:
    """Start a session on the CPU."""
    return MnnSession(file, threads)


class MnnSession:
    """A model on MNN."""

    def __init__(self, file: Path, threads: int) -> None:
        self._mnn = importlib.import_module("MNN")
        self._net = self._mnn.Interpreter(str(file))
        self._session = self._net.createSession({"numThread": threads, "backend": "CPU", **EXACT})
        self._inputs = self._net.getSessionInputAll(self._session)
        self._outputs = self._net.getSessionOutputAll(self._session)
        self.inputs = [
            (name, self._type(one), [n if n > 0 else None for n in one.getShape()])
            for name, one in self._inputs.items()
        ]
        self.outputs = list(self._outputs)

    def _type(self, tensor: Any) -> Any:
        kinds = {
            self._mnn.Halide_Type_Float: np.float32,
            self._mnn.Halide_Type_Int: np.int32,
            self._mnn.Halide_Type_Uint8: np.uint8,
            self._mnn.Halide_Type_Int64: np.int64,
        }
        return next(found for kind, found in kinds.items() if kind == tensor.getDataType())

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        self._resize({name: tuple(feeds[name].shape) for name in self._inputs})
        for name, tensor in self._inputs.items():
            tensor.copyFrom(self._host(tensor, np.ascontiguousarray(feeds[name])))
        self._net.runSession(self._session)
        return {name: self._read(tensor) for name, tensor in self._outputs.items()}

    def _resize(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Give open axes the sizes of what comes next."""
        changed = [n for n, one in self._inputs.items() if tuple(one.getShape()) != shapes[n]]
        for name in changed:
            self._net.resizeTensor(self._inputs[name], shapes[name])
        if changed:
            self._net.resizeSession(self._session)

    def _read(self, tensor: Any) -> Any:
        shape = list(tensor.getShape())
        host = self._host(tensor, np.zeros(shape, self._type(tensor)))
        tensor.copyToHostTensor(host)
        return np.array(host.getNumpyData()).reshape(shape)

    def _host(self, tensor: Any, values: Any) -> Any:
        """A tensor in the order that ONNX has: N, C, H, W."""
        order = self._mnn.Tensor_DimensionType_Caffe
        return self._mnn.Tensor(values.shape, tensor.getDataType(), values, order)
