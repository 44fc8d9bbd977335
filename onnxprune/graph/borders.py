"""Types of what crosses the border of an opened graph, and how often a body runs.

A state that has another shape after a run of the body than before has none that is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, TypeProto, helper

from onnxprune.graph.inputs import Shape
from onnxprune.ops import Border, Node


class Known(Protocol):
    """What is known of the tensors so far (`Facts`)."""

    types: dict[str, TypeProto]
    values: dict[str, npt.NDArray[np.generic]]
    counts: dict[str, frozenset[str]]
    unsteady: frozenset[str]
    changing: set[str]
    trips: dict[str, int]
    entered: dict[str, tuple[str, ...]]

    def shape(self, name: str) -> Shape | None:
        """Return the static shape of a tensor, or None where it is not known."""


def cross(node: Node, known: Known) -> Mapping[str, TypeProto]:
    """Return the types of what a node of a border hands on; note what is learnt of the body."""
    if node.border is Border.CHOICE:
        return _choose(node, known)
    is_loop = node.op_type == "Loop"
    if node.border is Border.ENTRY:
        known.entered[node.within[-1].by] = node.outputs
        found = (_enter_loop if is_loop else _enter_scan)(node, known)
    else:
        found = _leave(node, known, is_loop)
    return {name: kind for name, kind in found.items() if name}


def _choose(node: Node, known: Known) -> dict[str, TypeProto]:
    """The type of what both branches of an If make, or the one that a known condition takes."""
    condition, *branches = node.inputs
    if condition in known.values:
        branches = [branches[0 if known.values[condition].all() else 1]]
    shapes = {known.shape(name) for name in branches}
    if len(shapes) > 1 or None in shapes:
        return {}
    return {node.outputs[0]: known.types[branches[0]]}


def _enter_loop(node: Node, known: Known) -> dict[str, TypeProto]:
    """Whenever the body runs, the condition is true."""
    number, go, *states = node.outputs
    known.values[go], known.counts[go] = np.array(True), frozenset()
    return {
        number: helper.make_tensor_type_proto(TensorProto.INT64, ()),
        go: helper.make_tensor_type_proto(TensorProto.BOOL, ()),
    } | _states(states, node.inputs[2:], known)


def _enter_scan(node: Node, known: Known) -> dict[str, TypeProto]:
    scanned = node.attributes["num_scan_inputs"]
    count = len(node.inputs) - scanned
    found = _states(node.outputs[:count], node.inputs[:count], known)
    axes = node.attributes.get("scan_input_axes", (0,) * scanned)
    for name, source, axis in zip(node.outputs[count:], node.inputs[count:], axes, strict=True):
        shape = known.shape(source)
        if shape:
            known.trips[node.within[-1].by] = shape[axis]
            left = [n for k, n in enumerate(shape) if k != axis % len(shape)]
            found[name] = helper.make_tensor_type_proto(_element(source, known), left)
    return found


def _states(
    names: list[str] | tuple[str, ...], sources: tuple[str, ...], known: Known
) -> dict[str, TypeProto]:
    """The types of states: those of what they begin as, without a shape where it changes."""
    pairs = zip(names, sources, strict=True)
    held = {name: known.types[source] for name, source in pairs if source in known.types}
    return {n: _shapeless(kind) if n in known.unsteady else kind for n, kind in held.items()}


def _leave(node: Node, known: Known, is_loop: bool) -> dict[str, TypeProto]:
    """The types of what comes out of a body; notes how often it ran, and states that change."""
    by = next(filter(None, node.outputs), node.name)
    entered = known.entered[by]
    made = node.inputs[len(entered) :]
    if is_loop:
        go, made, inside = made[0], made[1:], entered[2:]
        _count_runs(node, go, by, known)
    else:
        inside = entered[: len(entered) - node.attributes["num_scan_inputs"]]
    states = len(inside)
    for before, after in zip(inside, made, strict=False):
        if known.shape(before) is None or known.shape(before) != known.shape(after):
            known.changing.add(before)
    found = {
        n: known.types[s] for n, s in zip(node.outputs, inside, strict=False) if s in known.types
    }
    runs = known.trips.get(by)
    axes = node.attributes.get("scan_output_axes", (0,) * (len(made) - states))
    for name, source, axis in zip(node.outputs[states:], made[states:], axes, strict=True):
        shape = known.shape(source)
        if shape is not None and runs is not None:
            place = axis % (len(shape) + 1)
            stacked = (*shape[:place], runs, *shape[place:])
            found[name] = helper.make_tensor_type_proto(_element(source, known), stacked)
    return found


def _count_runs(node: Node, go: str, by: str, known: Known) -> None:
    """Note how often the body of a Loop runs, where that is known."""
    most, first = node.inputs[:2]
    begins = not first or bool(known.values.get(first, np.array(False)).all())
    goes_on = bool(known.values.get(go, np.array(False)).all())
    if begins and goes_on and most in known.values:
        known.trips[by] = max(int(known.values[most].item()), 0)


def _element(name: str, known: Known) -> int:
    return int(known.types[name].tensor_type.elem_type)


def _shapeless(kind: TypeProto) -> TypeProto:
    """The type without what is known of its shape."""
    left = TypeProto()
    left.CopyFrom(kind)
    left.tensor_type.ClearField("shape")
    return left
