"""OpenVINO: IR, an .xml beside the weights in a .bin, in 32-bit floats throughout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("openvino",)

SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # else CPUs that have bfloat16 compute in that
    "ENABLE_CPU_PINNING": False,  # a thread that is pinned waits for a core that others use
}


def convert(model: Path, folder: Path) -> Path:
    """Write a model as IR, weights as they are."""
    import openvino

    file = folder / f"{model.stem}.xml"
    openvino.save_model(openvino.convert_model(model), file, compress_to_fp16=False)
    return file


def load(file: Path, threads: int) -> OpenVinoSession:
    """Compile a model for the CPU."""
    return OpenVinoSession(file, threads)


class OpenVinoSession:
    """A model compiled by OpenVINO."""

    def __init__(self, file: Path, threads: int) -> None:
        import openvino

        settings = {**SETTINGS, "INFERENCE_NUM_THREADS": threads}
        compiled = openvino.Core().compile_model(str(file), "CPU", settings)
        self._request = compiled.create_infer_request()
        self.inputs = [
            (_name(port), port.element_type.to_dtype(), _shape(port)) for port in compiled.inputs
        ]
        self.outputs = [_name(port) for port in compiled.outputs]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model once."""
        values = [feeds[name] for name, _, _ in self.inputs]
        found = self._request.infer(dict(enumerate(values)), share_inputs=True).to_tuple()
        return dict(zip(self.outputs, map(np.array, found), strict=True))


def _name(port: Any) -> str:
    return str(port.any_name)


def _shape(port: Any) -> list[int | None] | None:
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return None
    return [None if size.is_dynamic else size.get_length() for size in shape]
