"""What a model gets right, measured on onnxruntime with the file that will be shipped.

A search evaluates hundreds of candidates on the same samples. So the samples are decoded, cast and
bound once (`Evaluator`), and a candidate costs one session and its forward passes. The result is a
score of each class (`onnxprune.evaluation.metrics`). Their harmonic mean is 0 as soon as one class
is never right, which their mean hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import IntArray
from onnxprune.checks import BATCH_SIZE, DEVICE, THREADS
from onnxprune.data import DATA, Data, class_axis
from onnxprune.errors import DataError, InvalidModel
from onnxprune.evaluation.guessing import Answers, every_other
from onnxprune.evaluation.metrics import Accuracy, Function, Metric, find_metric, predict
from onnxprune.evaluation.runtime import Model, Network

RESIDENT_BYTES = 4 << 30
"""Samples up to this size stay on the GPU; more are sent batch by batch, to leave room to run."""


class Evaluator:
    """Measures models on the same samples, which are cast and bound once."""

    def __init__(
        self,
        data: Data,
        *,
        metric: str | Function | Metric = "top-1",
        device: str = "auto",
        threads: int = 0,
        batch_size: int = 64,
    ) -> None:
        """Check the arguments; samples are bound for the first model.

        Raises: InvalidType, InvalidValue or UnknownName for a wrong argument; DataError without
        samples.
        """
        self.data: Data = DATA("data", data)
        if not len(data):
            raise DataError("samples: none to evaluate on")
        self.metric = metric if isinstance(metric, Metric) else find_metric(metric)
        self._device = DEVICE("device", device)
        self._threads = THREADS("threads", threads)
        self._batch_size = BATCH_SIZE("batch_size", batch_size)
        self._bound: dict[tuple[Any, ...], list[Any]] = {}

    def __call__(self, model: Model) -> Accuracy:
        """Measure what the model gets right; label maps are resized to its output.

        Raises: InvalidModel where its output does not fit the labels; DataError where the samples
        do not fit the model, or a user's metric fails.
        """
        return self._measure(self._run(model))

    def judge(self, model: Model) -> tuple[Accuracy, npt.NDArray[Any]]:
        """Measure, and return the predicted class of each sample, or pixel, as well.

        Shapes: `[n]` or `[n, H, W]`.
        Raises: InvalidModel and DataError as a call does.
        """
        classes = []

        def noted() -> Iterator[npt.NDArray[Any]]:
            for rows in self._run(model):
                classes.append(predict(rows, self.data.y))
                yield rows

        return self._measure(noted()), np.concatenate(classes)

    def answers(self, model: Model) -> Answers | None:
        """Count what the model says of the samples, None for a user's metric.

        Raises: InvalidModel and DataError as a call does.
        """
        k = self.metric.answers
        if not k:
            return None
        second = every_other(self.data.y)
        counted, start = [], 0
        for rows in self._run(model):
            part = slice(start, start + len(rows))
            counted.append(Answers.of(rows, self.data.y[part], k, second=second[part]))
            start += len(rows)
        return reduce(add, counted)

    def apart(self, models: Iterable[Model], folds: IntArray) -> Accuracy:
        """Measure each fold of the samples with a model of its own.

        Shapes: folds `[n]`, with one value for each model, in the order of the models.
        """
        parts = (self._part(folds == fold) for fold in np.unique(folds))
        pairs = zip(parts, models, strict=True)
        if self.metric.adds_up:
            return reduce(add, (part(model) for part, model in pairs))
        found = [(part.outputs(model), part.data.y) for part, model in pairs]
        return self.metric(*map(np.concatenate, zip(*found, strict=True)))

    def _part(self, chosen: npt.NDArray[np.bool_]) -> Evaluator:
        """Return an evaluator of a part of the samples. Shapes: chosen `[n]`."""
        return Evaluator(
            replace(self.data, x=self.data.x[chosen], y=self.data.y[chosen]),
            metric=self.metric,
            device=self._device,
            threads=self._threads,
            batch_size=self._batch_size,
        )

    def outputs(self, model: Model) -> npt.NDArray[Any]:
        """Run the model on all samples and return its first output.

        Shapes: `[n, classes]`; where the samples have label maps `[n, classes, H, W]` or
        `[n, H, W, classes]`; for a user's metric `[n, ...]`, whatever the model gives.
        Raises: InvalidModel and DataError as a call does.
        """
        return np.concatenate(list(self._run(model)))

    def _measure(self, outputs: Iterator[npt.NDArray[Any]]) -> Accuracy:
        """Measure the outputs; maps, which are large, batch by batch."""
        targets = self.data.y
        if targets.ndim == 1 or not self.metric.adds_up:
            return self.metric(np.concatenate(list(outputs)), targets)
        measured, start = [], 0
        for rows in outputs:
            measured.append(self.metric(rows, targets[start : start + len(rows)]))
            start += len(rows)
        return reduce(add, measured)

    def _run(self, model: Model) -> Iterator[npt.NDArray[Any]]:
        """Yield the checked output of each batch."""
        net = Network(model, self._device, self._threads, exact=True)
        if net.place == "cpu":
            self._device = "cpu"  # a GPU that did not start is not asked again
        left = len(self.data)
        for batch in self._batches(net):
            yield self._checked(net, net.run(batch), batch.shape()[0])[:left]
            left -= batch.shape()[0]

    def _checked(self, net: Network, rows: npt.NDArray[Any], samples: int) -> npt.NDArray[Any]:
        """Refuse an output that the metric cannot read.

        Shapes: `[b, classes, 1..]` -> `[b, classes]`; maps, and those for a user's metric, as they
        are.
        """
        found, maps = list(rows.shape), self.data.y.ndim == 3
        if not self.metric.adds_up:
            expected, fits = "...", True
        elif maps:
            expected, fits = "classes, height, width", rows.ndim == 4
        else:
            while rows.ndim > 2 and rows.shape[-1] == 1:
                rows = rows[..., 0]
            expected, fits = "classes", rows.ndim == 2
        fits = fits and rows.shape[:1] == (samples,) and rows.dtype.kind == "f" and rows.size > 0
        if not fits:
            how = "; or give label maps" if rows.ndim == 4 and not maps else ""
            raise InvalidModel(
                f"{net.name}: output {net.output!r} is {rows.dtype} {found}, expected floats "
                f"[{samples}, {expected}]; make the class scores the first output{how}"
            )
        axis = class_axis(rows.shape, self.data.y.shape)
        highest = rows.max(axis=axis) if self.metric.adds_up else rows  # -inf is a low score
        if not np.isfinite(highest).all():
            raise InvalidModel(f"{net.name}: output {net.output!r} holds NaN or infinity")
        return rows

    def _batches(self, net: Network) -> list[Any]:
        """Bind the samples in the form that the model takes, unless they are bound so already."""
        key = (net.shape, net.dtype, net.batch, net.place)
        if key not in self._bound:
            x = net.fitted(self.data.x)
            size = net.batch or self._batch_size
            batches = [x[start : start + size] for start in range(0, len(x), size)]
            if net.batch:  # the last one is filled with copies, which `_run` drops
                batches[-1] = np.resize(batches[-1], (size, *x.shape[1:]))
            place = net.place if x.nbytes <= RESIDENT_BYTES else "cpu"
            self._bound[key] = [net.bind(batch, place) for batch in batches]
        return self._bound[key]
