"""What a model gets right, measured on onnxruntime with the file that will be shipped.

A search evaluates hundreds of candidates on the same samples. So the samples are decoded, cast and
bound once (`Evaluator`), and a candidate costs one session and its forward passes. The result is a
score of each class (`onnxprune.evaluation.metrics`). Their harmonic mean is 0 as soon as one class
is never right, which their mean hides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto

from onnxprune.arrays import IntArray
from onnxprune.checks import BATCH_SIZE, DEVICE, THREADS
from onnxprune.data import DATA, Data, class_axis
from onnxprune.errors import DataError, InvalidModel
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.class_scores import predict
from onnxprune.evaluation.guessing import Answers, every_other
from onnxprune.evaluation.metrics import Function, Metric, find_metric
from onnxprune.evaluation.net import Batch, Net
from onnxprune.evaluation.runtime import Runnable, running
from onnxprune.graph import load_model
from onnxprune.progress import track

RESIDENT_BYTES = 4 << 30
"""Samples up to this size stay on the GPU; more are sent batch by batch, to leave room to run."""

Outputs = dict[str, npt.NDArray[Any]]
"""Outputs of a batch by name; those of samples that differ in shape are an array of arrays."""


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
        outputs: Sequence[str] = (),
        numbers: IntArray | None = None,
    ) -> None:
        """Check the arguments; samples are bound for the first model.

        `outputs` are the tensors that the metric reads, by default the first output for class
        scores and all for another metric. `numbers` are those of the samples, where they are a part
        of others.

        Shapes: numbers `[n]`.
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
        self._names = tuple(outputs) or self.metric.reads
        self._numbers = np.arange(len(data)) if numbers is None else numbers
        self._targets = data.y if data.targets is None else data.targets
        self._bound: dict[tuple[Any, ...], list[Batch]] = {}
        self._mixed: frozenset[str] | None = None  # the first run tells

    def __call__(self, model: Runnable) -> Accuracy:
        """Measure what the model gets right; label maps are resized to its output.

        Raises: InvalidModel where its output does not fit the labels; DataError where the samples
        do not fit the model, or a user's metric fails.
        """
        return self._measure(self._run(model))

    def judge(self, model: Runnable) -> tuple[Accuracy, npt.NDArray[Any]]:
        """Measure, and return the predicted class of each sample, or pixel, as well.

        Shapes: `[n]` or `[n, H, W]`.
        Raises: InvalidModel and DataError as a call does.
        """
        classes = []

        def noted() -> Iterator[Outputs]:
            for outputs in self._run(model):
                classes.append(predict(_first(outputs), self.data.y))
                yield outputs

        return self._measure(noted()), np.concatenate(classes)

    def answers(self, model: Runnable) -> Answers | None:
        """Count what the model says of the samples, None for a metric without classes.

        Raises: InvalidModel and DataError as a call does.
        """
        k = self.metric.answers
        if not k:
            return None
        second = every_other(self.data.y)
        counted, start = [], 0
        for outputs in self._run(model):
            rows = _first(outputs)
            part = slice(start, start + len(rows))
            counted.append(Answers.of(rows, self.data.y[part], k, second=second[part]))
            start += len(rows)
        return reduce(add, counted)

    def apart(self, models: Iterable[Runnable], folds: IntArray) -> Accuracy:
        """Measure each fold of the samples with a model of its own.

        Shapes: folds `[n]`, with one value for each model, in the order of the models.
        """
        parts = (self._part(np.flatnonzero(folds == fold)) for fold in np.unique(folds))
        pairs = zip(parts, models, strict=True)
        if self.metric.adds_up:
            return reduce(add, (part(model) for part, model in pairs))
        found = [(part.outputs(model), part._numbers) for part, model in pairs]
        numbers = np.concatenate([part for _, part in found])
        order = np.searchsorted(self._numbers, numbers)
        return self.metric(
            _joined([outputs for outputs, _ in found]), self._targets[order], numbers
        )

    def _part(self, rows: IntArray) -> Evaluator:
        """Return an evaluator of a part of the samples. Shapes: rows `[m]`, their places."""
        part = Evaluator(
            self.data.rows(rows),
            metric=self.metric,
            device=self._device,
            threads=self._threads,
            batch_size=self._batch_size,
            outputs=self._names,
            numbers=self._numbers[rows],
        )
        part._mixed = self._mixed
        return part

    def outputs(self, model: Runnable) -> Outputs:
        """Run the model on all samples and return the outputs that the metric reads, by name.

        Shapes: each `[n, ...]`; an array `[n]` of arrays where samples differ in shape.
        Raises: InvalidModel and DataError as a call does.
        """
        return _joined(list(self._run(model)))

    def of_rows(self, outputs: Outputs) -> Callable[[IntArray], Accuracy]:
        """Return what measures some samples of outputs, each as often as it comes.

        Shapes: outputs as `outputs` returns them; rows `[m]`.
        Raises: OnnxPruneError, when it measures, as the metric does.
        """
        if self.metric.of_rows is not None:
            return self.metric.of_rows(outputs, self._targets)

        def measure(rows: IntArray) -> Accuracy:
            chosen = {name: given[rows] for name, given in outputs.items()}
            return self.metric(chosen, self._targets[rows], self._numbers[rows])

        return measure

    def _measure(self, batches: Iterator[Outputs]) -> Accuracy:
        """Measure the outputs, batch by batch where that adds up."""
        if not self.metric.adds_up:
            return self.metric(_joined(list(batches)), self._targets, self._numbers)
        measured, start = [], 0
        for outputs in batches:
            part = slice(start, start + len(_first(outputs)))
            measured.append(self.metric(outputs, self._targets[part], self._numbers[part]))
            start = part.stop
        return reduce(add, measured)

    def _run(self, model: Runnable) -> Iterator[Outputs]:
        """Yield the checked outputs of each batch."""
        net = running(self._opened(model), self._device, self._threads, exact=True)
        if net.place == "cpu":
            self._device = "cpu"  # a GPU that did not start is not asked again
        names = self._names or (net.outputs if not self.metric.answers else net.outputs[:1])
        left, mixed = len(self.data), self._mixed_up(net, names)
        batches = self._batches(net)
        for batch in track("running the model", batches, len(batches)):
            given = net.run(batch, names)
            outputs = {name: rows[None] if name in mixed else rows for name, rows in given.items()}
            checked = {n: self._checked(net, n, rows, batch.size) for n, rows in outputs.items()}
            yield {name: rows[:left] for name, rows in checked.items()}
            left -= batch.size

    def _mixed_up(self, net: Net, names: Sequence[str]) -> frozenset[str]:
        """The outputs without a row for each sample, so that nobody can tell whose is whose.

        By chance there may be as many rows as samples in a batch, so one is looked at alone too.
        """
        if self.metric.answers:
            return frozenset()
        if self._mixed is None:
            x = net.fitted(self.data.x)
            alone = [] if x.apart or net.batch else [net.bind(x[:1], "cpu")]
            self._mixed = frozenset(
                name
                for batch in (*alone, *self._batches(net))
                for name, rows in net.run(batch, names).items()
                if rows.shape[:1] != (batch.size,)
            )
        return self._mixed

    def _opened(self, model: Runnable) -> Runnable:
        """The model, with those tensors for outputs that are read inside it."""
        if not self._names:
            return model
        if isinstance(model, Net):
            if left := set(self._names) - set(model.outputs):
                raise InvalidModel(
                    f"{model.name}: has no output {', '.join(sorted(left))}, which the metric "
                    f"reads; it has {', '.join(model.outputs)}"
                )
            return model
        proto = model if isinstance(model, ModelProto) else load_model(model)
        given = {output.name for output in proto.graph.output}
        inside = [name for name in self._names if name not in given]
        if not inside:
            return model
        opened = ModelProto()
        opened.CopyFrom(proto)
        opened.graph.output.extend(ValueInfoProto(name=name) for name in inside)
        return opened

    def _checked(
        self, net: Net, name: str, rows: npt.NDArray[Any], samples: int
    ) -> npt.NDArray[Any]:
        """Refuse an output that the metric cannot read.

        Shapes: `[b, classes, 1..]` -> `[b, classes]`; maps, and those of a metric that takes
        outputs whole, as they are.
        """
        found, maps = list(rows.shape), self.data.y.ndim == 3
        if not self.metric.answers:
            expected, fits = "...", rows.dtype.kind in "fiubO"
        elif maps:
            expected, fits = "classes, height, width", rows.ndim == 4
        else:
            while rows.ndim > 2 and rows.shape[-1] == 1:
                rows = rows[..., 0]
            expected, fits = "classes", rows.ndim == 2
        read = not self.metric.answers or rows.dtype.kind == "f"
        empty = rows.size == 0 and bool(self.metric.answers)  # a detector may find nothing
        if not (fits and read and rows.shape[:1] == (samples,)) or empty:
            how = "; or give label maps" if rows.ndim == 4 and not maps else ""
            raise InvalidModel(
                f"{net.name}: output {name!r} is {rows.dtype} {found}, expected floats "
                f"[{samples}, {expected}]; name the class scores with --outputs{how}, or ask for "
                "--metric fidelity"
            )
        axis = class_axis(rows.shape, self.data.y.shape)
        highest = rows.max(axis=axis) if self.metric.answers else rows  # -inf is a low score
        if rows.dtype.kind == "f" and not np.isfinite(highest).all():
            raise InvalidModel(f"{net.name}: output {name!r} holds NaN or infinity")
        return rows

    def _batches(self, net: Net) -> list[Batch]:
        """Bind the samples in the form that the model takes, unless they are bound so already."""
        key = (type(net), *net.ports.values(), net.place, bool(self._mixed))
        if key not in self._bound:
            x = net.fitted(self.data.x)
            size = 1 if self._mixed or x.apart else net.batch or self._batch_size
            batches = [x[start : start + size] for start in range(0, len(x), size)]
            if net.batch and not x.apart:  # the last is filled with copies, which `_run` drops
                batches[-1] = batches[-1][np.arange(net.batch) % len(batches[-1])]
            place = net.place if x.nbytes <= RESIDENT_BYTES else "cpu"
            self._bound[key] = [net.bind(batch, place) for batch in batches]
        return self._bound[key]


def _first(outputs: Outputs) -> npt.NDArray[Any]:
    return next(iter(outputs.values()))


def _joined(batches: list[Outputs]) -> Outputs:
    """Join the rows of all batches."""
    return {name: _stacked([one[name] for one in batches]) for name in batches[0]}


def _stacked(parts: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    if len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    rows = [row for part in parts for row in part]
    held = np.empty(len(rows), object)
    for place, row in enumerate(rows):
        held[place] = row
    return held
