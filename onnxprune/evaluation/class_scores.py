"""Class scores of samples, or of pixels, held against their labels.

A class without samples or pixels counts in no mean. What is soft beside it is the mean probability
of the true class.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.data import IGNORED, class_axis
from onnxprune.errors import DataError
from onnxprune.evaluation.accuracy import Accuracy

Sum = TypeVar("Sum", bound=Any)

PROBABILITY_TOLERANCE = 1e-3
"""Rows that sum to 1 within this are probabilities already; float16 rounds 1,000 of them so far."""


def top_k(outputs: npt.NDArray[Any], targets: IntArray, k: int = 1) -> Accuracy:
    """Count the samples of each class whose class is among the k highest scores.

    Of equal scores the lower class comes first.
    Shapes: as `Metric` takes them, maps of the size of the outputs.
    Units: counts of samples, or pixels.
    Raises: DataError for a label that is none of the model's classes, and where there are no more
    than k classes.
    """

    def count(rows: npt.NDArray[Any], labels: IntArray) -> Accuracy:
        classes = rows.shape[1]
        if k > 1 and k >= classes:
            raise DataError(
                f"metric 'top-{k}': the model has {classes} classes, so the true one is always "
                f"among {k}; ask for top-1"
            )
        right = rows.argmax(1) == labels if k == 1 else _rank(rows, labels) < k
        total, probability = (
            _summed(labels, classes),
            _summed(labels, classes, true_probability(rows, labels)),
        )
        return Accuracy(_summed(labels, classes, right), total, probability)

    return over_samples(count, outputs, targets)


def _rank(rows: npt.NDArray[Any], labels: IntArray) -> IntArray:
    """How many classes come before the true one. Shapes: `[m, classes]`, `[m]` -> `[m]`."""
    true = rows[np.arange(len(labels)), labels][:, None]
    lower = np.arange(rows.shape[1]) < labels[:, None]
    return np.asarray(((rows > true) | ((rows == true) & lower)).sum(1))


def mean_iou(outputs: npt.NDArray[Any], targets: IntArray) -> Accuracy:
    """Count the intersection and the union of the predicted and the true pixels of each class.

    Shapes: as `Metric` takes them, maps of the size of the outputs.
    Units: counts of pixels, or samples.
    Raises: DataError for a label that is none of the model's classes.
    Source: Everingham et al. 2010, section 4.2.3 (PASCAL VOC), over all pixels of all samples.
    """

    def count(rows: npt.NDArray[Any], labels: IntArray) -> Accuracy:
        classes, predicted = rows.shape[1], rows.argmax(1)
        both = _summed(labels, classes, predicted == labels)
        seen = _summed(labels, classes)
        union = seen + _summed(predicted, classes) - both
        return Accuracy(both, union, _summed(labels, classes, true_probability(rows, labels)), seen)

    return over_samples(count, outputs, targets)


def over_samples(
    count: Callable[[npt.NDArray[Any], IntArray], Sum], outputs: npt.NDArray[Any], targets: IntArray
) -> Sum:
    """Count all samples at once, or the pixels of one sample after another, and add up.

    Shapes: of `count` rows `[m, classes]`, labels `[m]`.
    """
    if targets.ndim == 1:
        how = (
            "name class folders by the model's class numbers; for targets that are no classes give "
            "--metric file.py:function, or --metric fidelity, which needs none"
        )
        rows = outputs if outputs.shape[1] > 1 else object_or_not(outputs)
        _check_labels(targets, rows.shape[1], how)
        return count(rows, targets)
    counts = []
    scores = np.moveaxis(outputs, class_axis(outputs.shape, targets.shape), -1)
    for one, labels in zip(scores, targets, strict=True):
        valid = labels != IGNORED
        rows = one[valid] if one.shape[-1] > 1 else object_or_not(one)[valid]
        how = f"label pixels that do not count {IGNORED}"
        _check_labels(labels[valid], rows.shape[1], how)
        counts.append(count(rows, labels[valid]))
    return reduce(add, counts)


def object_or_not(scores: npt.NDArray[Any]) -> FloatArray:
    """Return the probabilities of both classes of a model with one score: object or not.

    Shapes: `[..., 1]` -> `[..., 2]`.
    """
    x = scores.astype(np.float64)
    done = ((x >= 0) & (x <= 1)).all()
    probability = x if done else 0.5 * (1 + np.tanh(x / 2))
    return np.concatenate([1 - probability, probability], axis=-1)


def _check_labels(labels: IntArray, classes: int, how: str) -> None:
    outside = labels[(labels < 0) | (labels >= classes)]
    if outside.size:
        raise DataError(
            f"samples: label {outside[0]}, expected 0 to {classes - 1} as the model has "
            f"{classes} classes; {how}"
        )


def _summed(labels: IntArray, classes: int, weights: npt.NDArray[Any] | None = None) -> FloatArray:
    return np.asarray(np.bincount(labels, weights, classes), np.float64)


def true_probability(rows: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    """Return the probability of the true class, as `probabilities` has it.

    Shapes: `[m, classes]`, `[m]` -> `[m]`.
    """
    return np.asarray(probabilities(rows)[np.arange(len(labels)), labels])


def probabilities(rows: npt.NDArray[Any]) -> FloatArray:
    """Return the probability of each class: by softmax, unless a row is probabilities already.

    Each row is judged by itself, so that parts of the samples add up.
    Shapes: `[m, classes]` -> `[m, classes]`.
    """
    x = rows.astype(np.float64)
    done = (x >= 0).all(axis=1) & (np.abs(x.sum(axis=1) - 1) <= PROBABILITY_TOLERANCE)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return np.where(done[:, None], x, e / e.sum(axis=1, keepdims=True))


def predict(outputs: npt.NDArray[Any], targets: IntArray) -> npt.NDArray[Any]:
    """Return the predicted class of each sample, or pixel; outputs without classes as they are.

    Shapes: as `Metric` takes them -> `[n]` or `[n, H, W]`.
    """
    if outputs.ndim < 2:
        return outputs
    scores = np.moveaxis(outputs, class_axis(outputs.shape, targets.shape), -1)
    if scores.shape[-1] == 1:
        scores = object_or_not(scores)
    return np.asarray(scores.argmax(-1))


def agreement(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> float:
    """Return the share of samples, or pixels, whose predicted class is the same in both.

    Shapes: both `[n]` or `[n, H, W]`.
    Units: 0 to 1.
    Raises: DataError where the two have different shapes, or are empty.
    """
    if a.shape != b.shape or not len(a):
        found = f"{list(a.shape)} and {list(b.shape)}"
        raise DataError(f"agreement: classes are {found}; run both models on the same samples")
    return float(np.mean(a == b))
