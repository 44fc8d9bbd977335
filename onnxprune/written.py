"""Files of a pruned model: read again and run before they take their names.

A file has to hold the model that was proven, give its outputs to the last bit, and be as accurate
as the report says.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.errors import InvalidModel, OutputError, SurgeryError
from onnxprune.evaluation import Feeds, first_difference, made_up, reason, session
from onnxprune.graph import Graph, load_model, reads_back
from onnxprune.progress import phase

logger = logging.getLogger(__name__)

Samples = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]] | None
Measure = Callable[[ModelProto | Path], Mapping[str, Any]]
"""Measures the accuracy of a model, as a report holds it."""


@dataclass
class Written:
    """A check of the files that a model is written to.

    `accuracy` is what the report says of it, and `measure` what tells that of a file; without
    samples there is neither. `samples` are in the form that the model takes.
    Shapes: samples `[n, ...]`, of the only input or of each by name.
    """

    graph: Graph
    model: ModelProto
    samples: Samples = None
    accuracy: Mapping[str, Any] | None = None
    measure: Measure | None = None
    _measured: bool = field(default=False, init=False)

    @phase("checking")
    def __call__(self, path: Path) -> None:
        """Check a file, which has not its name yet.

        Raises: OutputError where it reads back otherwise; SurgeryError where it does not run, gives
        other outputs or is not as accurate as the report says.
        """
        reads_back(self.model)(path)
        self._run(path)
        if self.measure is not None and not self._measured:
            self._compare(self.measure(path))
            self._measured = True

    def _run(self, path: Path) -> None:
        """Run the file beside the model in memory, where that runs."""
        feeds = self._feeds()
        if feeds is None:
            return
        try:
            held = session(self.model, device="cpu")
            wanted, again = held.run(None, feeds), held.run(None, feeds)
        except OutputError:
            raise
        except Exception as error:  # the proof has warned that it cannot be run
            logger.debug("the written file is not run, as the model is not: %s", error)
            return
        try:
            found = session(path, device="cpu").run(None, feeds)
        except InvalidModel as error:
            raise SurgeryError(f"the written file does not load: {error}") from error
        except Exception as error:  # onnxruntime's errors have no root of their own
            raise SurgeryError(f"the written file does not run: {reason(error)}") from error
        if any(map(_differs, found, wanted, again)):
            first = first_difference(self.model, load_model(path), [feeds], 0.0)
            where = "" if first is None else f"; the first node that differs is {first}"
            raise SurgeryError(f"the written file gives other outputs than it should{where}")

    def _feeds(self) -> Feeds | None:
        samples = self.samples
        if samples is not None and not isinstance(samples, Mapping):
            samples = dict.fromkeys(self.graph.inputs[:1], samples)
        return made_up(self.graph, samples=samples)

    def _compare(self, found: Mapping[str, Any]) -> None:
        """Refuse another accuracy than that of the report, unless measuring it is a matter of luck.

        Raises: SurgeryError.
        """
        assert self.measure is not None
        assert self.accuracy is not None
        if found == self.accuracy or self.measure(self.model) not in (found, self.accuracy):
            return
        said, now = self.accuracy["harmonic"], found["harmonic"]
        raise SurgeryError(
            f"the report says a harmonic mean of {said:.6f}, the written file has {now:.6f}"
        )


def _differs(found: Any, wanted: Any, again: Any) -> bool:
    """Whether an output is another one, where it is the same each time."""
    if not isinstance(wanted, np.ndarray) or wanted.dtype == object:
        return False
    return bool(wanted.tobytes() == again.tobytes() != found.tobytes())
