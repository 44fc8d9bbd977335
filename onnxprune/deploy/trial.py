"""One model on one runtime: converted, run on all samples, compared with onnxruntime and timed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.data import Data, Inputs, by_name
from onnxprune.deploy.outputs import TOLERANCE, Watched
from onnxprune.errors import DataError, InvalidModel, MissingPackage, RuntimeFailed
from onnxprune.evaluation import Accuracy, Evaluator, latencies, made_up, running
from onnxprune.graph import Graph, Shape
from onnxprune.runtimes import Child, Fixed, Place, Remote, Runtime, convert, fix_axes, fixed_sizes
from onnxprune.search import Settings, judged

logger = logging.getLogger(__name__)

DONE, WRONG, FAILED, MISSING = "done", "wrong", "failed", "missing"
"""What came of a runtime."""

MADE_UP = 8
"""Inputs that are made up where there are no samples."""

EVERY = 2.0
"""Seconds after which progress is told again."""

OnStep = Callable[[str, float | None], object]
"""Is told what is done, and which share of it."""


@dataclass
class Row:
    """What came of one model on one runtime.

    `python` is the one it runs in, where that is not ours.
    Units: latency_ms, here and of onnxruntime in turn with it. `max_error` is the largest of all
    outputs, `relative_error` that relative to what its channel holds.
    """

    runtime: str
    variant: str = ""
    status: str = DONE
    reason: str = ""
    files: list[str] = field(default_factory=list)
    size_bytes: int | None = None
    latency_ms: float | None = None
    onnxruntime_ms: float | None = None
    max_error: float | None = None
    relative_error: float | None = None
    accuracy: dict[str, Any] | None = None
    versions: dict[str, str] = field(default_factory=dict)
    python: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the row as `deploy.json` holds it; no number is infinite there."""
        found = asdict(self)
        errors = {name: found[name] for name in ("max_error", "relative_error")}
        return {
            **found,
            **{n: v if v is None or np.isfinite(v) else None for n, v in errors.items()},
        }


@dataclass(frozen=True)
class Trial:
    """What all runtimes are tried with: the samples, or else inputs that are made up.

    `places` are where they run, by name; `judge` measures the accuracy, where there are samples.
    """

    graph: Graph
    data: Data | None
    judge: Evaluator | None
    settings: Settings
    places: Mapping[str, Place] = field(default_factory=dict)
    on_step: OnStep = lambda line, share: None

    def of(
        self,
        runtime: Runtime,
        fixed: Fixed,
        folder: Path,
        stem: str,
        *,
        variant: str = "",
        tolerance: float = TOLERANCE,
    ) -> Row:
        """Convert a model into an empty folder, run it and say what came of it, in a row.

        Raises: InvalidModel where nothing can be made up for its inputs.
        """
        place = self.places.get(runtime.name, Place(self.settings.threads))
        row = Row(runtime.name, variant)
        row.python = None if place.python == sys.executable else place.python
        try:
            self.on_step(f"{runtime.name}: converting", None)
            with Child(runtime, place) as child:
                row.versions = child.versions
                file = convert(child, fixed, stem, folder)
            found = sorted(folder.iterdir())
            row.files = [file.name, *(one.name for one in found if one != file)]
            row.size_bytes = sum(one.stat().st_size for one in found)
            with Child(runtime, place) as child:
                net = Remote(child, file, list(fixed.shapes), fixed.outputs)
                self._measure(row, net, fixed.original, tolerance)
        except MissingPackage as error:
            row.status, row.reason = MISSING, str(error)
        except (RuntimeFailed, InvalidModel) as error:
            row.status, row.reason = FAILED, str(error)
        return row

    def error(self, model: ModelProto, reference: ModelProto) -> float:
        """Return the largest error of a model's outputs on onnxruntime, as `relative_error`.

        Raises: InvalidModel where onnxruntime refuses a model.
        """
        threads = self.settings.threads
        net = running(model, "cpu", threads, exact=True)
        right = running(reference, "cpu", threads, exact=True)
        watched = Watched(net, right, self._jumping, lambda runs: None)
        self._run(watched)
        return watched.relative

    @property
    def _jumping(self) -> list[str]:
        """The outputs that jump with the smallest change."""
        return [n for n in self.graph.outputs if judged(self.graph, n) != [n]]

    def fixed(self, model: ModelProto) -> Fixed:
        """Return a model with the sizes of the samples, one at a time.

        Raises: InvalidModel where nothing can be made up for its inputs.
        """
        return fix_axes(Graph(model, input_shapes=self.settings.input_shapes), self._shapes())

    def sizes(self) -> dict[str, Shape]:
        """Return the shapes of the inputs that `fixed` fixes.

        Raises: InvalidModel where nothing can be made up for its inputs.
        """
        return fixed_sizes(self.graph, self._shapes())

    def _shapes(self) -> dict[str, Shape]:
        """The shapes of one sample."""
        return {name: array.shape for name, array in self._one().feeds.items() if array.ndim}

    def _one(self) -> Inputs:
        """The inputs of a first run."""
        if self.data is not None:
            return by_name(self.data.x[:1], self.graph.inputs[0])
        return Inputs(self._made_up()[0])

    def _made_up(self) -> list[dict[str, npt.NDArray[Any]]]:
        """Inputs for a model that comes without samples: floats are noise, another each time."""
        first = made_up(self.graph)
        if first is None:
            raise InvalidModel(
                "nothing can be made up for the inputs of this model; give samples with --data"
            )
        found = [first]
        for turn in range(1, MADE_UP):
            rng = np.random.default_rng(turn)
            noise = {
                name: rng.standard_normal(array.shape).astype(array.dtype)
                for name, array in first.items()
                if array.dtype.kind == "f"
            }
            found.append({**(made_up(self.graph, turn=turn) or first), **noise})
        return found

    def _measure(self, row: Row, net: Remote, model: ModelProto, tolerance: float) -> None:
        """Run a net on everything, compare it, and time it where it is right."""
        reference = running(model, "cpu", self.settings.threads, exact=True)
        total = MADE_UP if self.data is None else len(self.data)

        self.on_step(f"{row.runtime}: running {total} samples", 0.0)
        shown = [time.monotonic()]

        def show(runs: int) -> None:
            if time.monotonic() - shown[-1] > EVERY:
                shown.append(time.monotonic())
                self.on_step(f"{row.runtime}: {runs} of {total} samples", min(runs / total, 1.0))

        watched = Watched(net, reference, self._jumping, show)
        accuracy = self._run(watched)
        row.max_error, row.relative_error = watched.absolute, watched.relative
        row.accuracy = None if accuracy is None else accuracy.to_json()
        if problems := watched.problems(tolerance):
            row.status, row.reason = WRONG, "; ".join(problems)
            return
        del watched, reference  # the clock starts a session of its own
        self.on_step(f"{row.runtime}: timing", None)
        row.onnxruntime_ms, row.latency_ms = latencies(
            [model, net],
            device="cpu",
            threads=self.settings.threads,
            samples=self._one(),
        )

    def _run(self, net: Watched) -> Accuracy | None:
        """Run a net on all samples, and measure it as a comparison does."""
        if self.judge is None or self.data is None:
            for feeds in self._made_up():
                net.run(net.bind(Inputs(feeds), "cpu"))
            return None
        try:
            return self.judge(net)
        except (
            DataError,
            InvalidModel,
        ) as error:  # an output that is wrong, or that no runtime gives
            logger.info("%s", error)
            for x, _ in self.data.batches(net.batch or 1):
                net.run(net.bind(net.fitted(x), "cpu"))
            return None
