"""Quantised networks as the real numbers that they stand for, on the mirror.

Integers have no gradient, so no relevance crosses them. What stands behind a quantised tensor is a
real number all the same: of one whose scale the run finds, `(q, s, z)`, it is `(x, 1, 0)`, and a
product of integers is then one of real numbers. Operators that onnxruntime quantised become those
of ONNX that they stand for, and a Clip, because their integers end somewhere, often at what stands
for 0: so a Relu is written. The user's graph is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from onnx import NodeProto, helper

from onnxprune.ops import Node, as_identity, node_of, require_op
from onnxprune.ops._torch import torch
from onnxprune.relevance.mirror import Mirror, Step

if TYPE_CHECKING:
    from torch import Tensor

OPSET = 13
"""That of the nodes that are written here."""
ALIKE = {
    "QLinearAdd": "Add",
    "QLinearMul": "Mul",
    "QLinearMatMul": "MatMul",
    "QLinearSigmoid": "Sigmoid",
    "QLinearLeakyRelu": "LeakyRelu",
    "QLinearSoftmax": "Softmax",
    "QLinearGlobalAveragePool": "GlobalAveragePool",
    "QLinearAveragePool": "AveragePool",
}
"""Operators whose operands come in threes, a tensor, its scale and its zero point; and the operator
of these tensors as real numbers."""
DROPPED = ("channels_last", "opset")
"""Attributes of onnxruntime: one that is refused elsewhere, unless it is 0; and a version."""


def in_real_numbers(mirror: Mirror) -> list[Step]:
    """Return the steps of a mirror in real numbers; what they read goes into its constants."""
    names = {step.op.name for step in mirror.steps}
    whole = any(name.startswith(("QLinear", "QGemm")) for name in names)
    if not whole and names.isdisjoint(("ConvInteger", "MatMulInteger")):
        return mirror.steps
    twin = _Twin(mirror, whole)
    return [one for step in mirror.steps for one in twin.of(step)]


@dataclass
class _Twin:
    """The twin of a mirror; with `whole` all that is quantised becomes real."""

    mirror: Mirror
    whole: bool

    def of(self, step: Step) -> list[Step]:
        """Return a step in real numbers, as it is where it has no such form."""
        node, kind, constants = step.node, step.op.name, self.mirror.constants
        if kind == "DynamicQuantizeLinear":
            for name, value in zip(node.outputs[1:], (1.0, 0.0), strict=False):
                constants[name] = self._number(value)
            return [_identity(node)]
        if kind in ("ConvInteger", "MatMulInteger"):
            return [self._of_integers(step)]
        if not self.whole:
            return [step]
        if kind in ("QuantizeLinear", "DequantizeLinear") and node.inputs[0] in constants:
            return [step]
        if kind == "DequantizeLinear":
            return [_identity(node)]
        if kind == "QuantizeLinear":
            return self._ended(node, "Identity", node.inputs[:1], node.inputs[1:])
        if kind == "QLinearConv":
            inputs = [self._real(node, 0), self._real(node, 3, axis=0)]
            inputs += self._bias(node, 8, (1, 4))
            return self._ended(node, "Conv", inputs, node.inputs[6:])
        if kind == "QGemm":
            return self._gemm(node)
        if kind == "QLinearConcat":
            inputs = [self._real(node, k) for k in range(2, len(node.inputs), 3)]
            return self._ended(node, "Concat", inputs, node.inputs)
        if kind == "QLinearWhere":
            inputs = [node.inputs[0], self._real(node, 1), self._real(node, 4)]
            return self._ended(node, "Where", inputs, node.inputs[7:])
        if kind in ALIKE:
            places = (0, 3) if len(node.inputs) >= 7 else (0,)
            ends = node.inputs[3 * len(places) :]
            return self._ended(node, ALIKE[kind], [self._real(node, k) for k in places], ends)
        return [step]

    def _ended(
        self, node: Node, kind: str, inputs: Sequence[str], scaled: Sequence[str]
    ) -> list[Step]:
        """An operator whose results end where the integers of its scale and zero point do."""
        constants, made = self.mirror.constants, f"{node.name}.real"
        zero = constants[scaled[1]] if len(scaled) > 1 and scaled[1] else self._whole_zero()
        limits, factor = torch.iinfo(zero.dtype), constants[scaled[0]].double()
        ends = [((end - zero.double()) * factor) for end in (limits.min, limits.max)]
        names = [f"{made}_low", f"{made}_high"]
        for name, end in zip(names, (ends[0].min(), ends[1].max()), strict=True):
            constants[name] = end.to(self.mirror.dtype)
        clip = helper.make_node("Clip", [made, *names], [node.outputs[0]])
        return [_step(node, kind, inputs, made), _step_of(clip, node, f"{node.name}.ended")]

    def _whole_zero(self) -> Tensor:
        return torch.zeros((), dtype=torch.uint8, device=self.mirror.device)

    def _gemm(self, node: Node) -> list[Step]:
        """A dense layer; of real numbers where its output has no scale."""
        axis = 0 if node.attributes.get("transB", 0) else -1
        inputs = [node.inputs[0], self._real(node, 3, axis=axis)]
        inputs += self._bias(node, 6, (1, 4), node.attributes.get("alpha", 1.0))
        if len(node.inputs) > 7 and node.inputs[7]:
            return self._ended(node, "Gemm", inputs, node.inputs[7:])
        return [_step(node, "Gemm", inputs, node.outputs[0])]

    def _of_integers(self, step: Step) -> Step:
        """A product of integers whose operand was quantised as it came, or of which one was."""
        node, kind = step.node, step.op.name
        zeros = [node.inputs[k] if k < len(node.inputs) else "" for k in (2, 3)]
        if not zeros[0] or not self._is_real(zeros[0]):
            return step
        w = node.inputs[1]
        if w in self.mirror.constants:
            axis = 0 if kind == "ConvInteger" else -1
            w = self._constant(node, 1, "", zeros[1], axis)
        elif not self._is_real(zeros[1]):
            return step
        return _step(node, kind.removesuffix("Integer"), [node.inputs[0], w], node.outputs[0])

    def _is_real(self, zero: str) -> bool:
        """Whether a tensor with this zero point stands for real numbers already."""
        held = self.mirror.constants.get(zero)
        return held is not None and held.is_floating_point()

    def _real(self, node: Node, place: int, axis: int = -1) -> str:
        """The name of an operand as real numbers."""
        name = node.inputs[place]
        if name not in self.mirror.constants:
            return name
        scale, zero = node.inputs[place + 1 : place + 3]
        return self._constant(node, place, scale, zero, axis)

    def _constant(self, node: Node, place: int, scale: str, zero: str, axis: int) -> str:
        """Add the real numbers of a constant, whose scale may be one for each place of an axis."""
        constants = self.mirror.constants
        whole, name = constants[node.inputs[place]].double(), f"{node.name}.real_{place}"
        if zero:
            whole = whole - _along(constants[zero].double(), whole, axis)
        if scale:
            whole = whole * _along(constants[scale].double(), whole, axis)
        constants[name] = whole.to(self.mirror.dtype)
        return name

    def _bias(
        self, node: Node, place: int, scales: Sequence[int], factor: float = 1.0
    ) -> list[str]:
        """The bias of a layer, in units of the product of two scales."""
        if place >= len(node.inputs) or not node.inputs[place]:
            return []
        constants, name = self.mirror.constants, f"{node.name}.real_{place}"
        value = constants[node.inputs[place]].double() * factor
        for k in scales:
            value = value * constants[node.inputs[k]].double()
        constants[name] = value.to(self.mirror.dtype)
        return [name]

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=self.mirror.dtype, device=self.mirror.device)


def _along(values: Tensor, like: Tensor, axis: int) -> Tensor:
    """One number, or one for each place of an axis, shaped to broadcast."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if k == axis % like.ndim else 1 for k in range(like.ndim)])


def _identity(node: Node) -> Step:
    made = as_identity(node, node.inputs[0])
    return Step(made, require_op(made))


def _step(node: Node, kind: str, inputs: Sequence[str], output: str) -> Step:
    """The step of another operator in the place of a node."""
    proto = helper.make_node(kind, list(inputs), [output])
    if kind != "Identity":
        proto.attribute.extend(a for a in node.proto.attribute if a.name not in DROPPED)
    return _step_of(proto, node, node.name)


def _step_of(proto: NodeProto, like: Node, name: str) -> Step:
    made = replace(node_of(proto, {"": OPSET}), name=name, within=like.within)
    return Step(made, require_op(made))
