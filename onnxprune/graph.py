"""Graph: a read-only view of a ModelProto, with what is known of its tensors at batch 1.

The model itself is never changed: surgery edits a copy of the protobuf, so that whatever the user
did not ask to change (names, opset, IR version, metadata, functions, unknown domains) survives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from onnxprune.errors import InvalidModel
from onnxprune.files import write_whole
from onnxprune.node import Node, node_of
from onnxprune.shapes import Facts, Shape

DYNAMIC_SIZE = 224
"""Pixels; what the analysis takes for a dynamic height or width. The model keeps it dynamic."""

Source = str | Path | ModelProto


class Graph:
    """A model's main graph: nodes in topological order, constants, shapes and known values.

    `shapes[t]` is at batch 1, with dynamic heights and widths taken as `DYNAMIC_SIZE` or as given;
    `facts.values[t]` are small tensors known without running the model.
    """

    def __init__(
        self, model: ModelProto, *, input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> None:
        """View `model`, which is not changed and must not be changed while the view is used.

        Raises: InvalidModel when the model is not valid ONNX.
        """
        self.model = model
        self.proto: GraphProto = model.graph
        _check(model)
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.initializers = {tensor.name: tensor for tensor in self.proto.initializer}
        self.nodes = tuple(_nodes(self.proto, self.opsets))
        self.inputs = tuple(i.name for i in self.proto.input if i.name not in self.initializers)
        self.outputs = tuple(o.name for o in self.proto.output)
        self.input_shapes = dict(input_shapes or {})
        self.facts = self._infer(batch=1, size=DYNAMIC_SIZE)

    @classmethod
    def load(
        cls, source: Source, *, input_shapes: Mapping[str, Sequence[int]] | None = None
    ) -> Graph:
        """Read a model from a file, or view one in memory.

        Raises: InvalidModel when there is no such file or it is not a valid ONNX model.
        """
        return cls(load_model(source), input_shapes=input_shapes)

    @cached_property
    def constant_tensors(self) -> dict[str, TensorProto]:
        """Initializers and the values of Constant nodes, by tensor name."""
        found = dict(self.initializers)
        for node in self.nodes:
            if node.op_type == "Constant" and isinstance(node.attributes.get("value"), TensorProto):
                found[node.outputs[0]] = node.attributes["value"]
        return found

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Return a constant's array; a KeyError is a mistake of the caller."""
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self.constant_tensors[name])
        return self._arrays[name]

    @cached_property
    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        return {}

    def shape(self, name: str) -> Shape | None:
        """Return a tensor's shape at batch 1, or None where it is not known."""
        return self.facts.shape(name)

    @cached_property
    def consumers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor, in order; a subgraph's reads count."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys((*node.inputs, *node.captures)):
                found.setdefault(name, []).append(node)
        return found

    @cached_property
    def producers(self) -> dict[str, Node]:
        """The node that writes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def image(self) -> str:
        """The name of the one input that takes images.

        Raises: InvalidModel when the model has none or several inputs.
        """
        if len(self.inputs) != 1:
            raise InvalidModel(
                f"graph '{self.proto.name}': has {len(self.inputs)} inputs "
                f"({', '.join(self.inputs)}); expected one image input; only inspect, apply and "
                f"the data-free criteria work on this model"
            )
        return str(self.inputs[0])

    @cached_property
    def image_form(self) -> tuple[tuple[int | None, ...], np.dtype[Any]]:
        """The shape of one image (None where the model leaves it open) and its element type."""
        value = next(value for value in self.proto.input if value.name == self.image)
        kind = value.type.tensor_type
        sizes = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim[1:])
        return sizes, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)

    def dynamic(self, name: str) -> tuple[bool, ...]:
        """Say for each axis of a tensor whether the model leaves its size open."""
        here, there = self.facts.shape(name), self._elsewhere.shape(name)
        if here is None or there is None or len(here) != len(there):
            return ()
        return tuple(a != b for a, b in zip(here, there, strict=True))

    @cached_property
    def _elsewhere(self) -> Facts:
        return self._infer(batch=2, size=DYNAMIC_SIZE + 32)

    def _infer(self, *, batch: int, size: int) -> Facts:
        facts = start_facts(self.model, self.input_shapes, batch=batch, size=size)
        for node in self.nodes:
            facts.follow(node)
        return facts


def start_facts(
    model: ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    *,
    batch: int = 1,
    size: int = DYNAMIC_SIZE,
) -> Facts:
    """Return what is known before the first node: inputs, initializers, declared types."""
    constants = {tensor.name for tensor in model.graph.initializer}
    facts = Facts(
        opsets={entry.domain: entry.version for entry in model.opset_import},
        ir_version=model.ir_version,
        declared={v.name: v.type for v in (*model.graph.value_info, *model.graph.output)},
    )
    for tensor in model.graph.initializer:
        facts.set_constant(tensor.name, tensor)
    for value in model.graph.input:
        if value.name not in constants and value.type.HasField("tensor_type"):
            given = (input_shapes or {}).get(value.name)
            shape = given or _analysis_shape(value, batch=batch, size=size)
            if shape is not None:
                facts.set_input(value.name, value.type.tensor_type.elem_type, shape)
    return facts


def load_model(source: Source) -> ModelProto:
    """Read a model from a file, or return the one given.

    Raises: InvalidModel when there is no such file or it is not ONNX.
    """
    if isinstance(source, ModelProto):
        return source
    path = Path(source)
    if not path.is_file():
        raise InvalidModel(f"{path}: no such file; give the path of an ONNX model")
    try:
        model = onnx.load(str(path))
    except (DecodeError, ValueError) as error:
        raise InvalidModel(
            f"{path}: not an ONNX model, or cut short ({path.stat().st_size} bytes); "
            f"export it again"
        ) from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise InvalidModel(f"{path}: cannot be read ({_first_line(error)})") from error
    if not model.graph.node:
        raise InvalidModel(f"{path}: not an ONNX model, or one without nodes; export it again")
    return model


def save_model(model: ModelProto, path: str | Path) -> Path:
    """Write a model whole, or not at all.

    Raises: OutputError when the place is not writable.
    """
    return write_whole(path, model.SerializeToString())


def _nodes(graph: GraphProto, opsets: Mapping[str, int]) -> Iterator[Node]:
    seen: set[str] = set()
    for proto in graph.node:
        name = proto.name
        if not name or name in seen:
            name = next((output for output in proto.output if output), proto.op_type)
        seen.add(name)
        yield node_of(proto, opsets, name=name)


def _analysis_shape(value: onnx.ValueInfoProto, *, batch: int, size: int) -> Shape | None:
    if not value.type.tensor_type.HasField("shape"):
        return None
    open_size = {0: batch}
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else open_size.get(k, size)
        for k, dim in enumerate(value.type.tensor_type.shape.dim)
    )


def _check(model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        raise InvalidModel(
            f"graph '{model.graph.name}': not valid ONNX: {_first_line(error)}; export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")


def is_float(array: npt.NDArray[Any]) -> bool:
    """Say whether an array holds floating-point numbers, bfloat16 and float16 included."""
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16" or array.dtype.kind == "V"


def dims(shape: Sequence[int] | npt.NDArray[np.int64] | None) -> str:
    """Format a shape for a message."""
    return "unknown" if shape is None else str([int(d) for d in shape])
