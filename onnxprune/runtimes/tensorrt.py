"""TensorRT: an engine for the GPU that it is built on, in 32-bit floats."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("tensorrt", "cuda")


def convert(model: Path, folder: Path) -> Path:
    """Build an engine.

    Raises: ValueError with what TensorRT's parser says of a model that it does not take.
    """
    rt = importlib.import_module("tensorrt")
    logger = rt.Logger(rt.Logger.WARNING)
    builder = rt.Builder(logger)
    network = builder.create_network(0)
    parser = rt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        raise ValueError(parser.get_error(0).desc())
    config = builder.create_builder_config()
    config.clear_flag(rt.BuilderFlag.TF32)  # its products have three digits
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ValueError("builds no engine of this model")
    file = folder / f"{model.stem}.engine"
    file.write_bytes(engine)
    return file


def load(file: Path, threads: int) -> TensorRtSession:
    """Load an engine on the GPU; threads do not matter there."""
    return TensorRtSession(file)


class TensorRtSession:
    """An engine with room on the GPU for each of its tensors."""

    def __init__(self, file: Path) -> None:
        rt = importlib.import_module("tensorrt")
        self._cuda = importlib.import_module("cuda.bindings.runtime")
        self._runtime = rt.Runtime(rt.Logger(rt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(file.read_bytes())
        if self._engine is None:
            raise ValueError(f"{file.name}: was built by another version, or for another GPU")
        self._context = self._engine.create_execution_context()
        self._stream = self._done(self._cuda.cudaStreamCreate())
        self._held: dict[str, Any] = {}
        self._places: dict[str, int] = {}
        self.inputs, self.outputs = [], list[str]()
        for number in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(number)
            shape = tuple(self._engine.get_tensor_shape(name))
            values = np.zeros(shape, rt.nptype(self._engine.get_tensor_dtype(name)))
            self._held[name] = values
            self._places[name] = self._done(self._cuda.cudaMalloc(max(values.nbytes, 1)))
            self._context.set_tensor_address(name, self._places[name])
            if self._engine.get_tensor_mode(name) == rt.TensorIOMode.INPUT:
                self.inputs.append((name, values.dtype, list(shape)))
            else:
                self.outputs.append(name)

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the engine once."""
        kind = self._cuda.cudaMemcpyKind
        for name, dtype, _ in self.inputs:
            values = np.ascontiguousarray(feeds[name], dtype)
            place, bytes_ = self._places[name], values.nbytes
            self._done(
                self._cuda.cudaMemcpy(
                    place, values.ctypes.data, bytes_, kind.cudaMemcpyHostToDevice
                )
            )
        if not self._context.execute_async_v3(int(self._stream)):
            raise ValueError("the engine does not run")
        self._done(self._cuda.cudaStreamSynchronize(self._stream))
        for name in self.outputs:
            values = self._held[name]
            place, bytes_ = self._places[name], values.nbytes
            self._done(
                self._cuda.cudaMemcpy(
                    values.ctypes.data, place, bytes_, kind.cudaMemcpyDeviceToHost
                )
            )
        return {name: self._held[name].copy() for name in self.outputs}

    def _done(self, answer: tuple[Any, ...]) -> Any:
        """What a CUDA call returns behind its error code."""
        code, *found = answer
        if int(code):
            raise ValueError(f"CUDA: {code!r}")
        return found[0] if found else None
