"""What a floor can promise of images that nobody has seen: see `onnxprune.evaluation.unseen`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.compensate import Corrector
from onnxprune.data import Data
from onnxprune.evaluation import FIDELITY, Drop, Evaluator, expected_drop
from onnxprune.progress import phase
from onnxprune.search.protocols import Foresee

FEW = 10
"""Samples a class, on average, below which shares of them are shrunk before a floor looks."""


def are_few(data: Data | None) -> bool:
    """Return whether classes have so few samples that one hit decides about their harmonic mean."""
    if data is None or not _are_labels(data):
        return False
    return len(data) < FEW * len(np.unique(data.y))


def foresight(
    model: ModelProto, evaluator: Evaluator | None, correct: Corrector | None
) -> Foresee | None:
    """Return what foresees the drop of a net, where each sample has one class and its scores.

    Nothing is foreseen of inputs that were made up, which are no images, or of other metrics.
    """
    if evaluator is None or not _has_scores(evaluator):
        return None
    data = evaluator.data

    def scores(net: ModelProto, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[Any]:
        (found,) = evaluator.outputs(net, rows).values()
        return found.reshape(len(found), -1)

    before = cache(lambda: scores(model))

    @phase("evaluation")
    def foresee(pruned: ModelProto, dead: BoolArray, corrected: bool) -> Drop:
        if not corrected or correct is None:
            return expected_drop(before(), scores(pruned), data.y)
        folds = correct.folds[: len(data)]
        numbers = np.unique(folds).tolist()
        after = np.zeros_like(before())
        for fold in numbers:
            without = fold if len(numbers) > 1 else None
            with phase("compensation"):
                net = correct(pruned, dead, without=without)
            rows = np.flatnonzero(folds == fold)
            after[rows] = scores(net, rows)
        return expected_drop(before(), after, data.y)

    return foresee


def _are_labels(data: Data) -> bool:
    return data.y.ndim == 1 and data.targets is None and data.detector is None


def _has_scores(evaluator: Evaluator) -> bool:
    data, heads = evaluator.data, evaluator.data.heads
    if data.generated or not _are_labels(data) or len(data) < 2:
        return False
    if evaluator.metric.name != FIDELITY:
        return evaluator.metric.name == "top-1"
    if len(heads) != 1 or heads[0].kind != "classes" or data.reference is None:
        return False
    reference = data.reference[heads[0].tensor]
    return bool(reference.size == len(data) * reference.shape[heads[0].axis])
