"""Proof: a pruned model is checked, loaded and run before anyone is told that it stands.

Where no weight was corrected it has to give what the masked model gives, on samples or on noise, at
every size that the model leaves open. Otherwise it has to run wherever the unpruned model does, and
give outputs of the same shapes.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.channels import ChannelGroups
from onnxprune.errors import InvalidModel, MissingPackage, SurgeryError, out_of_memory
from onnxprune.evaluation import (
    TURNS,
    Feeds,
    difference,
    farthest,
    first_difference,
    first_not_finite,
    made_up,
    reason,
    session,
)
from onnxprune.graph import STEPS, Graph, load_model
from onnxprune.progress import phase
from onnxprune.surgery import mask

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

TOLERANCE = 1e-3
"""Largest difference of an output, relative to its largest value; sums are rounded otherwise."""
UNSTEADY = (1e-6, 1e-5)
"""Relative noise on the inputs by which an output is seen to hang on rounding, as behind TopK."""
SLACK = 10
"""How many times what such noise changes an output may differ by."""
LARGE = 2**28
"""Elements; a larger model is loaded and run, but not held against a masked copy of it."""


class _Mismatch(Exception):
    """Another output than that of the reference, and the inputs on which it shows."""

    def __init__(self, problem: str, feeds: Feeds) -> None:
        super().__init__(problem)
        self.feeds = feeds


@dataclass(frozen=True)
class Proof:
    """What a pruned model is held against. `samples` are in the form that the model takes.

    `corrected` says that weights were changed, so that the outputs are others.
    Shapes: dead `[channels]`; samples `[n, ...]`, of the only input or of each by name.
    """

    graph: Graph
    groups: ChannelGroups
    dead: BoolArray
    samples: Array | Mapping[str, Array] | None = None
    corrected: bool = False

    @phase("checking")
    def __call__(self, model: ModelProto | Path) -> None:
        """Check a pruned model, in memory or in a file; a warning says what could not be checked.

        Raises: SurgeryError where it is not valid, does not run, or gives other outputs.
        """
        started = time.monotonic()
        self._check_form(model)
        try:
            unchecked = self._run(model)
        except MemoryError:
            unchecked = "memory is exhausted"
        except _Mismatch as found:
            raise SurgeryError(f"{found}{self._first(model, found.feeds)}") from None
        if unchecked:
            logger.warning("the pruned model could not be checked by running: %s", unchecked)
            return
        what = "gives the outputs of the masked model" if self._is_exact else "runs"
        logger.info("the pruned model %s (%.2f s)", what, time.monotonic() - started)

    @cached_property
    def _is_exact(self) -> bool:
        return not (self.corrected or self._is_large or self.groups.crossed(self.dead))

    @cached_property
    def _is_large(self) -> bool:
        return bool(sum(math.prod(t.dims) for t in self.graph.proto.initializer) > LARGE)

    def _check_form(self, model: ModelProto | Path) -> None:
        """Have ONNX check the model in full, unless the unpruned one is no better."""
        if self._is_large:
            return
        try:
            onnx.checker.check_model(_checkable(model), full_check=True)
        except Exception as error:  # of several kinds, among them RuntimeError
            try:
                onnx.checker.check_model(self.graph.model, full_check=True)
                onnx.shape_inference.infer_shapes(
                    self.graph.model, strict_mode=True, data_prop=True
                )
            except Exception:  # as it came it is no better
                logger.debug("ONNX refuses the model as it came, too: %s", error)
                return
            if self._fails_as_it_came():  # shapes that are stated now show what ONNX did not see
                return
            raise SurgeryError(f"the pruned model is not valid: {reason(error)}") from error

    def _fails_as_it_came(self) -> bool:
        """Say whether the unpruned model loads nowhere, or runs on nothing that is tried."""
        try:
            reference = _session(self._reference)
        except InvalidModel:
            return True
        except MissingPackage:
            return False
        for feeds in self._feeds(1, 0):
            with contextlib.suppress(Exception):  # as above
                reference.run(None, feeds)
                return False
        return True

    def _run(self, model: ModelProto | Path) -> str:
        """Run the model where the unpruned one runs; return why that could not be done, if so."""
        try:
            reference = _session(self._reference)
        except (InvalidModel, MissingPackage) as error:
            return f"onnxruntime refuses it as it came: {_first(error)}"
        try:
            pruned = _session(model)
        except InvalidModel as error:
            if self._fails_as_it_came():
                return "the unpruned one runs on nothing that was tried"
            raise SurgeryError(f"the pruned model does not load: {_first(error)}") from error
        tried: list[str] = []
        for batch, steps in ((1, (0,)), (3, (0,)), (1, STEPS)):
            for more in steps:
                here = [self._try(pruned, reference, fed) for fed in self._feeds(batch, more)]
                tried += here
                if "" in here:
                    break
        return "" if "" in tried else next(iter(tried), "no inputs could be made for it")

    def _try(self, pruned: Any, reference: Any, feeds: Feeds) -> str:
        """Compare the models on some inputs; return why the reference does not take them, if so."""
        try:
            expected = reference.run(None, feeds)
        except Exception as error:  # onnxruntime's errors have no root of their own
            return f"on {_at(feeds)}: it fails as it came: {reason(error)}"
        try:
            outputs = pruned.run(None, feeds)
            self._compare(reference, feeds, outputs, expected)
        except _Mismatch:
            raise
        except Exception as error:  # as above
            if out_of_memory("", error):
                return f"on {_at(feeds)}: memory is exhausted"
            raise SurgeryError(
                f"the pruned model fails on {_at(feeds)}, which the unpruned one takes: "
                f"{reason(error)}"
            ) from error
        return ""

    def _feeds(self, batch: int, more: int) -> Iterator[Feeds]:
        """Inputs of these sizes, one for each value that is tried of what chooses a branch."""
        samples = self.samples
        if samples is not None and not isinstance(samples, Mapping):
            samples = dict.fromkeys(self.graph.inputs[:1], samples)
        for turn in range(TURNS):
            feeds = made_up(self.graph, batch=batch, more=more, turn=turn, samples=samples)
            if feeds is None:
                return
            yield feeds

    @cached_property
    def _reference(self) -> ModelProto:
        """The masked model, or the unpruned one where outputs are others anyway."""
        if self._is_exact:
            return mask(self.graph, self.groups, self.dead)
        return self.graph.model

    def _compare(
        self, reference: Any, feeds: Feeds, outputs: list[Any], expected: list[Any]
    ) -> None:
        names = [output.name for output in reference.get_outputs()]
        for k, (name, found, wanted) in enumerate(zip(names, outputs, expected, strict=True)):
            if not isinstance(wanted, np.ndarray) or wanted.dtype.kind not in "fiub":
                continue
            differs = difference(found, wanted, TOLERANCE if self._is_exact else np.inf)
            if differs and not self._is_unsteady(reference, feeds, k, found, wanted):
                whose = "masked" if self._is_exact else "unpruned"
                raise _Mismatch(
                    f"output '{name}' of the pruned model is not that of the {whose} one on "
                    f"{_at(feeds)}: it {differs}",
                    feeds,
                )

    def _first(self, model: ModelProto | Path, feeds: Feeds) -> str:
        """Name the first node that differs from that of the masked model, or is not finite.

        Nothing is named in a model that cannot be looked into.
        """
        pruned = load_model(model)
        with contextlib.suppress(InvalidModel):
            if not self._is_exact:
                first = first_not_finite(pruned, feeds)
                return "" if first is None else f"; it begins at {first}"
            first = first_difference(
                self._reference,
                pruned,
                [feeds],
                TOLERANCE,
                lambda tensor: self.groups.kept(tensor, self.dead),
            )
            return "" if first is None else f"; the first node that differs is {first}"
        return ""

    def _is_unsteady(
        self, reference: Any, feeds: Feeds, k: int, found: Array, wanted: Array
    ) -> bool:
        """Say whether an output hangs on rounding: a little noise changes it about as much."""
        rng, largest = np.random.default_rng(1), 0.0
        for noise in UNSTEADY:
            other = reference.run(None, {n: _with_noise(x, noise, rng) for n, x in feeds.items()})
            if other[k].shape != wanted.shape:
                return True
            if found.shape == wanted.shape:
                largest = max(largest, farthest(other[k], wanted))
        is_alike = (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        return is_alike and farthest(found, wanted) <= SLACK * largest


def _session(model: ModelProto | Path) -> Any:
    """Start a session in which which channels are there does not change the sums of the others.

    onnxruntime cannot do that for a zero point that several weights share.
    """
    with contextlib.suppress(InvalidModel):
        return session(model, device="cpu", saturates=False)
    return session(model, device="cpu")


def _at(feeds: Feeds) -> str:
    """The inputs as an error shows them: shapes, and the value of a single number."""
    return ", ".join(
        f"{name} {f'= {x.item()}' if x.ndim == 0 else list(x.shape)}" for name, x in feeds.items()
    )


def _first(error: Exception) -> str:
    """What onnxruntime said, without what we say beside it."""
    return reason(error.__cause__) if isinstance(error.__cause__, Exception) else str(error)


def _checkable(model: ModelProto | Path) -> ModelProto | str:
    return str(model) if isinstance(model, Path) else model


def _with_noise(x: Array, share: float, rng: np.random.Generator) -> Array:
    if x.dtype.kind != "f":
        return x
    return (x * (1 + share * rng.standard_normal(x.shape))).astype(x.dtype)
