"""Pruning of a torch module that is trained further: from torch and back to it in one call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from onnxprune.errors import ConversionError, DataError
from onnxprune.graph import Graph
from onnxprune.modules import EXPORTERS, check_module, cut_checked, trace
from onnxprune.ops._torch import torch
from onnxprune.run import Result, prune

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)
else:
    Module = TypeVar("Module")

BATCH = 3
"""Samples that the module is traced with, and that it and the pruned model are compared on."""


def prune_module(module: Module, loader: Iterable[Any], **options: Any) -> tuple[Module, Result]:
    """Prune a torch module: return a pruned copy to be trained on, and the result of the run.

    `loader` yields batches `(x, y)`, or x alone, as a DataLoader does; x is what the module takes:
    a tensor, or for a module of several inputs a tuple of them, as in `((a, b), y)` or `((a, b),)`.
    Where its code states numbers of channels, the copy is one of torch.fx.
    `options` are those of `prune`. The module itself is not changed. Batch normalisation stays
    apart from convolutions in the model, as it does in the module.
    Shapes: x `[n, ...]`, y as labels are given to `prune`.
    Raises: as `prune` and `cut_module`; DataError for a loader without batches.
    """
    check_module(module)
    batches = [_arrays(batch) for batch in loader]
    if not batches:
        raise DataError("loader: yields no batch; expected (x, y), or x alone")
    given = batches[0][0] if isinstance(batches[0], tuple) else batches[0]
    first = given if isinstance(given, dict) else {_named(0): given}
    result = prune(_traced(module, [x[:2] for x in first.values()]), batches, **options)
    names = [value.name for value in result.model.graph.input]
    feeds = {name: x[:BATCH] for name, x in zip(names, first.values(), strict=True)}
    return cut_checked(module, Graph(result.model), result.plan, feeds), result


def _traced(module: nn.Module, x: Sequence[npt.NDArray[Any]]) -> ModelProto:
    """A module as ONNX, by the first exporter that keeps its tensors apart from sequences."""
    problem: ConversionError | None = None
    model = None
    for exporter in EXPORTERS:
        try:
            model = trace(module, [torch.from_numpy(one) for one in x], exporter)
        except ConversionError as error:
            problem = problem or error
            continue
        if not any("Sequence" in node.op_type for node in model.graph.node):
            return model
    if model is None:
        assert problem is not None
        raise problem
    return model


def _arrays(batch: Any) -> Any:
    """A batch of tensors as arrays."""
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        first, *rest = batch
        several = isinstance(first, tuple | list)
        x = {_named(k): _array(one) for k, one in enumerate(first)} if several else _array(first)
        return (x, *map(_array, rest)) if rest else x
    return _array(batch)


def _named(k: int) -> str:
    """The name of an input, as `trace` gives it."""
    return f"input_{k}" if k else "input"


def _array(part: Any) -> npt.NDArray[Any]:
    return part.detach().cpu().numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
