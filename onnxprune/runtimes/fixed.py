"""A model with all axes of its inputs fixed, as runtimes of small machines want it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import ModelProto, ValueInfoProto, numpy_helper

from onnxprune.graph import Graph, Shape, Weights, copied, fill, lent, look, run_nodes, runnable


@dataclass(frozen=True)
class Fixed:
    """A model whose inputs have these shapes, and whose outputs are named so; and as it came.

    `bare` declares its large weights without their values, which are `weights`.
    """

    original: ModelProto
    bare: ModelProto
    weights: Weights
    shapes: Mapping[str, Shape]
    outputs: tuple[str, ...]

    @property
    def model(self) -> ModelProto:
        """The model whose inputs have these shapes, a new one with all its weights."""
        return fill(copied(self.bare), self.weights)


def fix_axes(graph: Graph, sizes: Mapping[str, Shape] | None = None) -> Fixed:
    """Return a model whose inputs have sizes, those of one sample where they are open.

    `sizes` are taken where the model leaves an axis open; else those that the graph is looked at.
    What onnxruntime stumbles over is left out, and weights that are read backwards are turned.
    """
    found = fixed_sizes(graph, sizes)
    model, weights = lent(_turned(runnable(graph.model), graph))
    for value in model.graph.input:
        if value.name in found:
            _set_shape(value, found[value.name])
    del model.graph.value_info[:]  # it may name the axes that are no longer open
    known = Graph(graph.model, input_shapes=found)
    for value in model.graph.output:
        shape = known.shape(value.name)
        if shape is not None:
            _set_shape(value, shape)
    outputs = tuple(value.name for value in model.graph.output)
    return Fixed(graph.model, model, weights, found, outputs)


def fixed_sizes(graph: Graph, sizes: Mapping[str, Shape] | None = None) -> dict[str, Shape]:
    """Return the shapes of a model's inputs as `fix_axes` fixes them, in their order."""
    given = {**graph.input_shapes, **(sizes or {})}
    found, _ = look(graph.proto, {n: given[n] for n in given if n in graph.inputs})
    return {name: found[name] for name in graph.inputs if name in found}


def _set_shape(value: ValueInfoProto, shape: Shape) -> None:
    value.type.tensor_type.ClearField("shape")
    held = value.type.tensor_type.shape
    for size in shape:
        held.dim.add(dim_value=size)


def _turned(model: ModelProto, graph: Graph) -> ModelProto:
    """Return the model, or a copy that holds what it reads backwards from weights by Slice.

    JAX's exporter writes kernels of transposed convolutions so, and MNN's converter crashes there.
    """
    known, turned = graph.constant_tensors.keys(), {}
    for node in model.graph.node:
        if node.op_type == "Slice" and len(node.input) == 5 and known >= set(node.input):
            feeds = {name: graph.constant(name) for name in node.input}
            if (feeds[node.input[4]] < 0).any():
                (turned[node.output[0]],) = run_nodes([node], node.output, feeds, graph.opsets)
    if not turned:
        return model
    found = copied(model)
    kept = [node for node in found.graph.node if node.output[0] not in turned]
    del found.graph.node[:]
    found.graph.node.extend(kept)
    for name, value in turned.items():
        found.graph.initializer.append(numpy_helper.from_array(value, name))
    return found
