"""A module cut by a plan: its parameters, and the numbers of channels that it states."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxprune.arrays import dims
from onnxprune.channels import find_groups
from onnxprune.errors import InvalidPlan, UnmatchedModule
from onnxprune.graph import Graph
from onnxprune.modules.layers import Layer, find_layers, match, values_of
from onnxprune.modules.tracing import alike
from onnxprune.ops._torch import torch
from onnxprune.search import Plan
from onnxprune.surgery import remove_channels_apart

if TYPE_CHECKING:
    from torch import nn

Array = npt.NDArray[Any]
State = dict[str, Array]

STATED = (
    *("in_channels", "out_channels", "groups", "in_features", "out_features"),
    *("num_features", "num_channels", "num_groups", "normalized_shape", "num_parameters"),
)
"""Attributes in which layers of torch state numbers of channels."""


BRANCHES = (
    "plan: takes whole branches out (also branches), which a module's own code still runs; prune "
    "without it to fine-tune"
)


@dataclass(frozen=True)
class Cut:
    """What is left of a module's tensors, and its layers beside those of the pruned model."""

    state: State
    groups: dict[str, int]
    pairs: list[tuple[Layer, Layer]]
    pruned: Graph


def cut(names: Sequence[str], traced: Graph, small: Graph, plan: Plan) -> Cut:
    """Cut the tensors `names` of a traced module by the plan of a pruned model.

    Raises: InvalidPlan when the plan is not of this model; UnmatchedModule for a module that is
    not what was pruned.
    """
    try:
        pairs = match(find_layers(traced), find_layers(small))
    except UnmatchedModule as error:
        if "branches" not in plan.also:
            raise
        raise UnmatchedModule(f"{BRANCHES} ({error})") from error
    groups = find_groups(traced, allow_inexact=plan.allow_inexact, also=plan.also)
    dead = _translated(plan, pairs).dead(groups)
    if groups.last(dead).any():
        raise UnmatchedModule(BRANCHES)
    bare, weights = remove_channels_apart(traced, groups, dead)
    pruned = Graph(bare, input_shapes=traced.input_shapes, weights=weights)
    state: State = {}
    for name in names:
        if name in pruned.initializers:
            state[name] = np.require(pruned.constant(name), requirements=["O", "W"])
        elif name in traced.consumers and groups.kept(name, dead):
            raise UnmatchedModule(
                f"module: '{name}' is cut in several ways, or computed with before it weighs "
                f"channels; exclude its layer from pruning"
            )
    for alias, base in traced.aliases.items():
        if base in names and not groups.cut_alike(alias, base, dead):
            raise UnmatchedModule(
                f"module: '{base}' is read by layers that keep different channels; give each its "
                f"own, or exclude one from pruning"
            )
    left = {layer.node.name: layer for layer in find_layers(pruned)}
    found = [(left[ours.node.name], theirs) for ours, theirs in pairs]
    for ours, theirs in found:
        _compare(ours, theirs, values_of(pruned), values_of(small))
    counts = {layer.owner: layer.groups for layer, _ in found if layer.kind != "dense"}
    return Cut(state, counts, found, pruned)


def _translated(plan: Plan, pairs: Sequence[tuple[Layer, Layer]]) -> Plan:
    """The plan with the names of the module's nodes."""
    partner = {theirs.node.name: ours.node.name for ours, theirs in pairs}
    missing = next((node for node in plan.removed if node not in partner), None)
    if missing is not None:
        raise InvalidPlan(
            f"plan: names '{missing}', which is no layer of the pruned model that the module has; "
            f"give the plan that was saved with the model"
        )
    return replace(plan, removed={partner[node]: gone for node, gone in plan.removed.items()})


def _compare(ours: Layer, theirs: Layer, own: Any, other: Any) -> None:
    """Refuse two layers of different shapes."""
    one, two = ours.kernel(own).shape, theirs.kernel(other).shape
    if one != two:
        raise UnmatchedModule(
            f"module: '{ours.owner or ours.node.name}' would be {dims(one)} without the filters of "
            f"the plan, '{theirs.names[0]}' of the pruned model is {dims(two)}; give the plan that "
            f"was saved with the model, and the module that it was exported from"
        )


def with_state(module: nn.Module, state: Mapping[str, Array], groups: Mapping[str, int]) -> Any:
    """Return a copy of a module with other tensors, and what it states set right.

    Tensors that the module shares stay shared. A bias that a layer did not have is added to it.
    Arrays that may be written to are the memory of the tensors.
    """
    olds = dict(module.state_dict(keep_vars=True))
    news = {id(old): _tensor(old, state[name]) for name, old in olds.items() if name in state}
    own = copy.deepcopy(module, dict(news))  # what is replaced is not copied
    for name, old in olds.items():
        if id(old) in news:
            _set(own, name, news[id(old)])
    for name in state.keys() - module.state_dict().keys():
        path, _, last = name.rpartition(".")
        weight = own.get_submodule(path).weight
        assert isinstance(weight, torch.nn.Parameter)
        own.get_submodule(path).register_parameter(last, _tensor(weight, state[name]))
    for path, layer in own.named_modules():
        restate(layer, groups.get(path))
    return own


def _tensor(old: Any, array: Array) -> Any:
    """A tensor with new values, of the kind, type and device of an old one."""
    new = torch.from_numpy(np.require(array, requirements="W")).to(old.device, old.dtype)
    return alike(old, new)


def _set(module: nn.Module, name: str, tensor: Any) -> None:
    path, _, last = name.rpartition(".")
    setattr(module.get_submodule(path), last, tensor)


def restate(layer: Any, groups: int | None = None) -> None:
    """Set the numbers of channels that a layer of torch states to those of its tensors."""
    nn = torch.nn
    conv = nn.modules.conv._ConvNd
    norms = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    if isinstance(layer, conv):
        layer.groups = groups or layer.groups
        first, second = layer.weight.shape[0], layer.weight.shape[1] * layer.groups
        given, made = (first, second) if layer.transposed else (second, first)
        layer.in_channels, layer.out_channels = given, made
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, norms):
        vector = layer.weight if layer.weight is not None else layer.running_mean
        if vector is not None:
            layer.num_features = len(vector)
    elif isinstance(layer, nn.GroupNorm) and layer.weight is not None:
        each = layer.num_channels // layer.num_groups
        layer.num_channels = len(layer.weight)
        layer.num_groups = layer.num_channels // each
    elif isinstance(layer, nn.LayerNorm) and layer.weight is not None:
        layer.normalized_shape = tuple(layer.weight.shape)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()
