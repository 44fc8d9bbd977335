"""The sizes at which a model is looked at, where it leaves axes of its inputs open.

They are those that a caller gives. Where none are given they are assumed, and whoever shows a
result says so (`assumption`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx import GraphProto, ValueInfoProto

from onnxprune.checks import Shapes
from onnxprune.errors import InvalidValue, check_name

Shape = tuple[int, ...]
InputShapes = Mapping[str, Sequence[int]] | Iterable[tuple[str, Sequence[int]]]

DYNAMIC_SIZE = 224
"""Positions of an axis behind the first that is open and not given: most networks for images run
at so many pixels."""

INPUT_SHAPES = Shapes(
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


def input_shape(
    value: ValueInfoProto, given: Sequence[int] | None = None, *, batch: int = 1, more: int = 0
) -> Shape | None:
    """Return the shape at which an input is looked at, None where its rank is not known.

    Its open axes have the given sizes or the assumed ones: the first is taken `batch` times, the
    others are `more`.
    """
    declared = declared_shape(value)
    if declared is None:
        if given is None:
            return None
        declared = (None,) * len(given)
    usual = given or [1, *(DYNAMIC_SIZE for _ in declared[1:])]
    return tuple(
        n if n is not None else size + more if k else size * batch
        for k, (n, size) in enumerate(zip(declared, usual, strict=False))
    )


def check_shapes(graph: GraphProto, given: InputShapes | None) -> dict[str, Shape]:
    """Return the shapes that a caller gives for the inputs of a graph, by name.

    Raises: InvalidType, InvalidValue or UnknownName where they are none, or not of this graph.
    """
    shapes = dict(INPUT_SHAPES("input_shapes", given or ()))
    constants = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in constants}
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
    constants = {tensor.name for tensor in graph.initializer}
    found, advice = [], []
    for value in graph.input:
        declared = declared_shape(value)
        if value.name in constants or value.name in given or None not in (declared or ())[1:]:
            continue
        assert declared is not None
        found.append(
            f"input '{value.name}' ({_text(declared, value)}) is looked at as "
            f"{_text(input_shape(value))}"
        )
        advice.append(
            f"--input-shape {value.name}:{_text((declared[0] or 1, *declared[1:]), value)}"
        )
    return f"{', '.join(found)}; for other sizes give {' '.join(advice)}" if found else ""


def _text(shape: Sequence[int | None] | None, value: ValueInfoProto | None = None) -> str:
    """The sizes with commas; open ones have the names that the model gives them, or "?"."""
    if shape is None:
        return "any"
    dims = () if value is None else value.type.tensor_type.shape.dim
    names = [dim.dim_param for dim in dims] or [""] * len(shape)
    return ",".join(str(n or name or "?") for n, name in zip(shape, names, strict=True))
