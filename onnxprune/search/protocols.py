"""What a search is given to score, evaluate, correct and time its nets: all it knows of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from onnx import ModelProto

from onnxprune.arrays import BoolArray, FloatArray, IntArray
from onnxprune.channels import ChannelGroups, Choices
from onnxprune.graph import Graph


class Measured(Protocol):
    """What an evaluation found: see `onnxprune.evaluation.Accuracy`."""

    @property
    def mean(self) -> float:
        """Mean of the class accuracies."""
        ...

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the class accuracies."""
        ...

    @property
    def shrunk_harmonic(self) -> float:
        """Harmonic mean of the class accuracies, each shrunk towards their mean."""
        ...

    @property
    def soft_harmonic(self) -> float:
        """Harmonic mean over classes of the mean probability of the true class."""
        ...

    @property
    def shrunk_soft_harmonic(self) -> float:
        """The same of probabilities that are shrunk towards their mean."""
        ...

    @property
    def soft_per_class(self) -> FloatArray:
        """Mean probability of the true class. Shapes: `[classes]`."""
        ...

    def counts(self) -> Mapping[str, Any]:
        """Return what a journal holds, from which all of the above follows."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return what a report holds: mean, harmonic and per_class."""
        ...


class Foreseen(Protocol):
    """A drop that is expected of unseen samples: see `onnxprune.evaluation.Drop`."""

    @property
    def expected(self) -> float:
        """The drop itself. Unit: harmonic mean."""
        ...

    def bound(self, confidence: float) -> float:
        """Return what the drop is below at a one-sided confidence."""
        ...

    def to_json(self) -> Mapping[str, Any]:
        """Return what a report holds."""
        ...


class Damage(Protocol):
    """What sets of channels do to the outputs: see `onnxprune.relevance.Damage`."""

    def order(
        self, worth: FloatArray, choices: Choices, most: float, own_squares: float
    ) -> IntArray:
        """Return the channels in the order in which they go until `most` is gone, then the others.

        Shapes: worth, what removing each channel saves, `[channels]` -> `[channels]`.
        """
        ...


Rank = Callable[[Graph, ChannelGroups], FloatArray]
"""Scores the channels of a (pruned) graph; the lowest go first. Shapes: `[channels]`."""
MeasureDamage = Callable[[Graph, ChannelGroups], Damage]
"""Measures what the channels of a (pruned) graph do to its outputs."""
Evaluate = Callable[[ModelProto], Measured]
"""Runs a model on the reference samples."""
Complete = Callable[[ModelProto, Any], Measured]
"""Runs a model on the other reference samples, and adds what was measured on a part of them."""
Compensate = Callable[[ModelProto, BoolArray], ModelProto]
"""Returns a pruned model with corrected weights. Shapes: removed `[channels]`."""
HoldOut = Callable[[ModelProto, BoolArray, bool], Measured]
"""Evaluates a pruned model corrected, roughly or not, on other samples than it is evaluated on.

Shapes: removed `[channels]`."""
Judge = Callable[[ModelProto, BoolArray], tuple[Measured, Measured]]
"""Evaluates the samples that judge on a pruned model, as it is and corrected on the others.

Shapes: removed `[channels]`."""
Unseeing = tuple[ModelProto, IntArray]
"""A pruned model, and samples that it has not seen. Shapes: `[n]`."""
Foresee = Callable[[Iterable[Unseeing]], Foreseen]
"""Foresees a drop on unseen samples, from models and the samples that each of them has not seen."""
OnOthers = Callable[[ModelProto, BoolArray, bool], Iterable[Unseeing]]
"""Corrects a pruned model, as asked, without each fold of the samples.

Shapes: removed `[channels]`."""
Restore = Callable[[BoolArray, float], FloatArray]
"""Says in which order channels go where every layer loses the same share, and what the others can
restore goes first; a share of each group is in order.

Shapes: removed `[channels]` -> `[channels]`."""
Profile = Callable[[ModelProto], Mapping[str, float]]
"""Measures how long each node of a model takes, as `onnxprune.evaluation.node_times`. Units: ms."""
Clock = Callable[[ModelProto], float]
"""Measures the latency of a model. Units: ms."""
