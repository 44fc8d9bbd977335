"""Run an ONNX network as a torch module whose convolutions and dense layers are `torch.nn` modules.

Torch-Pruning finds layers and their parameters in such modules. The other nodes run by the forwards
of their operators, as in `onnxprune.relevance.mirror`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from onnxprune.graph.graph import Graph
from onnxprune.ops.node import Node
from onnxprune.relevance.mirror import Mirror


class TorchLayers(nn.Module):
    """A graph as a torch module; `layers` are its convolutions and dense layers by name.

    Shapes: [N, ...] -> [N, K], as the graph's first input and output.
    Raises: ValueError for a layer that no `torch.nn` module computes.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self._mirror = Mirror(graph, device="cpu")
        self._made: dict[str, nn.Module] = {}
        for node, _ in self._mirror.steps:
            if node.op_type in ("Conv", "Gemm"):
                make = _convolution if node.op_type == "Conv" else _dense
                layer = make(node, self._mirror.constants)
                self.add_module(node.name.replace(".", "_"), layer)
                self._made[node.name] = layer

    @property
    def layers(self) -> Mapping[str, nn.Module]:
        """The `torch.nn` modules by the names of their nodes."""
        return {name: getattr(layer, "layer", layer) for name, layer in self._made.items()}

    def forward(self, image: Tensor) -> Tensor:
        env = self._mirror.start(image)
        for step in self._mirror.steps:
            node = step.node
            if node.name in self._made:
                env[node.outputs[0]] = self._made[node.name](env[node.inputs[0]])
            else:
                self._mirror.execute(step, env)
        return env[self._mirror.graph.outputs[0]]


class _Padded(nn.Module):
    """A convolution whose padding differs from side to side."""

    def __init__(self, layer: nn.Conv2d, pads: list[int]) -> None:
        super().__init__()
        self.layer, self.pads = layer, pads

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(functional.pad(image, self.pads))  # type: ignore[no-any-return]


def _convolution(node: Node, constants: Mapping[str, Tensor]) -> nn.Module:
    weight, bias = _parameters(node, constants)
    if weight.ndim != 4 or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise ValueError(f"{node}: expected a convolution over images with explicit pads")
    attributes: Mapping[str, Any] = node.attributes
    groups = attributes.get("group", 1)
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    even = (top, left) == (bottom, right)
    layer = nn.Conv2d(
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),  # type: ignore[arg-type]
        attributes.get("strides", (1, 1)),
        (top, left) if even else 0,
        attributes.get("dilations", (1, 1)),
        groups,
        bias is not None,
    )
    _fill(layer, weight, bias)
    return layer if even else _Padded(layer, [left, right, top, bottom])


def _dense(node: Node, constants: Mapping[str, Tensor]) -> nn.Module:
    weight, bias = _parameters(node, constants)
    if any(node.attributes.get(name, one) != one for name, one in _PLAIN.items()):
        raise ValueError(f"{node}: expected a Gemm with {_PLAIN}")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    _fill(layer, weight, bias)
    return layer


_PLAIN = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


def _parameters(node: Node, constants: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    return constants[node.inputs[1]], constants[node.inputs[2]] if len(node.inputs) > 2 else None


def _fill(layer: nn.Conv2d | nn.Linear, weight: Tensor, bias: Tensor | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
