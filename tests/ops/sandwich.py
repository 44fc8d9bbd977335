"""A case: a few nodes, and the model that stands around them.

x_image -> 1x1 Conv -> x [N, 4, 5, 5] -> the nodes -> y -> 1x1 Conv -> y_out
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, TypeProto, ValueInfoProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

from onnxprune.arrays import BoolArray
from onnxprune.channels.groups import ChannelGroups
from onnxprune.graph.facts import start_facts
from onnxprune.ops.node import node_of

Array = npt.NDArray[Any]
IMAGES = 3
"""Channels of the images, and of what comes out."""
TAIL = "_tail"
"""How the weights behind the nodes are called, which read what these make."""


@dataclass(frozen=True, eq=False)
class Case:
    """`removable` channels may go; where others may not, `why` is part of the reason.

    `masked` is False where a channel that is 0 makes a NaN or an infinity (see `silence`).
    """

    body: str
    removable: int
    tensors: dict[str, Any]
    opset: int = 17
    batch: int | None = None
    why: str = ""
    masked: bool = True

    def __str__(self) -> str:
        short = re.sub(r"\s+|\w+ = ", "", self.body)[:60]
        return f"{short}@{self.opset}"

    @property
    def nodes(self) -> list[NodeProto]:
        return [onnx.parser.parse_node(line) for line in self.body.split(";")]

    @property
    def versions(self) -> set[tuple[str, int]]:
        """The operators of the body, each with its since-version."""
        return {(n.op_type, node_of(n, {"": self.opset}).version) for n in self.nodes}

    @cached_property
    def model(self) -> ModelProto:
        """The sandwich."""
        return _Sandwich(self).model

    def feeds(self, batch: int, seed: int = 1) -> dict[str, Array]:
        """Random images for every branch."""
        rng = np.random.default_rng(seed)
        return {
            f"{name}_image": rng.normal(size=(batch, IMAGES, *_space(shape))).astype(np.float32)
            for name, shape in self.tensors.items()
            if isinstance(shape, tuple)
        }

    @property
    def batches(self) -> tuple[int, ...]:
        return (1, 3) if self.batch is None else (self.batch,)


class _Sandwich:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.rng = np.random.default_rng(0)
        self.nodes: list[NodeProto] = []
        self.inputs: list[ValueInfoProto] = []
        self.constants: list[TensorProto] = []
        for name, value in case.tensors.items():
            if isinstance(value, tuple):
                self._branch(name, value)
            else:
                self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        self.nodes += case.nodes
        read = {name for node in case.nodes for name in node.input}
        ends = [n for node in case.nodes for n in node.output if n and n not in read]
        types = self._types()
        lasts = [self._tail(name, types[name].tensor_type) for name in ends]
        types = self._types()
        self.model = self._make([_open(name, types[name].tensor_type) for name in lasts])
        onnx.checker.check_model(self.model, full_check=True)

    def _types(self) -> dict[str, TypeProto]:
        model = self._make([])
        facts = start_facts(model)
        for node in model.graph.node:
            facts.follow(node_of(node, facts.opsets))
        return facts.types

    def _make(self, outputs: list[ValueInfoProto]) -> ModelProto:
        graph = helper.make_graph(
            self.nodes, "case", self.inputs, outputs, initializer=self.constants
        )
        domains = {node.domain for node in self.nodes}
        return helper.make_model(
            graph,
            opset_imports=[
                helper.make_opsetid("", self.case.opset),
                *(helper.make_opsetid(name, 1) for name in sorted(domains - {""})),
            ],
            ir_version=8,
        )

    def _add(self, op_type: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(
            helper.make_node(op_type, inputs, [output], name=f"{output}_node", **attributes)
        )
        return output

    def _weight(self, name: str, *shape: int) -> str:
        self.constants.append(numpy_helper.from_array(weights(*shape, rng=self.rng), name))
        return name

    def _branch(self, name: str, shape: tuple[int, ...]) -> None:
        """x_image -> Conv -> x, of any rank from 2 up."""
        space = _space(shape)
        size = (self.case.batch or "N", IMAGES, *space)
        self.inputs.append(helper.make_tensor_value_info(f"{name}_image", TensorProto.FLOAT, size))
        weight = self._weight(f"{name}_weight", shape[0], IMAGES, *(1,) * len(space))
        bias = self._weight(f"{name}_bias", shape[0])
        flat = len(shape) == 1
        self._add("Conv", [f"{name}_image", weight, bias], f"{name}_conv" if flat else name)
        if flat:
            self._add("Flatten", [f"{name}_conv"], name)

    def _tail(self, name: str, kind: TypeProto.Tensor) -> str:
        """Y -> Conv or Gemm -> y_out, or y itself where it has no channels; the last name."""
        sizes = [dim.dim_value for dim in kind.shape.dim]
        last = name
        if kind.elem_type != TensorProto.FLOAT:
            last = self._add("Cast", [last], f"{name}_float", to=TensorProto.FLOAT)
        if len(sizes) == 2 and sizes[1]:
            wide = [last, self._weight(f"{name}{TAIL}", sizes[1], IMAGES)]
            wide += [self._weight(f"{name}_tail_bias", IMAGES)]
            last = self._add("Gemm", wide, f"{name}_out")
        elif len(sizes) > 2 and sizes[1]:
            ones = (1,) * (len(sizes) - 2)
            wide = [last, self._weight(f"{name}{TAIL}", IMAGES, sizes[1], *ones)]
            last = self._add("Conv", wide, f"{name}_out")
        return last


def _open(name: str, kind: TypeProto.Tensor) -> ValueInfoProto:
    """An output whose rank is declared, and no size."""
    sizes = [f"{name}_{k}" for k in range(len(kind.shape.dim))]
    return helper.make_tensor_value_info(name, kind.elem_type, sizes)


def _space(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] or (1,)


def weights(*shape: int, rng: np.random.Generator | None = None) -> Array:
    """Random weights, none of them near 0."""
    rng = rng or np.random.default_rng(len(shape) + sum(shape))
    signs = rng.choice([-1.0, 1.0], shape)
    return np.asarray(signs * rng.uniform(0.2, 1.0, shape), np.float32)


def run(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    """The outputs by onnxruntime or, of an operator that it has no kernel for, by ONNX itself."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Else a product with a weight of 8 bits rounds the activations to 8 bits as well.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    # And a CPU without VNNI cuts off sums of two products of 8 bits.
    options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except NotImplemented:
        return list(ReferenceEvaluator(model).run(None, feeds))
    return list(session.run(None, feeds))


def silence(model: ModelProto, masked: ModelProto) -> ModelProto:
    """The model, whose last weights alone are those of the masked one: nothing else becomes 0."""
    found = ModelProto()
    found.CopyFrom(model)
    for mine, theirs in zip(found.graph.initializer, masked.graph.initializer, strict=True):
        if mine.name.endswith(TAIL):
            mine.CopyFrom(theirs)
    return found


def half(groups: ChannelGroups, seed: int) -> BoolArray:
    """A random half of the channels that may go, but never all of an axis."""
    rng = np.random.default_rng(seed)
    dead = groups.removable & (rng.random(len(groups)) < 0.5)
    for channels in groups.axes:
        if dead[channels].all():
            dead[channels[0]] = False
    return dead


def elements(model: ModelProto) -> int:
    return sum(numpy_helper.to_array(t).size for t in model.graph.initializer)
