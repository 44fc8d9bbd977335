"""The sums of a criterion's values over the samples of each class."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.arrays import FloatArray, IntArray
from onnxprune.channels import ChannelGroups, Filters
from onnxprune.data import Data, Streamed, by_name, class_shares, counted
from onnxprune.engine import each
from onnxprune.errors import DataError, InvalidModel
from onnxprune.graph import Graph
from onnxprune.ops._torch import torch
from onnxprune.relevance.batches import LOOKING, Batch, OnSamples, cut, shards
from onnxprune.relevance.fuse import folded
from onnxprune.relevance.mirror import Mirror, Tensors

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)

MANY = 8192
"""Samples; more are taken in the order of their classes."""

FromSamples = Callable[[Mirror, Any, "Tensor", Mapping[str, int]], Tensors]

SIGNS: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {
        "summed": lambda values: values,
        "absolute": np.abs,
        "positive": lambda values: np.maximum(values, 0),
    }
)
"""How the values of a sample count."""

Sums = tuple[IntArray, dict[str, FloatArray]]
"""The classes of some samples, and the sums over these of the values of filters, by tensor.

Shapes: classes `[c]`, sums each `[c, filters]`."""


@dataclass(frozen=True, eq=False)
class ClassSums(OnSamples):
    """The sums of values over the samples of each class.

    A sample with a label map counts for all classes in it, in equal shares. `measure` gives the
    values of the samples of a batch, `sign` is one of `SIGNS`, `users` says that it is a user's.
    """

    graph: Graph
    groups: ChannelGroups
    data: Data
    measure: FromSamples
    sign: str
    device: str
    batch_size: int
    users: bool = False

    @property
    def taken(self) -> int | None:
        """How many bytes a batch takes; None for a user's function, which is called in turn."""
        return None if self.users else super().taken

    def counts(self) -> FloatArray:
        """How many samples each class has, of maps in shares. Shapes: `[classes]`."""
        y, classes = self.data.y, len(self.data.classes)
        if y.ndim == 1:
            return np.bincount(counted(y), minlength=classes).astype(np.float64)
        return np.asarray(class_shares(y, classes).sum(0))

    @cached_property
    def tensors(self) -> dict[str, int]:
        """The axis of the filters, by tensor."""
        return {filters.output: filters.axis for filters in self.groups.filters}

    @cached_property
    def _mirror(self) -> Mirror:
        return folded(Mirror(self.graph, device=self.device, heads=self.data.heads))

    def run(self, shard: tuple[Batch, ...] | None) -> list[Batch] | Sums:
        """Return the sums over some batches; without any, the batches there are."""
        if shard is None:
            return cut(self._mirror, self.data, self.batch_size, self.tensors, self._order())
        parts = [(batch.rows, self._values(batch)) for batch in shard]
        labels = np.concatenate([self.data.y[rows] for rows, _ in parts])
        shown = class_shares(labels, len(self.data.classes))
        classes = np.flatnonzero(shown.any(0))
        rows, places = np.nonzero(shown[:, classes])
        held = shown[:, classes][rows, places]
        sums = {}
        for name in parts[0][1]:
            values = np.concatenate([found[name] for _, found in parts])
            sums[name] = np.zeros((len(classes), values.shape[1]))
            np.add.at(sums[name], places, values[rows] * held[:, None])
        return classes, sums

    def _order(self) -> IntArray | None:
        """Very many samples one class after the other, whose shards have few sums; or as they are.

        A shard of as many classes as samples has as many sums as there are filters for each, and
        all of them go through the process that adds. Shapes: `[n]`.
        """
        y, arrays = self.data.y, by_name(self.data.x, "").arrays.values()
        in_place = any(isinstance(one, Streamed) and one.together for one in arrays)
        return None if y.ndim > 1 or len(y) <= MANY or in_place else np.argsort(y, kind="stable")

    def _values(self, batch: Batch) -> dict[str, FloatArray]:
        """The values of the filters of each sample. Shapes: each `[n, filters]`."""
        x, y = batch.of(self.data)
        filled = np.minimum(np.arange(len(x)), len(y) - 1)
        labels = torch.from_numpy(y[filled]).to(self._mirror.device)
        found = self.measure(self._mirror, x, labels, self.tensors)
        values = {}
        for filters in self.groups.filters:
            if filters.output in found:
                measured = np.asarray(found[filters.output].detach().double().cpu())
                check_shape(measured, (len(x), filters.channels.size), filters)
                values[filters.output] = SIGNS[self.sign](measured[: len(y)])
        return values


def class_means(job: ClassSums) -> dict[str, FloatArray]:
    """The mean value of each filter over the samples of each class, by tensor.

    Shapes: each `[classes, filters]`.
    """
    data = job.data
    highest = int(counted(data.y).max(initial=0))
    if highest >= len(data.classes):
        raise DataError(f"samples: label {highest}, but {len(data.classes)} class names")
    count = job.counts()
    sizes = {filters.output: filters.channels.size for filters in job.groups.filters}
    sums = {name: np.zeros((len(data.classes), size)) for name, size in sizes.items()}
    (batches,) = each(job, [None])
    for number, (classes, part) in enumerate(each(job, shards(batches), LOOKING)):
        for name, found in part.items():
            sums[name][classes] += found
        for name in sorted(sums.keys() - part.keys() if not number else ()):
            logger.warning("convolution output '%s' has no way to the output: scores 0", name)
    return {name: total / np.where(count > 0, count, 1)[:, None] for name, total in sums.items()}


def check_shape(values: FloatArray, expected: tuple[int, ...], filters: Filters) -> None:
    """Refuse values of another shape. Raises: InvalidModel."""
    if values.shape != expected:
        raise InvalidModel(
            f"Conv '{filters.node}': the criterion gives values of shape {list(values.shape)}; "
            f"expected {list(expected)}"
        )
