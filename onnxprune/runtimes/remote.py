"""A model on another runtime, as evaluators and clocks ask for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import RuntimeFailed
from onnxprune.evaluation import Batch, Net, Port
from onnxprune.files import temporary
from onnxprune.graph import save_model
from onnxprune.runtimes.fixed import Fixed
from onnxprune.runtimes.process import Child


class Remote(Net):
    """A model that a child process holds; its inputs and outputs are named as those in ONNX.

    Raises: RuntimeFailed where the runtime cannot load the file, or has other inputs or outputs.
    """

    def __init__(
        self,
        child: Child,
        file: Path,
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
    ) -> None:
        answer, _ = child.call("load", file=str(file.resolve()), threads=child.place.cores)
        self._child = child
        self._sent: Batch | None = None
        given = [(name, np.dtype(kind), shape) for name, kind, shape in answer["inputs"]]
        self._takes = _paired([name for name, _, _ in given], inputs, "inputs")
        self._gives = _paired(answer["outputs"], outputs, "outputs")
        called = {own: name for name, own in self._takes.items()}
        ports = [
            Port(called[own], kind, None if shape is None else tuple(shape))
            for own, kind, shape in given
        ]
        super().__init__(str(file), {port.name: port for port in ports}, list(self._gives))
        if any(port.shape is None for port in ports):
            self.batch = 1  # a runtime that does not say takes one sample at a time

    def run(self, batch: Batch, outputs: Sequence[str] = ()) -> dict[str, npt.NDArray[Any]]:
        """Run one bound batch and return the outputs named, by default the first.

        Shapes: each as the model gives it.
        Raises: RuntimeFailed where the runtime fails, crashes or hangs.
        """
        self._sent = batch
        _, found = self._child.call("run", self._feeds(batch))
        names = tuple(outputs) or self.outputs[:1]
        return {name: found[self._gives[name]] for name in names}

    def seconds(self, batch: Batch) -> float:
        """Run one bound batch and return how long that took there. Units: s."""
        feeds = {} if batch is self._sent else self._feeds(batch)
        self._sent = batch
        answer, _ = self._child.call("clock", feeds)
        return float(answer["seconds"])

    def _feeds(self, batch: Batch) -> dict[str, npt.NDArray[Any]]:
        return {self._takes[name]: value for name, value in batch.values.items()}


def _paired(own: Sequence[str], names: Sequence[str], what: str) -> dict[str, str]:
    """The runtime's names by those of the ONNX model: the same, or else in the same order."""
    if not names or set(names) == set(own):
        return {name: name for name in names or own}
    if len(names) != len(own):
        raise RuntimeFailed(
            f"has {what} {', '.join(own) or 'none'}; expected {len(names)}: {', '.join(names)}"
        )
    return dict(zip(names, own, strict=True))


def convert(child: Child, fixed: Fixed, stem: str, folder: Path) -> Path:
    """Write a model for a runtime into a folder that is empty, and return the main file's path.

    Raises: RuntimeFailed where the runtime cannot.
    """
    with temporary() as scratch:
        source = save_model(fixed.bare, scratch / f"{stem}.onnx", weights=fixed.weights)
        answer, _ = child.call("convert", model=str(source), folder=str(folder.resolve()))
    file = folder / Path(answer["file"]).name
    if not file.is_file():
        raise RuntimeFailed(f"wrote no {file.name}{child.last_line()}")
    return file


@contextmanager
def running_on(child: Child, fixed: Fixed) -> Iterator[Remote]:
    """Convert a model and load it; it runs until the `with` statement ends or another is loaded.

    Raises: RuntimeFailed where the runtime cannot.
    """
    with temporary() as folder:
        file = convert(child, fixed, "model", folder)
        yield Remote(child, file, list(fixed.shapes), fixed.outputs)
