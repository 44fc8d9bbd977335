"""Metrics: from the outputs of a network and the targets to a score of each class, 0 to 1.

    top-1, top-5, ...    share of a class's samples whose class has one of the highest 1, 5, scores
    mean-iou             intersection over union of a class's pixels, predicted and true
    MODULE:FUNCTION, FILE.py:FUNCTION    a user's function (outputs, targets) -> scores [classes]

Samples that have a class and pixels that have one are measured alike. A class without samples or
pixels counts in no mean. The counts of a named metric add up over parts of the samples
(`Accuracy`). The accuracy-aware controller watches its soft form: the mean probability of the true
class over the samples, or pixels, of a class. A user's function sees all samples at once and has no
soft form, so its scores stand for both.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.checks import Text
from onnxprune.data import IGNORED, class_axis, counted, fit_labels
from onnxprune.errors import DataError, check_name
from onnxprune.plugins import find_function, name_of, users_code

Function: TypeAlias = Callable[[npt.NDArray[Any], IntArray], Any]

Sum = TypeVar("Sum", bound=Any)

PROBABILITY_TOLERANCE = 1e-3
"""Rows that sum to 1 within this are probabilities already; float16 rounds 1,000 of them so far."""

MOST = 100
"""A class of more samples is trusted as one of so many: pixels of one image are much alike."""

USER_FUNCTION = "a function (outputs, targets) that returns a score from 0 to 1 for each class"


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How well each class is recognised; a class without samples counts in no mean.

    The score of a class is `correct / total`. `probability` is the sum of the probabilities of the
    true class over the `seen` samples, or pixels, of a class, which are the `total` by default.
    Shapes: all `[classes]`.
    Units: counts; probability, a sum of shares.
    """

    correct: FloatArray
    total: FloatArray
    probability: FloatArray
    seen: FloatArray | None = None

    @classmethod
    def from_scores(cls, scores: FloatArray) -> Accuracy:
        """Return an accuracy with these scores; NaN stands for a class without samples.

        Shapes: scores `[classes]`.
        """
        present = (~np.isnan(scores)).astype(np.float64)
        return cls(np.nan_to_num(scores), present, np.nan_to_num(scores))

    @classmethod
    def from_counts(cls, counts: Mapping[str, Sequence[float]]) -> Accuracy:
        """Return the accuracy that `counts` describes: the inverse of that method."""
        return cls(**{name: np.array(values) for name, values in counts.items()})

    def counts(self) -> dict[str, list[float]]:
        """Return the fields as JSON holds them, without `seen` where that is the `total`."""
        return {name: held.tolist() for name, held in vars(self).items() if held is not None}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Accuracy) and self.counts() == other.counts()

    __hash__ = None  # type: ignore[assignment]

    def __add__(self, other: Accuracy) -> Accuracy:
        if self.total.shape != other.total.shape:
            found = f"{len(self.total)} and {len(other.total)} classes"
            raise DataError(
                f"accuracies of {found} do not add up; evaluate one model on all shards"
            )
        return Accuracy(
            self.correct + other.correct,
            self.total + other.total,
            self.probability + other.probability,
            None if self.seen is None or other.seen is None else self.seen + other.seen,
        )

    @property
    def support(self) -> FloatArray:
        """How many samples, or pixels, are of each class."""
        return self.total if self.seen is None else self.seen

    @property
    def per_class(self) -> FloatArray:
        """The score of each class, NaN without samples."""
        with np.errstate(invalid="ignore"):
            return np.where(self.support > 0, self.correct / self.total, np.nan)

    @property
    def soft_per_class(self) -> FloatArray:
        """Mean probability of the true class, NaN without samples."""
        with np.errstate(invalid="ignore"):
            return self.probability / self.support

    @property
    def mean(self) -> float:
        """Mean of the class scores."""
        return _power_mean(self.per_class, 1)

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the class scores, 0 when a class is never right."""
        return _power_mean(self.per_class, -1)

    @property
    def soft_harmonic(self) -> float:
        """Harmonic mean of the classes' mean probabilities; it moves while `harmonic` does not."""
        return _power_mean(self.soft_per_class, -1)

    @property
    def shrunk_harmonic(self) -> float:
        """Harmonic mean of the class scores, each drawn towards the share of all that is right.

        That share counts as the square root of n samples beside the n that a class has: much for a
        class of one image, little for one of a hundred. So a class that is never right does not
        make it 0, and it still moves when other classes do.
        Source: the minimax estimate of a share (Hodges and Lehmann 1950), with another centre.
        """
        if not self.total.sum():
            return 0.0
        centre = self.correct.sum() / self.total.sum()
        weight = 1 / (1 + np.sqrt(np.minimum(self.support, MOST)))
        return _power_mean((1 - weight) * self.per_class + weight * centre, -1)

    def to_json(self) -> dict[str, Any]:
        """Return the scores as a report holds them, None for a class without samples."""
        per_class = [None if np.isnan(share) else float(share) for share in self.per_class]
        return {
            "mean": self.mean,
            "harmonic": self.harmonic,
            "shrunk_harmonic": self.shrunk_harmonic,
            "per_class": per_class,
        }


@dataclass(frozen=True)
class Metric:
    """A named way to measure outputs against targets.

    `caption` names what it measures of a class, for people. `answers` is how many of a network's
    classes it takes as answers to a sample, 0 for a user's metric, which takes the outputs whole.
    """

    name: str
    measure: Callable[[npt.NDArray[Any], IntArray], Accuracy]
    caption: str
    answers: int = 1

    @property
    def adds_up(self) -> bool:
        """Whether the results of parts of the samples add up to that of all: not a user's."""
        return self.answers > 0

    def __call__(self, outputs: npt.NDArray[Any], targets: IntArray) -> Accuracy:
        """Measure outputs; label maps are resized to the size of the outputs.

        Shapes: outputs `[n, classes]` and targets `[n]`, or outputs `[n, classes, H, W]` (or
        `[n, H, W, classes]`) and targets `[n, H', W']`.
        """
        return self.measure(outputs, fit_labels(targets, outputs.shape))


METRIC = Text(name_of=name_of, of="the name of a metric")


def find_metric(name: str | Function) -> Metric:
    """Return the metric of a name, or of a user's function.

    Raises: UnknownName for a name that does not exist or a function that cannot be imported.
    """
    if callable(name):
        return _of_function(name, str(getattr(name, "__qualname__", "function")))
    name = str(METRIC("metric", name))
    if ":" in name:
        return _of_function(find_function(name, USER_FUNCTION), name)
    if ranked := re.fullmatch(r"top-([1-9][0-9]*)", name):
        return _top(int(ranked[1]))
    check_name("metric", name, METRIC_NAMES)
    return METRICS[name]


def caption(name: str) -> str:
    """Return what a metric measures of a class, in words.

    >>> [caption(name) for name in ("top-1", "top-5", "mean-iou", "mine.py:boundary_f1")]
    ['accuracy', 'top-5 accuracy', 'IoU', 'boundary_f1']
    """
    return name.rpartition(":")[2] if ":" in name else find_metric(name).caption


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
        total, probability = _summed(labels, classes), _summed(labels, classes, _true(rows, labels))
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
        return Accuracy(both, union, _summed(labels, classes, _true(rows, labels)), seen)

    return over_samples(count, outputs, targets)


def over_samples(
    count: Callable[[npt.NDArray[Any], IntArray], Sum], outputs: npt.NDArray[Any], targets: IntArray
) -> Sum:
    """Count all samples at once, or the pixels of one sample after another, and add up.

    Shapes: of `count` rows `[m, classes]`, labels `[m]`.
    """
    if targets.ndim == 1:
        how = "name class folders by the model's class numbers"
        rows = outputs if outputs.shape[1] > 1 else _object_or_not(outputs)
        _check_labels(targets, rows.shape[1], how)
        return count(rows, targets)
    counts = []
    scores = np.moveaxis(outputs, class_axis(outputs.shape, targets.shape), -1)
    for one, labels in zip(scores, targets, strict=True):
        valid = labels != IGNORED
        rows = one[valid] if one.shape[-1] > 1 else _object_or_not(one)[valid]
        how = f"label pixels that do not count {IGNORED}"
        _check_labels(labels[valid], rows.shape[1], how)
        counts.append(count(rows, labels[valid]))
    return reduce(add, counts)


def _object_or_not(scores: npt.NDArray[Any]) -> FloatArray:
    """The probabilities of both classes of a model with one score, which says object or not.

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


def _true(rows: npt.NDArray[Any], labels: IntArray) -> FloatArray:
    """The probability of the true class; by softmax, unless the row is probabilities already.

    Each row is judged by itself, so that parts of the samples add up.
    Shapes: `[m, classes]`, `[m]` -> `[m]`.
    """
    x = rows.astype(np.float64)
    done = (x >= 0).all(axis=1) & (np.abs(x.sum(axis=1) - 1) <= PROBABILITY_TOLERANCE)
    e = np.exp(x - x.max(axis=1, keepdims=True))
    shares = np.where(done[:, None], x, e / e.sum(axis=1, keepdims=True))
    return np.asarray(shares[np.arange(len(labels)), labels])


def _of_function(function: Function, name: str) -> Metric:
    return Metric(name, partial(_own, function, name), name.rpartition(":")[2], answers=0)


def _own(function: Function, name: str, outputs: npt.NDArray[Any], targets: IntArray) -> Accuracy:
    """Measure by a user's function, and check what it returns."""
    with users_code(f"metric '{name}'", USER_FUNCTION):
        scores = np.asarray(function(outputs, targets), np.float64)
    inside = (scores >= 0) & (scores <= 1) | np.isnan(scores)
    classes = int(counted(targets).max(initial=0)) + 1
    if scores.ndim != 1 or len(scores) < classes or not inside.all():
        wrong = "" if inside.all() else f", {scores[~inside][0]} among them"
        raise DataError(
            f"metric '{name}': returns shape {list(scores.shape)}{wrong}; expected "
            f"{USER_FUNCTION}, of which there are {classes} or more; NaN for one without samples"
        )
    return Accuracy.from_scores(scores)


def predict(outputs: npt.NDArray[Any], targets: IntArray) -> npt.NDArray[Any]:
    """Return the predicted class of each sample, or pixel; outputs without classes as they are.

    Shapes: as `Metric` takes them -> `[n]` or `[n, H, W]`.
    """
    if outputs.ndim < 2:
        return outputs
    scores = np.moveaxis(outputs, class_axis(outputs.shape, targets.shape), -1)
    if scores.shape[-1] == 1:
        scores = _object_or_not(scores)
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


def _power_mean(values: FloatArray, power: float) -> float:
    """The mean over classes with samples, arithmetic (power 1) or harmonic (-1); 0 without any."""
    seen = values[~np.isnan(values)]
    with np.errstate(divide="ignore", over="ignore"):  # 1 / 0 is infinite, and 1 / that is 0
        return float(np.mean(seen**power) ** (1 / power)) if seen.size else 0.0


def _top(k: int) -> Metric:
    return Metric(f"top-{k}", partial(top_k, k=k), "accuracy" if k == 1 else f"top-{k} accuracy", k)


METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for metric in (_top(1), _top(5), Metric("mean-iou", mean_iou, "IoU"))}
)
"""By name; `find_metric` takes `top-` with any other number as well."""

METRIC_NAMES = (*METRICS, "module:function")
"""The names that the help lists."""
