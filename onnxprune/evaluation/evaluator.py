"""What a model gets right, measured on onnxruntime with the file that will be shipped.

A search evaluates hundreds of candidates on the same samples. So the samples are decoded, cast and
bound once (`Evaluator`), and a candidate costs one session and its forward passes. The result is a
score of each class (`onnxprune.evaluation.metrics`). Their harmonic mean is 0 as soon as one class
is never right, which their mean hides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, ValueInfoProto

from onnxprune.arrays import BoolArray, IntArray
from onnxprune.checks import BATCH_SIZE, DEVICE, THREADS
from onnxprune.data import DATA, Data, Inputs, by_name, class_axis
from onnxprune.engine import Job, Portable, each, is_spread
from onnxprune.errors import DataError, InvalidModel
from onnxprune.evaluation.accuracy import Accuracy
from onnxprune.evaluation.class_scores import predict
from onnxprune.evaluation.guessing import Answers, every_other
from onnxprune.evaluation.inside import first_not_finite
from onnxprune.evaluation.metrics import Function, Metric, find_metric
from onnxprune.evaluation.net import Batch, Net, fixed_batch
from onnxprune.evaluation.runtime import Runnable, running
from onnxprune.graph import copied, load_model

RESIDENT_BYTES = 4 << 30
"""Samples up to this size stay on the GPU; more are sent batch by batch, to leave room to run."""

Outputs = dict[str, npt.NDArray[Any]]
"""Outputs of a batch by name; those of samples that differ in shape are an array of arrays."""
Rows: TypeAlias = "slice | IntArray"
"""Some of the samples."""
Read: TypeAlias = "Callable[[Evaluator, Outputs, Rows], Any]"
"""What is read off the outputs of a batch."""


class Evaluator(Portable):
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
        self._bound: dict[tuple[Any, ...], Batch] = {}
        self._is_apart = isinstance(data.x, Inputs) and data.x.apart
        # Outputs without a row for each sample: nobody can tell whose is whose. The first run does.
        self._mixed: frozenset[str] | None = frozenset() if self.metric.answers else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_bound": {}}

    def __call__(self, model: Runnable) -> Accuracy:
        """Measure what the model gets right; label maps are resized to its output.

        Raises: InvalidModel where its output does not fit the labels; DataError where the samples
        do not fit the model, or a user's metric fails.
        """
        return self._measure(model)[0]

    def some(self, model: Runnable, rows: IntArray) -> Accuracy:
        """Measure what the model gets right of some samples. Shapes: rows `[n]`.

        Raises: InvalidModel and DataError as a call does.
        """
        return self._measure(model, rows)[0]

    def judge(self, model: Runnable) -> tuple[Accuracy, npt.NDArray[Any]]:
        """Measure, and return the predicted class of each sample, or pixel, as well.

        Shapes: `[n]` or `[n, H, W]`.
        Raises: InvalidModel and DataError as a call does.
        """
        accuracy, classes = self._measure(model, also=_classes)
        return accuracy, np.concatenate(classes)

    def answers(self, model: Runnable) -> Answers | None:
        """Count what the model says of the samples, None for a metric without classes.

        Raises: InvalidModel and DataError as a call does.
        """
        if not self.metric.answers:
            return None
        parts: Iterator[Answers] = (counted for (counted,) in self._pass(model, _answers))
        return reduce(add, parts)

    def apart(self, models: Iterable[Runnable], folds: IntArray) -> Accuracy:
        """Measure each fold of the samples with a model of its own.

        Shapes: folds `[n]`, with one value for each model, in the order of the models.
        Raises: InvalidModel and DataError as a call does.
        """
        parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
        pairs = zip(models, parts, strict=True)
        if self.metric.adds_up:
            return reduce(add, (self._measure(model, rows)[0] for model, rows in pairs))
        found = [out for model, rows in pairs for (out,) in self._pass(model, _outputs, rows=rows)]
        rows = np.concatenate(parts)
        return self.metric(_joined(found), self._targets[rows], self._numbers[rows])

    def outputs(self, model: Runnable, rows: IntArray | None = None) -> Outputs:
        """Run the model on all samples, or some; return the outputs that the metric reads, by name.

        Shapes: rows `[n]`; each `[n, ...]`, an array `[n]` of arrays where samples differ in shape.
        Raises: InvalidModel and DataError as a call does.
        """
        return _joined([outputs for (outputs,) in self._pass(model, _outputs, rows=rows)])

    def of_rows(self, outputs: Outputs) -> Callable[[IntArray], Accuracy]:
        """Return what measures some samples of outputs, each as often as it comes.

        Shapes: outputs as `outputs` returns them; rows `[m]`.
        Raises: OnnxPruneError, when it measures, as the metric does.
        """
        if self.metric.of_rows is not None:
            return self.metric.of_rows(outputs, self._targets)

        def measure(rows: IntArray) -> Accuracy:
            chosen = {name: given[rows] for name, given in outputs.items()}
            targets, numbers = self._targets[rows], self._numbers[rows]
            return self.metric(chosen, targets, numbers)

        return measure

    def _measure(
        self, model: Runnable, rows: IntArray | None = None, also: Read | None = None
    ) -> tuple[Accuracy, list[Any]]:
        """Measure a model, batch by batch where that adds up; read something else as well."""
        read = _accuracy if self.metric.adds_up else _outputs
        reads = (read,) if also is None else (read, also)
        found, *others = zip(*self._pass(model, *reads, rows=rows), strict=True)
        others = list(others[0]) if others else []
        if self.metric.adds_up:
            return reduce(add, found), others
        chosen = slice(None) if rows is None else rows
        joined = _joined(list(found))
        return self.metric(joined, self._targets[chosen], self._numbers[chosen]), others

    def _pass(
        self, model: Runnable, *reads: Read, rows: IntArray | None = None
    ) -> Iterator[tuple[Any, ...]]:
        """Run the model on all samples, or some; yield what is read off each batch."""
        opened = self._opened(model)
        job = _Pass(self, opened, reads)
        if is_spread() and isinstance(opened, ModelProto):  # no worker waits until one opened it
            fixed = fixed_batch(opened)
        else:
            (fixed,) = each(job, [None])
        if self._mixed is None:
            shards = self._shards(fixed, rows, single=False)
            if not fixed and not self._is_apart:  # by chance there may be as many rows as samples
                shards.insert(0, slice(1))
            self._mixed = frozenset[str]().union(*each(job, [(one, None) for one in shards]))
        shards = self._shards(fixed, rows, single=bool(self._mixed))
        yield from each(job, [(shard, self._mixed) for shard in shards], "running the model")

    def _shards(self, fixed: int | None, rows: IntArray | None, *, single: bool) -> list[Rows]:
        """The samples of each batch."""
        size = 1 if single or self._is_apart else fixed or self._batch_size
        starts = range(0, len(self.data) if rows is None else len(rows), size)
        return [slice(k, k + size) if rows is None else rows[k : k + size] for k in starts]

    @cached_property
    def _second(self) -> BoolArray:
        """Which samples are every other one of their class. Shapes: `[n]`."""
        return every_other(self.data.y)

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
        opened = copied(proto)
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
            raise _NotFinite(f"{net.name}: output {name!r} holds NaN or infinity")
        return rows

    def _batch(self, net: Net, rows: Rows, mixed: bool) -> Batch:
        """Bind samples in the form that the model takes, unless they are bound so already."""
        if not isinstance(rows, slice) or not self._stays(net):
            return self._bind(net, rows)
        key = (type(net), *net.ports.values(), net.place, mixed, rows.start, rows.stop)
        if key not in self._bound:
            self._bound[key] = self._bind(net, rows)
        return self._bound[key]

    def _stays(self, net: Net) -> bool:
        """Whether the samples have room where the model reads them."""
        x = by_name(self.data.x, "")
        return not x.streamed and (net.place == "cpu" or x.nbytes <= RESIDENT_BYTES)

    def _bind(self, net: Net, rows: Rows) -> Batch:
        x = net.fitted(self.data.x[rows])
        if net.batch and not x.apart:  # the last is filled with copies, whose outputs are dropped
            x = x[np.arange(net.batch) % len(x)]
        return net.bind(x, net.place)


@dataclass(frozen=True, eq=False)
class _Pass(Job):
    """A model over the samples of an evaluator; `reads` say what is read off each batch.

    A shard is the samples of a batch and which outputs are mixed up; where that is not known, it is
    found. Without a shard, it is how many samples the model fixes.
    """

    evaluator: Evaluator
    model: Runnable
    reads: tuple[Read, ...]

    @property
    def stays(self) -> bool:
        """Whether the model runs here only."""
        return isinstance(self.model, Net)

    @cached_property
    def _net(self) -> Net:
        judge = self.evaluator
        net = running(self.model, judge._device, judge._threads, exact=True)
        if net.place == "cpu":
            judge._device = "cpu"  # a GPU that did not start is not asked again
        return net

    @cached_property
    def _names(self) -> tuple[str, ...]:
        judge, net = self.evaluator, self._net
        return judge._names or (net.outputs if not judge.metric.answers else net.outputs[:1])

    def soon(self, shard: tuple[Rows, frozenset[str] | None] | None) -> None:
        """Begin to read a batch."""
        if shard is not None:
            self.evaluator.data.soon(shard[0])

    def run(self, shard: tuple[Rows, frozenset[str] | None] | None) -> Any:
        """Run one batch. Raises: InvalidModel where an output cannot be read."""
        judge, net = self.evaluator, self._net
        if shard is None:
            return net.batch
        rows, mixed = shard
        batch = judge._batch(net, rows, bool(mixed))
        given = net.run(batch, self._names)
        if mixed is None:
            return frozenset(n for n, found in given.items() if found.shape[:1] != (batch.size,))
        outputs = {name: found[None] if name in mixed else found for name, found in given.items()}
        try:
            checked = {n: judge._checked(net, n, one, batch.size) for n, one in outputs.items()}
        except _NotFinite as error:
            raise InvalidModel(f"{error}{self._beginning(rows)}") from None
        left = len(judge.data.y[rows])
        own = {name: found[:left] for name, found in checked.items()}
        return tuple(read(judge, own, rows) for read in self.reads)

    def _beginning(self, rows: Rows) -> str:
        """Name the node at which NaN or infinity begins, where the model shows its nodes."""
        if isinstance(self.model, Net):
            return ""
        feeds = self._net.fitted(self.evaluator.data.x[rows]).feeds
        place = first_not_finite(load_model(self.model), feeds)
        return "" if place is None else f", which begins at {place}"


class _NotFinite(InvalidModel):
    """An output that is not a number."""


def _outputs(judge: Evaluator, outputs: Outputs, rows: Rows) -> Outputs:
    return outputs


def _accuracy(judge: Evaluator, outputs: Outputs, rows: Rows) -> Accuracy:
    return judge.metric(outputs, judge._targets[rows], judge._numbers[rows])


def _classes(judge: Evaluator, outputs: Outputs, rows: Rows) -> npt.NDArray[Any]:
    return predict(_first(outputs), judge.data.y)


def _answers(judge: Evaluator, outputs: Outputs, rows: Rows) -> Answers:
    labels, second = judge.data.y[rows], judge._second[rows]
    return Answers.of(_first(outputs), labels, judge.metric.answers, second=second)


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
