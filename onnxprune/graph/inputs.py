"""The sizes at which a model is looked at, where it leaves axes of its inputs open.

They are those that a caller gives. Where none are given they are assumed, and whoever shows a
result says so (`assumption`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from onnx import GraphProto, ValueInfoProto

from onnxprune.checks import Pairs, Sizes
from onnxprune.errors import InvalidValue, check_name
from onnxprune.graph.order import with_subgraphs

Shape = tuple[int, ...]
InputShapes = Mapping[str, Sequence[int]] | Iterable[tuple[str, Sequence[int]]]

DYNAMIC_SIZE = 224
"""Positions of an axis behind the first that is open and not given: most networks for images run
at so many pixels."""


class _EachOnce(Pairs):
    """Pairs of which no two have the same name."""

    def _take(self, name: str, value: Any) -> tuple[tuple[str, Any], ...]:
        pairs = super()._take(name, value)
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise InvalidValue(f"{name} {key!r}: is given {count} times; give each input once")
        return pairs


INPUT_SHAPES = _EachOnce(
    of=Sizes(),
    between=":",
    what="a name and positive sizes",
    example="x:1,3,48,320",
    help="The shape of an input whose sizes the model leaves open, as in x:1,3,48,320; repeatable. "
    f"Without it, an open size is that of the samples, or {DYNAMIC_SIZE}.",
    metavar="NAME:1,C,H,W",
)


def declared_shape(value: ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return the shape that a model declares, None for an open axis and for an unknown rank."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in value.type.tensor_type.shape.dim
    )


def look(
    graph: GraphProto, given: Mapping[str, Sequence[int]], *, batch: int = 1, more: int = 0
) -> tuple[dict[str, Shape], dict[str, int]]:
    """Return the shape at which each input is looked at, and the sizes of named open axes.

    Open axes have the given sizes or the assumed ones. Those named as the first axis of an input
    are taken `batch` times, the others are `more`. An input is left out whose rank is not known.
    """
    symbols: dict[str, int] = {}
    shapes: dict[str, Shape] = {}
    inputs = _inputs(graph)
    first = {_names(value)[0] for value in inputs.values() if _names(value)}
    for name, value in sorted(inputs.items(), key=lambda item: item[0] not in given):
        declared = declared_shape(value)
        if declared is None and name in given:
            declared = (None,) * len(given[name])
        if declared is None:
            continue
        symbol = _names(value) or [""] * len(declared)
        sizes = list(declared)
        for k, n in enumerate(declared):
            batched = k == 0 or (symbol[k] in first and symbol[k] != "")
            usual = given[name][k] if name in given else 1 if batched else DYNAMIC_SIZE
            if n is None:
                n = usual * batch if batched else usual + more
                sizes[k] = n if name in given else symbols.get(symbol[k], n)
                symbols.setdefault(symbol[k], n)
                symbols.pop("", None)
        shapes[name] = tuple(n for n in sizes if n is not None)
    return shapes, symbols


def unread_inputs(graph: GraphProto) -> frozenset[str]:
    """Return the names of inputs that nothing reads, as quantisers leave those of old weights.

    A model that reads none at all keeps them.
    """
    bodies = list(with_subgraphs(graph))
    read = {name for body in bodies for node in body.node for name in node.input}
    read.update(value.name for body in bodies for value in body.output)
    read.update(tensor.name for tensor in graph.initializer)  # an input that has a value
    found = frozenset(value.name for value in graph.input) - read
    return found if len(found) < len(graph.input) else frozenset()


def _inputs(graph: GraphProto) -> dict[str, ValueInfoProto]:
    constants = {tensor.name for tensor in graph.initializer}
    return {
        value.name: value
        for value in graph.input
        if value.name not in constants and value.type.HasField("tensor_type")
    }


def _names(value: ValueInfoProto) -> list[str]:
    """The names of an input's axes; an axis of a known size has an empty one."""
    return [dim.dim_param for dim in value.type.tensor_type.shape.dim]


def check_shapes(graph: GraphProto, given: InputShapes | None) -> dict[str, Shape]:
    """Return the shapes that a caller gives for the inputs of a graph, by name.

    Raises: InvalidType, InvalidValue or UnknownName where they are none, or not of this graph.
    """
    shapes = dict(INPUT_SHAPES("input_shapes", given or ()))
    inputs = _inputs(graph)
    for name, shape in shapes.items():
        check_name("input", name, inputs)
        declared = declared_shape(inputs[name])
        fits = declared is None or (
            len(declared) == len(shape)
            and all(n in (None, size) for n, size in zip(declared, shape, strict=True))
        )
        if not fits:
            raise InvalidValue(
                f"input '{name}': is given the shape {_text(shape)}; expected {_text(declared)}, "
                f"as the model says"
            )
    return shapes


def assumption(graph: GraphProto, given: Mapping[str, Shape]) -> str:
    """Return which sizes are assumed for open axes behind the first, or an empty text.

    >>> import onnx
    >>> text = "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }"
    >>> assumption(graph := onnx.parser.parse_graph(text), {})
    "input 'x' (N,3,H,W) is looked at as 1,3,224,224; for other sizes give --input-shape x:1,3,H,W"
    >>> assumption(graph, {"x": (1, 3, 48, 320)})
    ''
    """
    shapes, _ = look(graph, given)
    inputs = _inputs(graph)
    said = {name for value in inputs.values() for name in _names(value)[:1]}
    said.update(name for key in given for name in _names(inputs[key]))
    found, advice = [], []
    for name, value in inputs.items():
        declared = declared_shape(value)
        if name in given or declared is None:
            continue
        pairs = list(zip(declared, _names(value), strict=True))[1:]
        if any(n is None and (not symbol or symbol not in said) for n, symbol in pairs):
            found.append(
                f"input '{name}' ({_text(declared, value)}) is looked at as {_text(shapes[name])}"
            )
            wanted = _text((declared[0] or shapes[name][0], *declared[1:]), value)
            advice.append(f"--input-shape {name}:{wanted}")
    return f"{', '.join(found)}; for other sizes give {' '.join(advice)}" if found else ""


def _text(shape: Sequence[int | None] | None, value: ValueInfoProto | None = None) -> str:
    """The sizes with commas; open ones have the names that the model gives them, or "?"."""
    if shape is None:
        return "any"
    dims = () if value is None else value.type.tensor_type.shape.dim
    names = [dim.dim_param for dim in dims] or [""] * len(shape)
    return ",".join(str(n or name or "?") for n, name in zip(shape, names, strict=True))
