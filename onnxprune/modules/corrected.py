"""Weights that a run corrected, carried over from the pruned model into the module's tensors.

A layer that computes what the pruned model's does keeps its own weights. Another one gets the
model's: batch normalisation keeps its deviations, and its running mean takes up what changed. That
is the mean that training will meet, because a correction keeps the mean of a layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from onnxprune.arrays import BoolArray
from onnxprune.errors import UnmatchedModule
from onnxprune.graph import Graph
from onnxprune.modules.cutting import Array, Cut
from onnxprune.modules.layers import Layer, Norm, Values, values_of

SAME = 2e-6
"""The largest difference of weights that are equal, relative to the largest: rounding of float32,
in which exporters fold normalisation."""

AT_ONCE = 2**20
"""Numbers of a weight that are compared at once."""

NONE = 1e-12
"""A normalisation that multiplies by less lets nothing through."""


def carry(cut: Cut, small: Graph, takes_bias: Callable[[str], bool]) -> list[str]:
    """Set those tensors of `cut.state` that the pruned model computes with other values.

    `takes_bias` says of the path of a module whether it can get a bias. Returns the names of the
    weights that changed.
    Raises: UnmatchedModule naming a layer that cannot hold what was corrected.
    """
    constants, theirs = values_of(cut.pruned), values_of(small)

    def own(name: str) -> Array:
        return cut.state[name] if name in cut.state else constants(name)

    changed: set[str] = set()
    settled: set[str] = set()
    for layer, other in cut.pairs:
        kernel, shift = layer.affine(own)
        wanted, wanted_shift = other.affine(theirs)
        if not _same(kernel, wanted):
            _claim(layer, layer.weight, cut.state, settled)
            changed.add(layer.weight)
            if layer.norm is not None:
                _open(layer.norm, cut, own)
            factor = np.ones(layer.width(wanted)) if layer.norm is None else layer.norm.scale(own)
            dtype = own(layer.weight).dtype
            cut.state[layer.weight] = layer.stored(layer.along(1 / factor, wanted)).astype(dtype)
            shift = layer.affine(own)[1]
        adds = _adds(layer, cut.state, takes_bias)
        if not _same(shift, wanted_shift):
            _claim(layer, adds, cut.state, settled, new=layer.norm is None)
            changed.add(adds)
            if layer.norm is None:
                cut.state[adds] = wanted_shift.astype(own(layer.weight).dtype)
            else:
                bias = own(layer.bias).astype(np.float64) if layer.bias else 0.0
                _move_mean(layer.norm, bias, wanted_shift, cut, own)
        settled |= {layer.weight, adds}
    return sorted(changed)


def _adds(layer: Layer, state: Mapping[str, Array], takes_bias: Callable[[str], bool]) -> str:
    """The name of the tensor that sets what a layer adds: its running mean, else its bias."""
    if layer.norm is not None:
        return layer.norm.mean
    new = f"{layer.owner}.bias"
    return new if layer.bias not in state and takes_bias(layer.owner) else layer.bias


def _same(one: Array, other: Array) -> bool:
    """Say whether weights are equal; of large ones a few rows are compared at a time."""
    step = max(1, AT_ONCE // max(one[:1].size, 1))
    apart, largest = np.float64(0.0), np.float64(1e-6)
    for k in range(0, len(one), step):
        found, wanted = (part[k : k + step].astype(np.float64) for part in (one, other))
        apart = np.maximum(apart, np.abs(found - wanted).max(initial=0))
        largest = np.maximum(largest, np.abs(wanted).max(initial=0))
    return bool(apart <= SAME * largest)


def _claim(
    layer: Layer, name: str, state: Mapping[str, Array], settled: set[str], *, new: bool = False
) -> None:
    """Refuse to set what an earlier layer needs as it is, and what is no tensor of the module."""
    if name in settled:
        raise UnmatchedModule(
            f"module: '{layer.owner}' is applied more than once, and the run corrected it "
            f"differently each time; prune with --compensate none, or by prune_module"
        )
    if name not in state and not (new and name):
        raise UnmatchedModule(
            f"module: '{layer.owner or layer.node.name}' holds no tensor for what the run "
            f"corrected in it; prune with --compensate none"
        )


def _closed(norm: Norm, own: Values) -> BoolArray:
    """The channels that a normalisation multiplies by nothing. Shapes: `[channels]`."""
    return np.asarray(np.abs(norm.scale(own)) < NONE)


def _open(norm: Norm, cut: Cut, own: Values) -> None:
    """Let a normalisation that multiplies a channel by nothing multiply it by one."""
    closed = _closed(norm, own)
    if closed.any():
        gamma = own(norm.gamma).copy()
        gamma[closed] = np.sqrt(own(norm.variance)[closed] + norm.epsilon)
        cut.state[norm.gamma] = gamma


def _move_mean(norm: Norm, bias: Array | float, wanted: Array, cut: Cut, own: Values) -> None:
    """Set what a normalisation adds, by its running mean; where nothing passes, by its shift."""
    closed = _closed(norm, own)
    beta, mean = own(norm.beta), own(norm.mean)
    scale = np.where(closed, 1.0, norm.scale(own))
    moved = np.where(closed, mean, bias + (beta - wanted) / scale)
    cut.state[norm.mean] = moved.astype(mean.dtype)
    if closed.any():
        cut.state[norm.beta] = np.where(closed, wanted, beta).astype(beta.dtype)
