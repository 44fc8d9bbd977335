"""What a floor can promise of images that nobody has seen: see `onnxprune.evaluation.unseen`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.arrays import BoolArray
from onnxprune.compensate import Corrector
from onnxprune.data import Data
from onnxprune.evaluation import FIDELITY, Accuracy, Drop, Evaluator, drop_of_parts, expected_drop
from onnxprune.progress import phase
from onnxprune.search.protocols import Foresee, Unseeing

FEW = 10
"""Samples a class, on average, below which shares of them are shrunk before a floor looks."""


def are_few(data: Data | None) -> bool:
    """Return whether classes have so few samples that one hit decides about their harmonic mean."""
    if data is None or not _are_labels(data):
        return False
    return len(data) < FEW * len(np.unique(data.y))


def foresight(model: ModelProto, evaluator: Evaluator | None) -> Foresee | None:
    """Return what foresees a drop from nets and the samples that each of them has not seen.

    Where each sample has one class, it is foreseen by its scores; agreement with the unpruned net,
    by what each sample adds to it, and agreement in classes by both: what no longer is the same
    class is lost, whatever the scores say. Nothing is foreseen of inputs that were made up, which
    are no samples, or of other metrics.
    """
    if evaluator is None or evaluator.data.generated or len(evaluator.data) < 2:
        return None
    if not _has_scores(evaluator):
        return _of_agreement(evaluator) if evaluator.metric.name == FIDELITY else None
    data = evaluator.data

    def scores(net: ModelProto, rows: npt.NDArray[np.int64] | None = None) -> npt.NDArray[Any]:
        (found,) = evaluator.outputs(net, rows).values()
        return found.reshape(len(found), -1)

    before = cache(lambda: scores(model))

    @phase("evaluation")
    def foresee(nets: Iterable[Unseeing]) -> Drop:
        after = np.zeros_like(before())
        for net, rows in nets:
            after[rows] = scores(net, rows)
        drop = expected_drop(before(), after, data.y)
        if evaluator.metric.name != FIDELITY:
            return drop
        hard = expected_drop(before(), after, data.y, smooth=False)
        return max(drop, hard, key=lambda one: one.expected)

    return foresee


def on_others(
    correct: Corrector | None, samples: int, pruned: ModelProto, dead: BoolArray, corrected: bool
) -> Iterator[Unseeing]:
    """Yield nets and the samples that each is measured on: those it was not corrected on.

    Shapes: dead `[channels]`.
    """
    if correct is None or not corrected:
        yield pruned, np.arange(samples)
        return
    folds = correct.folds[:samples]
    numbers = np.unique(folds).tolist()
    for fold in numbers:
        with phase("compensation"):
            net = correct(pruned, dead, without=fold if len(numbers) > 1 else None)
        yield net, np.flatnonzero(folds == fold)


def _of_agreement(evaluator: Evaluator) -> Foresee | None:
    """What foresees the drop of a net's agreement with the unpruned one, which is 1."""
    if not evaluator.metric.adds_up:
        return None
    data = evaluator.data

    @phase("evaluation")
    def foresee(nets: Iterable[Unseeing]) -> Drop:
        found: dict[int, Accuracy] = {}
        for net, rows in nets:
            outputs = evaluator.outputs(net, rows)
            for place, k in enumerate(rows.tolist()):
                own = {name: held[place : place + 1] for name, held in outputs.items()}
                found[k] = evaluator.metric(own, data.y[k : k + 1], np.array([k]))
        return drop_of_parts([found[k] for k in range(len(data))])

    return foresee


def _are_labels(data: Data) -> bool:
    return data.y.ndim == 1 and data.targets is None and data.detector is None


def _has_scores(evaluator: Evaluator) -> bool:
    data, heads = evaluator.data, evaluator.data.heads
    if not _are_labels(data):
        return False
    if evaluator.metric.name != FIDELITY:
        return evaluator.metric.name == "top-1"
    if len(heads) != 1 or heads[0].kind != "classes" or data.reference is None:
        return False
    reference = data.reference[heads[0].tensor]
    return bool(reference.size == len(data) * reference.shape[heads[0].axis])
