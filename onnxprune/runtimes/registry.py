"""The runtimes that a model can be deployed to, each a module of its own.

A module says which `PACKAGES` it needs and has two functions: `convert(model, folder)` writes files
into a folder and returns the path of the main one; `load(file, threads)` returns a `Session`. It
is run by its path in a process of its own (`onnxprune.runtimes.child`), so it imports nothing of
this package.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from onnxprune.errors import InvalidModel, UnknownName, check_name
from onnxprune.plugins import check_given

OWN = "file.py"
"""What stands for a runtime of one's own: a module as described above."""


class Session(Protocol):
    """A loaded model.

    `inputs` are the name, the type and the shape of each, None for an axis or a rank that is open;
    `outputs` are names. Names that a runtime has lost are replaced by those of the ONNX model, in
    its order.
    """

    inputs: Sequence[tuple[str, Any, Sequence[int | None] | None]]
    outputs: Sequence[str]

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Mapping[str, npt.NDArray[Any]]:
        """Run the model once."""
        ...


GPU = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
"""For a runtime that needs a GPU; others do not see one."""


@dataclass(frozen=True)
class Runtime:
    """A runtime: its module, the suffix of its files, and the extra that installs it.

    `beside` is the suffix of a second file, in the place of the first one's last. `environment` are
    variables of its process.
    """

    name: str
    module: Path
    suffix: str = ""
    beside: str = ""
    extra: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def ending(self) -> str:
        """What stands behind the last dot of its files, with the dot."""
        return Path(f"model{self.suffix}").suffix

    def files(self, path: Path) -> list[Path]:
        """Return the files that a deployed model consists of."""
        return [path, path.with_suffix(self.beside)] if self.beside else [path]


def _known(name: str, suffix: str, **more: Any) -> Runtime:
    file = Path(__file__).with_name(f"{name.replace('-', '_')}.py")
    return Runtime(name, file, suffix, **{"extra": name, **more})


RUNTIMES: Mapping[str, Runtime] = {
    one.name: one
    for one in (
        _known("onnxruntime", ".onnx", extra=""),
        _known("openvino", ".xml", beside=".bin"),
        _known("mnn", ".mnn"),
        _known("ncnn", ".ncnn.param", beside=".bin"),
        _known("ort-mobile", ".ort", extra=""),
        _known("litert", ".tflite"),
        _known("tensorrt", ".engine", environment=GPU),
    )
}
"""The runtimes by name."""


def find_runtime(name: str) -> Runtime:
    """Return a runtime by its name, or that of a user's file.

    Raises: UnknownName where there is none; as `check_given`.
    """
    if name.endswith(".py"):
        check_given(name)
        path = Path(name)
        if not path.is_file():
            raise UnknownName(f"runtime '{name}': no such file; expected {', '.join(RUNTIMES)}")
        return Runtime(path.stem, path.resolve())
    check_name("runtime", name, (*RUNTIMES, OWN))
    return RUNTIMES[name]


def runtime_of(path: Path) -> Runtime:
    """Return the runtime of a deployed file, by its suffix.

    Raises: InvalidModel where it is of none.
    """
    for runtime in RUNTIMES.values():
        if path.suffix == runtime.ending:
            return runtime
    known = ", ".join(runtime.suffix for runtime in RUNTIMES.values())
    raise InvalidModel(f"{path}: of no known runtime; expected a file that ends in {known}")
