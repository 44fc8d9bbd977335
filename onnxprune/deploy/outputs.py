"""Whether another runtime gives what onnxruntime gives: the largest error of each output.

An error is relative to the largest value of the output. In maps and rows of boxes it is relative to
the largest of its channel, or to a hundredth of the output's where that is more. So a wrong class
score shows beside boxes of 640 pixels, and a class that never occurs does not count its rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray
from onnxprune.data import Inputs
from onnxprune.evaluation import Batch, Net

TOLERANCE = 1e-3
"""The largest error of an output, relative to what its channel holds, that is not wrong."""

QUIET = 0.01
"""Share of an output's largest value below which the errors of a channel are relative to that."""

JUMPED = 0.02
"""Share of the elements that may differ of an output that jumps: numbers and places that a
selection gives, which change with the smallest rounding."""

Array = npt.NDArray[Any]


class Deviation:
    """How far one output is from what it should be, over all samples."""

    def __init__(self, name: str, *, jumps: bool = False) -> None:
        self.name, self.jumps = name, jumps
        self.shape = ""  # a word on the first shape that is another one
        self._errors: FloatArray = np.zeros(1)
        self._scales: FloatArray = np.zeros(1)
        self._jumped: list[float] = []

    def add(self, found: Array, expected: Array) -> None:
        """Take the outputs of a run. Shapes: both the same, but for axes of 1."""
        if _squeezed(found) != _squeezed(expected):
            self.shape = self.shape or f"is {list(found.shape)}, expected {list(expected.shape)}"
            self._jumped.append(1.0)
            return
        if not expected.size:
            return
        one, other = (rows.reshape(expected.shape).astype(np.float64) for rows in (found, expected))
        with np.errstate(invalid="ignore"):  # infinity is itself
            error = np.where(one == other, 0.0, np.abs(one - other))
        error = np.where(
            np.isnan(one) & np.isnan(other), 0.0, np.where(np.isnan(error), np.inf, error)
        )
        scale = np.where(np.isfinite(other), np.abs(other), 0.0)
        self._errors = np.maximum(self._errors, _channels(error))
        self._scales = np.maximum(self._scales, _channels(scale))
        if self.jumps:
            allowed = TOLERANCE * max(float(scale.max()), 1e-12)
            self._jumped.append(float((error > allowed).mean()))

    @property
    def absolute(self) -> float:
        """The largest error."""
        return float("inf") if self.shape and not self.jumps else float(self._errors.max())

    @property
    def relative(self) -> float:
        """The largest error, relative to what its channel holds."""
        if self.shape and not self.jumps:
            return float("inf")
        floor = max(QUIET * float(self._scales.max()), 1e-12)
        return float((self._errors / np.maximum(self._scales, floor)).max())

    def problem(self, tolerance: float) -> str:
        """Say what is wrong with the output, an empty text where nothing is."""
        if self.jumps:
            share = float(np.mean(self._jumped)) if self._jumped else 0.0
            return f"output '{self.name}' differs in {share:.0%}" if share > JUMPED else ""
        if self.shape:
            return f"output '{self.name}' {self.shape}"
        if self.relative > tolerance:
            return f"output '{self.name}' is off by {self.absolute:.2g} ({self.relative:.2g} of it)"
        return ""


def _squeezed(rows: Array) -> list[int]:
    return [size for size in rows.shape if size != 1]


def _channels(rows: FloatArray) -> FloatArray:
    """The largest of each channel, the second of three axes or more; vectors have one scale.

    Shapes: `[n, c, ...]` -> `[c]`, `[n, k]` -> `[1]`.
    """
    if rows.ndim < 3:
        return np.atleast_1d(rows.max())
    return np.asarray(rows.max(axis=tuple(k for k in range(rows.ndim) if k != 1)))


class Watched(Net):
    """A net that is compared with another one on everything it runs."""

    def __init__(
        self, net: Net, reference: Net, jumping: Iterable[str], on_run: Callable[[int], object]
    ) -> None:
        super().__init__(net.name, reference.ports, reference.outputs)
        self.ports = {name: net.ports[name] for name in reference.ports}
        self.batch = net.batch
        self._net, self._reference, self._on_run = net, reference, on_run
        jumps = set(jumping)
        self.deviations = {n: Deviation(n, jumps=n in jumps) for n in reference.outputs}
        self.runs = 0

    def run(self, batch: Batch, outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Run both, and return this net's outputs in the shapes of the other's.

        Shapes: each as the reference gives it, where the sizes allow that.
        """
        ports = self._reference.ports.items()
        feeds = {name: batch.values[name].astype(port.dtype, copy=False) for name, port in ports}
        bound = self._reference.bind(Inputs(feeds), "cpu")
        expected = self._reference.run(bound, self.outputs)
        found = self._net.run(self._net.bind(Inputs(dict(batch.values)), "cpu"), self.outputs)
        self.runs += batch.size
        self._on_run(self.runs)
        for name, rows in expected.items():
            self.deviations[name].add(found[name], rows)
            if _squeezed(found[name]) == _squeezed(rows):
                found[name] = found[name].reshape(rows.shape)
        return {name: found[name] for name in outputs or self.outputs[:1]}

    @property
    def absolute(self) -> float:
        """The largest error of all outputs that do not jump."""
        return max((d.absolute for d in self.deviations.values() if not d.jumps), default=0.0)

    @property
    def relative(self) -> float:
        """The largest error of these, relative to what its channel holds."""
        return max((d.relative for d in self.deviations.values() if not d.jumps), default=0.0)

    def problems(self, tolerance: float) -> list[str]:
        """Say what is wrong with each output that is wrong."""
        return [said for one in self.deviations.values() if (said := one.problem(tolerance))]
