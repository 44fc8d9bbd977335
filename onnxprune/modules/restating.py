"""Numbers of channels that a module's own code states: `x.view(n, 2, 8, h, w)`, `x.split((8, 8))`.

torch.fx writes the code down as a graph. Each of its tensors is found among those of the module's
ONNX graph, by its values; the pruned ONNX graph says what shape it has now. So a number in the code
is set to the size that its tensor got. A shuffle that lost other channels in one part than in the
next is no view any more: the pruned graph picks channels there, and so does the code then. What
fits is not believed: the outputs are compared.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, ValueInfoProto, numpy_helper

from onnxprune.evaluation import session
from onnxprune.graph import Graph, copied
from onnxprune.modules.tracing import evaluating
from onnxprune.modules.writing import SPLITTING, called, written, written_parts
from onnxprune.ops._torch import torch

if TYPE_CHECKING:
    from torch import Tensor, fx, nn

Array = npt.NDArray[Any]
Sizes = tuple[int, ...]
Edits = dict[str, list[Any]]
"""By the name of a node: the place of an argument and what it is now, or the sizes of parts."""

PartEdits = dict[str, Edits]
"""By the name of a part, as in `named_modules`."""

EDITS = "onnxprune_restated"
"""Where the `meta` of a module holds what was restated in it."""

PRESERVED = "_user_preserved_attributes"
"""Where torch.fx looks for attributes that a copy of a module keeps."""

NEAR = 1e-4
"""Of the largest value: how near a tensor of the ONNX graph is to the one of the module."""

SHAPING = ("view", "reshape", "expand", "unflatten")
MOVING = (*SHAPING, "transpose", "permute", "contiguous", "swapaxes", "swapdims", "flatten")
"""What a shuffle is written with."""

STATING = (*SHAPING, *SPLITTING, "getitem")


def restated(
    module: nn.Module, done: nn.Module, inputs: Sequence[Tensor], traced: Graph, pruned: Graph
) -> nn.Module | None:
    """Return a cut module whose code states the numbers of channels that are left, else None.

    `traced` is the module's graph before, `pruned` after. The module is one of torch.fx, or the
    parts of it are whose code states numbers, where torch.fx cannot follow the whole.
    Shapes: each input `[n, ...]`.
    """
    edits: PartEdits = {}
    try:
        sizes = _Sizes(traced, pruned, inputs)
        for name, part, given in written_parts(module, inputs):
            if found := _edits(part, given, sizes):
                edits[name] = found
    except Exception:  # code that is run raises anything
        return None
    return with_edits(done, edits) if edits else None


def _edits(part: fx.GraphModule, given: Sequence[Any], sizes: _Sizes) -> Edits:
    """What to change in the code of a part."""
    edits: Edits = {}
    if not any(called(node) in STATING for node in part.graph.nodes):
        return edits
    values = _run(part, given)
    for node in part.graph.nodes:
        with suppress(_Unknown):
            if found := _edit(node, values, sizes):
                edits[node.name] = found
    return edits


def with_edits(module: nn.Module, edits: PartEdits) -> nn.Module:
    """Return a module, or change parts of it, written down by torch.fx, with other numbers in code.

    Raises: KeyError where the code is not that of the edits; whatever torch.fx raises.
    """
    for name, found in edits.items():
        other = _with_edits(module.get_submodule(name), found)
        if not name:
            return other
        module.set_submodule(name, other)
    return module


def _with_edits(part: nn.Module, edits: Edits) -> nn.Module:
    """One part with other numbers; what else its owner wrote on it stays there."""
    new = written(part)
    nodes = {node.name: node for node in new.graph.nodes}
    for name, found in edits.items():
        _apply(nodes[name], found)
    new.graph.lint()
    new.recompile()
    modes = {name: one.training for name, one in part.named_modules()}
    for name, one in new.named_modules():
        one.training = modes.get(name, part.training)
    own = {name: value for name, value in vars(part).items() if name not in vars(new)}
    for name, value in own.items():
        setattr(new, name, value)
    new.meta |= {EDITS: edits, PRESERVED: own}
    return new


def edits_of(module: nn.Module) -> PartEdits:
    """Return what was restated in a module."""
    metas = ((name, getattr(part, "meta", None)) for name, part in module.named_modules())
    return {name: meta[EDITS] for name, meta in metas if isinstance(meta, dict) and EDITS in meta}


def _run(code: fx.GraphModule, inputs: Sequence[Tensor]) -> dict[str, Any]:
    """What each node computes, by its name."""
    values: dict[str, Any] = {}

    class Noting(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            found = values[n.name] = super().run_node(n)
            return found

    with evaluating(code), torch.no_grad():
        Noting(code).run(*inputs)
    return values


class _Unknown(Exception):
    """A size that nobody can tell."""


class _Sizes:
    """What sizes tensors of a module have after it was cut."""

    def __init__(self, traced: Graph, pruned: Graph, inputs: Sequence[Tensor]) -> None:
        feeds = dict(zip(traced.inputs, (one.cpu().numpy() for one in inputs), strict=True))
        before, after = _inside(traced.model, feeds), _inside(pruned.model, feeds)
        self._known: dict[Sizes, list[tuple[Array, Sizes]]] = {}
        for name, array in before.items():
            if name in after and array.dtype.kind == "f":
                self._known.setdefault(array.shape, []).append((array, after[name].shape))
        shuffled = {
            name
            for node in traced.model.graph.node
            if node.op_type == "Reshape"
            for name in node.output
        }
        self._picks = [
            (before[node.output[0]], (before[node.input[0]], *_pick(node, pruned)))
            for node in pruned.model.graph.node
            if node.op_type == "Gather" and node.output[0] in shuffled and node.input[0] in before
        ]

    def picked(self, made: Tensor) -> tuple[Array, int, list[int]] | None:
        """What a tensor is picked from in the cut module, along which axis, and which places.

        None where it is not picked.
        """
        array = made.detach().cpu().numpy()
        found = [pick for one, pick in self._picks if _near(one, array)]
        return found[0] if len(found) == 1 else None

    def __call__(self, tensor: Any) -> Sizes:
        """Return the shape that a tensor has in the cut module. Raises: _Unknown."""
        if not isinstance(tensor, torch.Tensor):
            raise _Unknown
        array = tensor.detach().cpu().numpy()
        found = set()
        for one, now in self._known.get(array.shape, ()):
            if _near(one, array):
                found.add(now)
        if len(found) != 1:
            raise _Unknown
        return found.pop()


def _near(one: Array, other: Array) -> bool:
    """Say whether two tensors are one. Shapes: any two."""
    if one.shape != other.shape:
        return False
    return bool(np.abs(one - other).max(initial=0) <= NEAR * np.abs(other).max(initial=0))


def _pick(node: NodeProto, graph: Graph) -> tuple[int, list[int]]:
    """The axis and the places of a Gather whose places are known."""
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    return axis, numpy_helper.to_array(graph.constant_tensors[node.input[1]]).ravel().tolist()


def _inside(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All tensors that a model computes, and its inputs."""
    opened = copied(model)
    given = {output.name for output in model.graph.output}
    inside = list(dict.fromkeys(name for node in model.graph.node for name in node.output if name))
    opened.graph.output.extend(ValueInfoProto(name=n) for n in inside if n not in given)
    found = session(opened, device="cpu").run(inside, dict(feeds))
    arrays = {name: one for name, one in zip(inside, found, strict=True) if hasattr(one, "shape")}
    return {**arrays, **feeds}


def _edit(node: fx.Node, values: Mapping[str, Any], sizes: _Sizes) -> list[Any]:
    """What to change in one node, empty where nothing is. Raises: _Unknown."""
    name = called(node)
    if node.op not in ("call_method", "call_function") or not node.args:
        return []
    if not isinstance(node.args[0], torch.fx.Node):
        return []
    given, made = values[node.args[0].name], values[node.name]
    if name in SHAPING and isinstance(made, torch.Tensor):
        if picking := _picking(node, values, sizes):
            return picking
        return _or_nothing("sizes", _shaped(node, name, tuple(made.shape), sizes(made)))
    if name in SPLITTING and isinstance(made, tuple | list):
        axis: Any = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
        parts = _parts([tuple(one.shape) for one in made], _all(made, sizes), given, sizes, axis)
        return ["parts", axis, parts] if parts else []
    if node.target is operator.getitem and isinstance(given, torch.Tensor):
        return _or_nothing("slices", _sliced(node, values, sizes))
    return []


def _picking(node: fx.Node, values: Mapping[str, Any], sizes: _Sizes) -> list[Any]:
    """The node whose channels are picked, the axis and the places; nothing where a view can be.

    A shuffle stays what it is where every tensor within has a size.
    """
    pick = sizes.picked(values[node.name])
    if pick is None:
        return []
    source, axis, places = pick
    within: list[Any] = []
    while called(node) in MOVING and isinstance(node.args[0], torch.fx.Node):
        node = node.args[0]
        if _near(source, values[node.name].detach().cpu().numpy()):
            even = None not in _all(within, sizes)
            return [] if even else ["picked", node.name, axis, places]
        within.append(values[node.name])
    return []


def _or_nothing(kind: str, found: Iterator[list[Any]]) -> list[Any]:
    held = list(found)
    return [kind, *held] if held else []


def _all(made: Sequence[Any], sizes: _Sizes) -> list[Sizes | None]:
    found: list[Sizes | None] = []
    for one in made:
        try:
            found.append(sizes(one))
        except _Unknown:
            found.append(None)
    return found


def _shaped(node: fx.Node, name: str, before: Sizes, after: Sizes) -> Iterator[list[Any]]:
    """The stated sizes of a shape that are others now, each with its place among the arguments."""
    start = 2 if name == "unflatten" else 1
    offset = 0
    if name == "unflatten":
        given = node.kwargs.get("dim", node.args[1])
        assert isinstance(given, int)
        stated = node.args[2] if len(node.args) > 2 else node.kwargs["sizes"]
        assert isinstance(stated, Sequence)
        offset = given if given >= 0 else given + len(before) - len(stated) + 1
    single = len(node.args) == start + 1 and isinstance(node.args[start], tuple | list)
    sizes: Any = node.args[start] if single else node.args[start:]
    for place, size in enumerate(sizes):
        axis = place + offset
        if isinstance(size, int) and size == before[axis] != after[axis]:
            yield [start, place, after[axis]] if single else [start + place, None, after[axis]]


def _parts(
    before: list[Sizes], after: list[Sizes | None], given: Any, sizes: _Sizes, axis: int
) -> list[int]:
    """The sizes of the parts along an axis; the one that nobody knows is what is left."""
    known = [None if one is None else one[axis] for one in after]
    if known.count(None) == 1:
        rest = sizes(given)[axis] - sum(one for one in known if one is not None)
        known = [rest if one is None else one for one in known]
    if None in known:
        raise _Unknown
    found = [one for one in known if one is not None]
    return found if found != [one[axis] for one in before] else []


def _sliced(node: fx.Node, values: Mapping[str, Any], sizes: _Sizes) -> Iterator[list[int]]:
    """The bounds of slices that are others now, each with its axis.

    A bound is known from the first channel on and from the last back, over slices between.
    """
    source = node.args[0]
    assert isinstance(source, torch.fx.Node)
    given = values[source.name]
    whole = sizes(given)
    for axis, bounds in _bounds(node, given.shape):
        if whole[axis] == given.shape[axis] or bounds == (0, given.shape[axis]):
            continue
        now = {0: 0, given.shape[axis]: whole[axis]}
        pieces = [
            (*other, sizes(values[user.name])[axis])
            for user in source.users
            for place, other in _bounds(user, given.shape)
            if place == axis
        ]
        for _ in pieces:
            for start, stop, size in pieces:
                if start in now:
                    now.setdefault(stop, now[start] + size)
                elif stop in now:
                    now[start] = now[stop] - size
        if not set(bounds) <= now.keys():
            raise _Unknown
        yield [axis, *(now[end] for end in bounds)]


def _bounds(node: fx.Node, shape: Sequence[int]) -> Iterator[tuple[int, tuple[int, int]]]:
    """The axes that a node takes slices of, and from where to where."""
    if node.target is not operator.getitem:
        return
    index = node.args[1]
    entries = index if isinstance(index, tuple) else (index,)
    if not all(isinstance(one, slice) for one in entries):
        return
    for axis, one in enumerate(entries):
        if all(isinstance(end, int | None) for end in (one.start, one.stop, one.step)):
            start, stop, step = one.indices(shape[axis])
            if step == 1:
                yield axis, (start, stop)


def _apply(node: fx.Node, found: Sequence[Any]) -> None:
    kind, *rest = found
    APPLY[kind](node, rest)


def _set_sizes(node: fx.Node, found: Sequence[Any]) -> None:
    arguments = list(node.args)
    for argument, inner, size in found:
        if inner is None:
            arguments[argument] = size
        else:
            held = list(arguments[argument])
            held[inner] = size
            arguments[argument] = tuple(held)
    node.args = tuple(arguments)


def _set_parts(node: fx.Node, found: Sequence[Any]) -> None:
    axis, sizes = found
    node.op, node.target = "call_function", torch.split
    node.args, node.kwargs = (node.args[0], list(sizes)), {"dim": axis}


def _set_slices(node: fx.Node, found: Sequence[Any]) -> None:
    index = node.args[1]
    entries = list(index) if isinstance(index, tuple) else [index]
    for axis, start, stop in found:
        entries[axis] = slice(start, stop)
    node.args = (node.args[0], tuple(entries))


def _set_picked(node: fx.Node, found: Sequence[Any]) -> None:
    """Pick channels, and take out what shuffled them."""
    name, axis, places = found
    source = next(one for one in node.graph.nodes if one.name == name)
    before: Any = node.args[0]
    node.op, node.target, node.kwargs = "call_function", operator.getitem, {}
    node.args = (source, (*[slice(None)] * axis, places))
    while before is not source and not before.users:
        gone, before = before, before.args[0]
        node.graph.erase_node(gone)


APPLY: Mapping[str, Callable[[Any, Sequence[Any]], None]] = {
    "sizes": _set_sizes,
    "parts": _set_parts,
    "slices": _set_slices,
    "picked": _set_picked,
}
