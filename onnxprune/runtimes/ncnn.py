"""ncnn: a .param beside the weights in a .bin, by pnnx; no batch axis, 32-bit floats."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("ncnn", "pnnx")


def convert(model: Path, folder: Path) -> Path:
    """Convert a model by pnnx's program: its Python package imports torch.

    Raises: ValueError where a batch of several samples, or an axis left open, is asked for.
    """
    found = importlib.util.find_spec("pnnx")
    assert found is not None
    assert found.origin is not None
    program = Path(found.origin).with_name("pnnx.exe" if sys.platform == "win32" else "pnnx")
    file = folder / f"{model.stem}.ncnn.param"
    weights = file.with_suffix(".bin")
    wanted = [f"ncnnparam={file}", f"ncnnbin={weights}", "fp16=0", "optlevel=2"]
    rest = [f"{name}=rest.{name}" for name in ("pnnxparam", "pnnxbin", "pnnxonnx")]
    scripts = [f"{name}={name}.py" for name in ("pnnxpy", "ncnnpy")]
    subprocess.run([str(program), str(model), *wanted, *rest, *scripts], check=True)
    return file


def load(file: Path, threads: int) -> NcnnSession:
    """Load a network for the CPU."""
    return NcnnSession(file, threads)


class NcnnSession:
    """A network on ncnn: what goes in and comes out has no batch axis there."""

    def __init__(self, file: Path, threads: int) -> None:
        self._ncnn = importlib.import_module("ncnn")
        self._net = self._ncnn.Net()
        options = self._net.opt
        options.num_threads, options.use_vulkan_compute = threads, False
        for half in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
            setattr(options, f"use_{half}", False)
        for path, read in (
            (file, self._net.load_param),
            (file.with_suffix(".bin"), self._net.load_model),
        ):
            if read(str(path)):
                raise ValueError(f"{path.name}: {_why(file, self._ncnn.layer_to_index)}")
        self.inputs = [(name, "float32", None) for name in _in_order(self._net.input_names())]
        self.outputs = _in_order(self._net.output_names())

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run the network once. Shapes: a leading axis of 1 goes, and comes back."""
        extractor = self._net.create_extractor()
        held = {name: np.ascontiguousarray(_single(feeds[name])) for name, _, _ in self.inputs}
        for name, value in held.items():
            extractor.input(name, self._ncnn.Mat(value).clone())  # layers write into what they get
        return {name: self._read(extractor, name) for name in self.outputs}

    def _read(self, extractor: Any, name: str) -> Any:
        code, found = extractor.extract(name)
        if code:
            raise ValueError(f"output {name}: cannot be computed (code {code})")
        return np.array(found)[None]


def _why(file: Path, index: Callable[[str], int]) -> str:
    """Why a network cannot be read: mostly a layer that pnnx left as ONNX has it."""
    lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines()[2:]]
    unknown = sorted({line[0] for line in lines if line and index(line[0]) < 0})
    if not unknown:
        return "ncnn cannot read it"
    return f"ncnn has no layer {', '.join(unknown)}; export the model without it"


def _in_order(names: Iterable[str]) -> list[str]:
    """Names in the order of the ONNX model: pnnx numbers them, ncnn lists them as they occur."""
    return sorted(names, key=lambda name: (len(name), name))


def _single(value: Any) -> Any:
    if value.shape[:1] != (1,):
        raise ValueError(f"takes one sample at a time, this input is {list(value.shape)}")
    return value[0]
