"""Metrics: from the outputs of a network and the targets to a score of each class, 0 to 1.

    top-1, top-5, ...    share of a class's samples whose class has one of the highest 1, 5, scores
    mean-iou             intersection over union of a class's pixels, predicted and true
    fidelity             agreement with the unpruned network (`onnxprune.evaluation.fidelity`)
    map, map50           average precision of a class's boxes (`onnxprune.detection`)
    MODULE:FUNCTION, FILE.py:FUNCTION    a user's function (outputs, targets) -> scores [classes]

Samples that have a class and pixels that have one are measured alike. A class without samples or
pixels counts in no mean. The counts of a named metric add up over parts of the samples
(`Accuracy`). The accuracy-aware controller watches its soft form: the mean probability of the true
class over the samples, or pixels, of a class. A user's function sees all samples at once and has no
soft form, so its scores stand for both.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.checks import Text
from onnxprune.data import class_axis, counted, fit_labels
from onnxprune.errors import DataError, check_name
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.class_scores import mean_iou, top_k
from onnxprune.plugins import find_function, name_of, users_code

Function: TypeAlias = Callable[..., Any]
"""A metric of one's own: `(outputs, targets)` or `(outputs by name, targets, numbers)`."""

Outputs: TypeAlias = Mapping[str, npt.NDArray[Any]]
"""Outputs of a network by name, in order: the first is the one that class scores are read from."""

USER_FUNCTION = (
    "a function (outputs, targets) or (outputs by name, targets, numbers of the samples) that "
    "returns a score from 0 to 1 for each class, or one for all"
)


@dataclass(frozen=True)
class Metric:
    """A named way to measure outputs against targets.

    `measure` takes outputs by name, the targets, and the numbers of the samples. `caption` names
    what it measures of a class, for people. `answers` is how many of a network's classes it takes
    as answers to a sample, 0 where it takes the outputs whole. `adds_up` says whether the results
    of parts of the samples add up to that of all. `parts` names what has a score, where it is not
    the classes of the samples; `reads` are the tensors that it needs, where they are not all.
    `of_rows` returns what measures rows of outputs and targets again and again, where that is
    quicker so.
    Shapes: `measure` takes each output `[n, ...]`, targets `[n, ...]`, numbers `[n]`.
    """

    name: str
    measure: Callable[[Outputs, npt.NDArray[Any], IntArray], Accuracy]
    caption: str
    answers: int = 0
    adds_up: bool = False
    parts: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    of_rows: Callable[[Outputs, Any], Callable[[IntArray], Accuracy]] | None = None

    def __call__(
        self,
        outputs: Outputs | npt.NDArray[Any],
        targets: npt.NDArray[Any],
        numbers: IntArray | None = None,
    ) -> Accuracy:
        """Measure outputs; label maps are resized to the size of the first.

        Shapes: outputs `[n, classes]` and targets `[n]`, or outputs `[n, classes, H, W]` (or
        `[n, H, W, classes]`) and targets `[n, H', W']`; numbers `[n]`.
        """
        named = {"": outputs} if isinstance(outputs, np.ndarray) else outputs
        return self.measure(named, targets, np.arange(len(targets)) if numbers is None else numbers)


def of_classes(
    name: str, measure: Callable[..., Accuracy], caption: str, *, answers: int = 1
) -> Metric:
    """Return a metric of class scores, which are the first output."""
    return Metric(name, partial(_of_scores, measure), caption, answers, adds_up=True)


def _of_scores(
    measure: Callable[..., Accuracy], outputs: Outputs, targets: npt.NDArray[Any], _: IntArray
) -> Accuracy:
    scores = next(iter(outputs.values()))
    return measure(scores, fit_labels(targets, scores.shape))


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
    return METRICS["top-1" if name == AUTO else name]


def caption(name: str) -> str:
    """Return what a metric measures of a class, in words.

    >>> [caption(name) for name in ("top-1", "top-5", "mean-iou", "mine.py:boundary_f1")]
    ['accuracy', 'top-5 accuracy', 'IoU', 'boundary_f1']
    """
    return name.rpartition(":")[2] if ":" in name else find_metric(name).caption


def _of_function(function: Function, name: str) -> Metric:
    takes = 3 if _takes(function, 3) else 2
    return Metric(name, partial(_own, function, name, takes), name.rpartition(":")[2])


def _takes(function: Function, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except (TypeError, ValueError):  # it takes others, or does not say which
        return False
    return True


def _own(
    function: Function,
    name: str,
    takes: int,
    outputs: Outputs,
    targets: npt.NDArray[Any],
    numbers: IntArray,
) -> Accuracy:
    """Measure by a user's function, and check what it returns."""
    with users_code(f"metric '{name}'", USER_FUNCTION):
        if takes == 3:
            returned = function(dict(outputs), list(targets), numbers)
        else:
            first = next(iter(outputs.values()))
            returned = function(first, fit_labels(targets, first.shape))
        scores = np.atleast_1d(np.asarray(returned, np.float64))
    inside = (scores >= 0) & (scores <= 1) | np.isnan(scores)
    classes = _least_scores(targets, next(iter(outputs.values())))
    few = len(scores) not in (1, *range(classes, len(scores) + 1)) if scores.ndim == 1 else True
    if few or not inside.all():
        wrong = "" if inside.all() else f", {scores[~inside][0]} among them"
        of = f", of which there are {classes} or more; NaN for one without samples"
        raise DataError(
            f"metric '{name}': returns shape {list(scores.shape)}{wrong}; expected "
            f"{USER_FUNCTION}{of if classes > 1 else ''}"
        )
    return Accuracy.from_scores(scores)


def _least_scores(targets: npt.NDArray[Any], output: npt.NDArray[Any]) -> int:
    """How many classes there are at least; 1 where the targets are no classes of the output."""
    if targets.dtype.kind not in "iu" or targets.ndim not in (1, 3) or output.ndim < 2:
        return 1
    most = int(counted(targets).max(initial=0)) + 1
    axis = class_axis(output.shape, targets.shape)
    return most if most <= max(output.shape[axis], 2) else 1


def _top(k: int) -> Metric:
    caption = "accuracy" if k == 1 else f"top-{k} accuracy"
    return of_classes(f"top-{k}", partial(top_k, k=k), caption, answers=k)


def _no_boxes(*_: Any) -> Accuracy:
    raise DataError(
        "metric: average precision needs samples with boxes; give data.yaml, annotations of COCO "
        "or a folder of Pascal VOC as --data"
    )


def _unbound(*_: Any) -> Accuracy:
    raise DataError(
        "metric 'fidelity': the unpruned model's outputs are missing; evaluate with "
        "Fidelity(...).metric"
    )


AUTO, FIDELITY = "auto", "fidelity"
"""What fits the samples, top-1 where they have classes; agreement with the unpruned model."""

AVERAGE_PRECISION = "map"
"""The metric of samples with boxes, where none is named."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        metric.name: metric
        for metric in (
            _top(1),
            _top(5),
            of_classes("mean-iou", mean_iou, "IoU"),
            Metric(FIDELITY, _unbound, FIDELITY),
            Metric(AVERAGE_PRECISION, _no_boxes, "AP"),
            Metric("map50", _no_boxes, "AP50"),
        )
    }
)
"""By name; `find_metric` takes `top-` with any other number as well."""

METRIC_NAMES = (AUTO, *METRICS, "module:function")
"""The names that the help lists."""
