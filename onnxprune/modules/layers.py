"""Layers that weigh channels, as they stand in a graph, and which of two graphs belong together.

A layer is a convolution or a dense layer with what stands behind it and is affine too: a bias that
is added, a batch normalisation. Exporters fold these or leave them, so two layers are compared by
what they compute, `W x + t`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxprune.errors import UnmatchedModule
from onnxprune.graph import Graph, call
from onnxprune.ops import Node

Array = npt.NDArray[Any]
Values = Callable[[str], Array]
"""The value of a constant by its name."""

KINDS = {"Conv": "convolution", "ConvTranspose": "transposed", "Gemm": "dense", "MatMul": "dense"}


@dataclass(frozen=True)
class Norm:
    """A batch normalisation: the names of its constants."""

    gamma: str
    beta: str
    mean: str
    variance: str
    epsilon: float

    def scale(self, values: Values) -> Array:
        """Return what each channel is multiplied by. Shapes: `[channels]`."""
        variance = values(self.variance).astype(np.float64)
        return np.asarray(values(self.gamma) / np.sqrt(variance + self.epsilon))


@dataclass(frozen=True)
class Layer:
    """A layer: its node, the names of its constants, and the tensor that comes out of it.

    `flipped` says that the weight is stored as `[in, out]`. `names` are those that people call it
    by; the weight's owner is one of them.
    """

    node: Node
    kind: str
    weight: str
    flipped: bool
    bias: str
    norm: Norm | None
    output: str
    names: tuple[str, ...]

    @property
    def owner(self) -> str:
        """The path of the module that has the weight."""
        return self.weight.rpartition(".")[0]

    @property
    def groups(self) -> int:
        return int(self.node.attributes.get("group", 1))

    def kernel(self, values: Values) -> Array:
        """Return the weight as torch lays it out, in its own type.

        Shapes: `[out, in / groups, ...]`; `[in, out / groups, ...]` of a transposed convolution.
        """
        found = values(self.weight)
        return found.T if self.flipped else found

    def stored(self, kernel: Array) -> Array:
        """Return a weight as it is stored. Shapes: as `kernel`."""
        return kernel.T if self.flipped else kernel

    def along(self, factor: Array, kernel: Array) -> Array:
        """Multiply the weights of each output channel. Shapes: factor `[out]`."""
        if self.kind != "transposed":
            return kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
        apart = kernel.reshape(self.groups, -1, *kernel.shape[1:])
        rows = factor.reshape(self.groups, 1, -1, *[1] * (kernel.ndim - 2))
        return np.asarray((apart * rows).reshape(kernel.shape))

    def width(self, kernel: Array) -> int:
        """Return how many output channels a weight has."""
        return int(kernel.shape[1] * self.groups if self.kind == "transposed" else len(kernel))

    def affine(self, values: Values) -> tuple[Array, Array]:
        """Return `W` and `t` of what the layer computes, normalisation included.

        Shapes: W as `kernel`; t `[out]`.
        """
        kernel = self.kernel(values)
        shift = np.zeros(self.width(kernel))
        if self.bias:
            shift = shift + values(self.bias).astype(np.float64).ravel()
        if self.norm is None:
            return kernel, shift
        scale = self.norm.scale(values)
        shift = scale * (shift - values(self.norm.mean)) + values(self.norm.beta)
        return self.along(scale, kernel), shift


def values_of(graph: Graph) -> Values:
    """Return how the constants of a graph are looked up."""

    def value(name: str) -> Array:
        return graph.constant(name) if name in graph.constant_tensors else graph.facts.values[name]

    return value


def find_layers(graph: Graph) -> list[Layer]:
    """Return the layers of a graph, in the order in which they run."""
    nodes = [node for node in graph.nodes if node.proto.op_type in KINDS and not node.domain]
    found = [(node, *_weight(graph, node.inputs[1])) for node in nodes]
    known = [(node, weight, flips) for node, weight, flips in found if weight]
    called = call((node, weight) for node, weight, _ in known)
    return [_layer(graph, *one, called[one[0].name].names) for one in known]


def _layer(graph: Graph, node: Node, weight: str, flips: bool, names: tuple[str, ...]) -> Layer:
    op = node.proto.op_type
    flipped = flips != (op == "MatMul" or (op == "Gemm" and not node.attributes.get("transB")))
    # Where there is no bias, torch's exporter writes zeros that nodes compute.
    bias = next((name for name in node.inputs[2:] if name in graph.constant_tensors), "")
    norm, output = None, node.outputs[0]
    while norm is None and output not in graph.outputs:
        readers = graph.consumers.get(output, [])
        if len(readers) != 1:
            break
        (reader,) = readers
        if reader.proto.op_type == "BatchNormalization" and reader.inputs[0] == output:
            gamma, beta, mean, variance = reader.inputs[1:5]
            epsilon = float(reader.attributes.get("epsilon", 1e-5))
            norm = Norm(gamma, beta, mean, variance, epsilon)
        elif op == "MatMul" and not bias and (added := _added(graph, reader, output)):
            bias = added
        elif reader.proto.op_type != "Identity":
            break
        output = reader.outputs[0]
    return Layer(node, KINDS[op], weight, flipped, bias, norm, output, names)


def _weight(graph: Graph, name: str) -> tuple[str, bool]:
    """The constant that a weight is, and whether it is read transposed; empty where it is none."""
    flips = False
    while name not in graph.initializers:
        maker = graph.producers.get(name)
        if maker is None or maker.proto.op_type not in ("Transpose", "Identity"):
            return ("", False) if name not in graph.constant_tensors else (name, flips)
        flips ^= maker.proto.op_type == "Transpose"
        name = maker.inputs[0]
    return graph.aliases.get(name, name), flips


def _added(graph: Graph, node: Node, output: str) -> str:
    """The constant row that a node adds to a tensor, empty where it does something else."""
    others = [name for name in node.inputs if name != output]
    if node.proto.op_type != "Add" or len(others) != 1 or others[0] not in graph.constant_tensors:
        return ""
    shape = graph.shape(others[0]) or ()
    return others[0] if shape[:-1] in ((), (1,)) and shape else ""


def match(own: Sequence[Layer], other: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pair the layers of a module's graph with those of a model, in the order of the module's.

    Those that are called alike belong together; of the others, those of one kind in the order in
    which they run.
    Raises: UnmatchedModule naming a convolution that has no partner.
    """
    pairs: dict[str, Layer] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(layer.owner for layer in own):
        ours = [layer for layer in own if layer.owner == path]
        theirs = [layer for layer in other if path in layer.names]
        if path and len(ours) == len(theirs) and [o.kind for o in ours] == [t.kind for t in theirs]:
            pairs |= {o.node.name: t for o, t in zip(ours, theirs, strict=True)}
            taken |= {layer.node.name for layer in theirs}
    for kind in dict.fromkeys(KINDS.values()):
        ours = [one for one in own if one.kind == kind and one.node.name not in pairs]
        theirs = [one for one in other if one.kind == kind and one.node.name not in taken]
        if len(ours) == len(theirs):
            pairs |= {o.node.name: t for o, t in zip(ours, theirs, strict=True)}
        elif kind != "dense":
            raise UnmatchedModule(
                f"module: beside the layers that are called alike, it has {len(ours)} {kind} ones "
                f"({_few(ours)}), the model {len(theirs)} ({_few(theirs)}); give the module that "
                f"the model was exported from"
            )
    return [(layer, pairs[layer.node.name]) for layer in own if layer.node.name in pairs]


def _few(layers: Iterable[Layer]) -> str:
    names = [layer.owner or layer.node.name for layer in layers]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") or "none"
