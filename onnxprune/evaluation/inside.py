"""What the nodes of a model compute: the first that differs from another model's, or is not finite.

A few tensors are made outputs at a time, so that memory holds no more than those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from onnxprune.errors import InvalidModel
from onnxprune.evaluation.inputs import Feeds
from onnxprune.evaluation.runtime import session
from onnxprune.graph import Graph, copied

Array = npt.NDArray[Any]
Kept = Callable[[str], Mapping[int, npt.NDArray[np.bool_]]]
"""Which positions of a tensor the second model has, for each axis that loses some."""

AT_ONCE = 64
"""Tensors that are looked at in one run."""
NUMBERS = "fiub"
"""Kinds of arrays that are compared."""
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
WEIGHING = ("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization", "LayerNormalization")
"""Operators whose constants are finite; others may be given infinity, as for a mask."""


def nothing_lost(_: str) -> Mapping[int, npt.NDArray[np.bool_]]:
    """Say that both models have all positions of every tensor. Shapes: none are returned."""
    return {}


@dataclass(frozen=True)
class Place:
    """A node, a tensor that it makes or reads, and what is wrong with that."""

    node: str
    tensor: str
    problem: str
    side: str = "output"

    def __str__(self) -> str:
        return f"{self.node}, whose {self.side} '{self.tensor}' {self.problem}"


def called(node: NodeProto) -> str:
    """Return the kind and the name of a node, of one without a name that of its output."""
    return f"{node.op_type} '{node.name or next(iter(node.output), '')}'"


def difference(found: Array, wanted: Array, tolerance: float) -> str:
    """Say how an output differs from what is wanted, with an empty text where it does not.

    Where a number that is wanted is not finite, as where a masked model divides by a masked
    channel, anything may stand.
    Shapes: any, both the same.
    Units: tolerance, a share of the largest number that is wanted.
    """
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return f"is {found.dtype} {list(found.shape)}, expected {wanted.dtype} {list(wanted.shape)}"
    scale = farthest(wanted, np.zeros_like(wanted))
    apart = farthest(found, wanted)
    if apart == np.inf:
        return _found(found)
    if apart <= tolerance * max(scale, 1e-6):
        return ""
    return f"differs by {apart:.3g} of {scale:.3g}"


def farthest(found: Array, wanted: Array) -> float:
    """Return the largest difference, infinite where one is not finite that should be.

    Shapes: any, both the same.
    """
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    counts = np.isfinite(other)
    apart = np.abs(np.where(counts, one, 0) - np.where(counts, other, 0))
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def first_difference(
    before: ModelProto,
    after: ModelProto,
    feeds: Sequence[Feeds],
    tolerance: float,
    kept: Kept = nothing_lost,
) -> Place | None:
    """Return the first node of `after` that computes something else than `before` does.

    Tensors are compared by name, where `kept` says so only in part. `feeds` are those of each.
    Shapes: each feed as its input.
    Units: tolerance, a share of the largest number of a tensor.
    """
    held = {name for node in before.graph.node for name in node.output if name}
    names = [n for node in after.graph.node for n in node.output if n in held]
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        wanted = {name: x for _, name, x in _looked_into(before, feeds[0], part)}
        for node, name, found in _looked_into(after, feeds[-1], part):
            if name not in wanted or found.dtype.kind not in NUMBERS:
                continue
            if problem := difference(found, _part(wanted[name], kept(name)), tolerance):
                return Place(called(node), name, problem)
    return None


def first_not_finite(model: ModelProto, feeds: Feeds) -> Place | None:
    """Return where NaN or infinity begins: the first node that makes it of finite numbers.

    Infinity that is stored for a mask is as it should be. Where that alone becomes NaN, the node
    that makes NaN is returned. Shapes: each feed as its input.
    """
    for name, x in feeds.items():
        if not is_finite(x):
            return Place(f"input '{name}'", name, _found(x))
    if place := _bad_weight(Graph(_typed(model))):
        return place
    odd = {one.name for one in model.graph.initializer if not is_finite(_value(one))}
    names = [name for node in model.graph.node for name in node.output if name]
    for node, name, found in _looked_into(model, feeds, names):
        if is_finite(found):
            continue
        begins = node.op_type != "Constant" and odd.isdisjoint(node.input)
        if begins or np.isnan(found).any():
            return Place(called(node), name, _found(found))
        odd.add(name)
    return None


def _typed(model: ModelProto) -> ModelProto:
    """The model without the outputs that were added to look into it, which have no type."""
    typed = [one for one in model.graph.output if one.HasField("type")]
    if len(typed) == len(model.graph.output):
        return model
    found = copied(model)
    del found.graph.output[:]
    found.graph.output.extend(typed)
    return found


def check_weights(graph: Graph) -> None:
    """Refuse a model that reads a constant with NaN, or a weight with infinity.

    Raises: InvalidModel naming the first node that does.
    """
    if place := _bad_weight(graph):
        raise InvalidModel(f"{place}; expected numbers: export the model again, as it was trained")


def _bad_weight(graph: Graph) -> Place | None:
    looked: set[str] = set()
    for node in graph.nodes:
        for name in node.inputs:
            tensor = graph.initializers.get(name)
            if tensor is None or tensor.data_type not in FLOATS or name in looked:
                continue
            looked.add(name)
            value = graph.constant(name)
            if not is_finite(value) and (node.op_type in WEIGHING or np.isnan(value).any()):
                made = f"{node.op_type} '{node.name}'"
                return Place(made, graph.aliases.get(name, name), _found(value), "input")
    return None


def is_finite(x: Array) -> bool:
    """Say whether all numbers are finite; what holds no numbers is. Shapes: any."""
    return x.dtype.kind != "f" or bool(np.isfinite(x).all())


def _found(x: Array) -> str:
    """What is wrong with numbers, and where first."""
    odd = ~np.isfinite(x)
    what = "NaN" if np.isnan(x).any() else "infinity"
    at = np.unravel_index(int(np.isnan(x).argmax() if what == "NaN" else odd.argmax()), x.shape)
    return f"holds {what}, first at {[int(k) for k in at]}" if x.ndim else f"is {what}"


def _value(tensor: TensorProto) -> Array:
    return numpy_helper.to_array(tensor)


def _looked_into(
    model: ModelProto, feeds: Feeds, names: Sequence[str]
) -> Iterator[tuple[NodeProto, str, Array]]:
    """Yield tensors in the order of the nodes that make them, as far as onnxruntime shows them."""
    makers = {name: node for node in model.graph.node for name in node.output}
    watched = copied(model)
    for start in range(0, len(names), AT_ONCE):
        part = names[start : start + AT_ONCE]
        for few in (part, *([name] for name in part)):
            try:
                values = _run(watched, feeds, few)
            except Exception:  # some tensor cannot be an output: each alone tells which
                continue
            for name, value in zip(few, values, strict=True):
                if isinstance(value, np.ndarray):
                    yield makers[name], name, value
            if few is part:
                break


def _run(model: ModelProto, feeds: Feeds, names: Sequence[str]) -> list[Any]:
    """Run a model, whose outputs are replaced, as far as some tensors need it."""
    del model.graph.output[:]
    model.graph.output.extend(ValueInfoProto(name=name) for name in names)
    started = session(model, device="cpu", threads=1)
    taken = {one.name for one in started.get_inputs()}
    return list(started.run(None, {name: x for name, x in feeds.items() if name in taken}))


def _part(x: Array, kept: Mapping[int, npt.NDArray[np.bool_]]) -> Array:
    for axis, alive in kept.items():
        if axis < x.ndim and x.shape[axis] == len(alive):
            x = np.compress(alive, x, axis)
    return x
