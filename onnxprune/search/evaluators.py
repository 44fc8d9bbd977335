"""Evaluators that run as the settings say, on all or part of the samples; the metric of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from onnxprune.arrays import IntArray
from onnxprune.data import KINDS, Data, part_of
from onnxprune.errors import DataError
from onnxprune.evaluation import (
    AUTO,
    AVERAGE_PRECISION,
    FIDELITY,
    Accuracy,
    Evaluator,
    Metric,
    find_metric,
)
from onnxprune.search.settings import Settings

ENOUGH = 50
"""Samples that the tries of a step are judged by, at least, where there are twice as many. How sure
a choice is depends on how many it is made by, not on how many there are, or classes."""


@dataclass(frozen=True)
class Parts:
    """Measures nets on a part of the samples first, and on the others where they are asked for.

    Shapes: first `[n]`, others `[m]`.
    """

    evaluator: Evaluator
    first: IntArray
    others: IntArray

    @property
    def unseen(self) -> IntArray | None:
        """The first part, if orders can do without: so it tells what a net loses on others.

        An order that is measured on samples flatters, on these, the net that is left.
        Shapes: `[n]`.
        """
        return self.first if len(self.others) >= 3 * ENOUGH else None

    @classmethod
    def of(cls, evaluator: Evaluator) -> Parts | None:
        """Return a part of the samples of each class and the others; None where they are few.

        So it is for a metric that looks at all outputs at once.
        """
        data = evaluator.data
        every = len(data) // ENOUGH
        if every < 2 or not evaluator.metric.adds_up:
            return None
        first = part_of(data.y, every)
        return cls(evaluator, first, np.setdiff1d(np.arange(len(data)), first))

    def __call__(self, model: ModelProto) -> Accuracy:
        """Measure on all samples; the same to the last bit as on one part after the other."""
        return self.rest(model, self.part(model))

    def part(self, model: ModelProto) -> Accuracy:
        """Measure on the first part."""
        return self.evaluator.some(model, self.first)

    def rest(self, model: ModelProto, part: Accuracy) -> Accuracy:
        """Measure on the others, and add what was found on the first part."""
        return part + self.evaluator.some(model, self.others)


def evaluator_of(
    data: Data, settings: Settings, metric: str | Metric, outputs: Sequence[str] = ()
) -> Evaluator:
    """Return what measures models on the samples; `outputs` as `Evaluator` takes them."""
    return Evaluator(
        data,
        metric=metric,
        device=settings.device,
        threads=settings.threads,
        batch_size=settings.batch_size,
        outputs=outputs,
    )


def metric_name(data: Data, settings: Settings) -> str:
    """Return the metric of a run: the one asked for, or what fits the samples.

    Raises: DataError where a metric of labels is asked for and there are none.
    """
    if settings.metric == AUTO and data.detector is not None and data.targets is not None:
        return AVERAGE_PRECISION
    if settings.metric == AUTO:
        return "top-1" if data.labelled else FIDELITY
    if not data.labelled and settings.metric != FIDELITY and find_metric(settings.metric).answers:
        raise DataError(
            f"metric '{settings.metric}': needs labels and the samples have none; give one folder "
            "of images per class, or y, or --metric fidelity"
        )
    return settings.metric


def named_outputs(settings: Settings) -> tuple[str, ...]:
    """Return the outputs that are asked for, without what they hold.

    >>> named_outputs(Settings(outputs=("boxes", "scores=classes", "a=b")))
    ('boxes', 'scores', 'a=b')
    """
    parts = ((text, *text.rpartition("=")) for text in settings.outputs)
    return tuple(name if name and kind in KINDS else text for text, name, _, kind in parts)
