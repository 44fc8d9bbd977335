"""The way back: a module cut to be what a pruned model is, ready to be trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy.typing as npt

from onnxprune.errors import ConversionError, InvalidPlan, OnnxPruneError, UnmatchedModule
from onnxprune.evaluation import made_up
from onnxprune.graph import Graph, InputShapes, ModelSource, load_model
from onnxprune.modules.checking import check
from onnxprune.modules.corrected import carry
from onnxprune.modules.cutting import cut, with_state
from onnxprune.modules.restating import restated
from onnxprune.modules.saving import save_pruned_module
from onnxprune.modules.tracing import EXPORTERS, check_module, trace_apart
from onnxprune.ops._torch import torch
from onnxprune.search import Plan

if TYPE_CHECKING:
    from torch import nn

    Module = TypeVar("Module", bound=nn.Module)
else:
    Module = TypeVar("Module")

Array = npt.NDArray[Any]

logger = logging.getLogger(__name__)

BATCH = 3
"""Samples that the module and the model are compared on."""


def cut_module(
    module: Module,
    small: ModelSource,
    plan: Plan | str | Path,
    *,
    input_shapes: InputShapes = (),
) -> Module:
    """Return a copy of a torch module that computes what a pruned model does, to be trained on.

    `small` is the pruned model, `plan` what was removed from the model that the module was exported
    to. Layers keep their own weights where the run did not correct them.
    Raises: InvalidPlan for a plan of another model; UnmatchedModule naming what cannot be matched;
    ConversionError for a module that torch's exporters cannot follow; InvalidType for what is none.
    """
    check_module(module)
    plan = plan if isinstance(plan, Plan) else Plan.load(plan)
    graph = Graph(load_model(small), input_shapes=input_shapes)
    feeds = made_up(graph, batch=BATCH) or made_up(graph)
    if feeds is None:
        raise UnmatchedModule(
            "model: no values can be made up for its inputs; expected numbers of known shapes"
        )
    return cut_checked(module, graph, plan, feeds)


def export_weights(
    small: ModelSource,
    plan: Plan | str | Path,
    module: nn.Module,
    path: str | Path,
    *,
    input_shapes: InputShapes = (),
) -> Path:
    """Write what `cut_module` returns to a file for `load_pruned_module`.

    Raises: as `cut_module`, and then nothing is written; OutputError for a place that is not
    writable.
    """
    return save_pruned_module(cut_module(module, small, plan, input_shapes=input_shapes), path)


def cut_checked(module: Module, small: Graph, plan: Plan, feeds: Mapping[str, Array]) -> Module:
    """Return what `cut_module` does, held against the model on given inputs.

    The exporters are asked in turn what the module is; the first that leads to the model's outputs
    is believed.
    Shapes: feeds `[n, ...]` each.
    Raises: as `cut_module`; UnmatchedModule where the two give another number of tensors, too.
    """
    problem: OnnxPruneError | None = None
    for exporter in EXPORTERS:
        try:
            return _cut_by(module, small, plan, feeds, exporter)
        except (ConversionError, InvalidPlan, UnmatchedModule) as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _cut_by(
    module: Module, small: Graph, plan: Plan, feeds: Mapping[str, Array], exporter: str
) -> Module:
    inputs = [torch.from_numpy(array) for array in feeds.values()]
    bare, weights = trace_apart(module, inputs, exporter)
    traced = Graph(bare, weights=weights)
    if len(traced.outputs) != len(small.outputs):
        raise UnmatchedModule(
            f"module: returns {len(traced.outputs)} tensors, the model {len(small.outputs)}; give "
            f"the module as it was exported (Ultralytics sets `export` of the head, model[-1])"
        )
    found = cut(list(module.state_dict()), traced, small, plan)
    changed = carry(found, small, lambda path: _takes_bias(module, path))
    done = with_state(module, found.state, found.groups)
    try:
        largest = check(done, small.model, feeds, found.pairs)
    except UnmatchedModule:
        other = restated(module, done, inputs, traced, found.pruned)
        if other is None:
            raise
        done, largest = other, check(other, small.model, feeds, found.pairs)
    logger.info("outputs within %.1e of the pruned model's; corrected: %s", largest, changed)
    return done  # type: ignore[no-any-return]


def _takes_bias(module: nn.Module, path: str) -> bool:
    """Say whether a module's part is a layer that may have a bias and has none."""
    try:
        layer = module.get_submodule(path)
    except AttributeError:
        return False
    kinds = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    return isinstance(layer, kinds) and layer.bias is None
