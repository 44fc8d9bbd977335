"""What surgery restates keeps its element type, whichever of them the schema allows.

Every case of an operator that restates an input is built once with each integer type that the
operator's schema allows there.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

from onnxprune.channels import find_groups
from onnxprune.graph import Graph, start_facts
from onnxprune.ops import OPS, Op, node_of
from onnxprune.surgery.masking import mask
from onnxprune.surgery.removal import remove_channels
from tests.ops.cases import CASES
from tests.ops.sandwich import Case, half, run
from tests.ops.test_laws import close

WHOLE = {"tensor(int32)": "int32", "tensor(int64)": "int64"}

REFUSED = {
    ("Pad", "int32"): "ONNX infers no shape from axes of 32 bits",
    ("CenterCropPad", "int32"): "onnxruntime writes a Max of two types for it",
}
"""What no runtime loads, pruned or not, and why."""

Variant = tuple[Case, NodeProto, str]


def chosen(op: Op, schema: Any) -> list[list[int]]:
    """The parameters of an operator that have one type together, where there is a choice."""
    together: dict[str, list[int]] = {}
    for k, formal in enumerate(schema.inputs):
        if op.restate is not None and op.is_parameter(k) and {*WHOLE} <= set(formal.types):
            together.setdefault(formal.type_str, []).append(k)
    return list(together.values())


def variants(case: Case) -> Iterator[Variant]:
    """The case with the constants of one node in each type that its schema allows."""
    reads = Counter(name for proto in case.nodes for name in proto.input)
    for proto in case.nodes:
        node = node_of(proto, {"": case.opset})
        if node.op is None or node.schema is None:
            continue
        for places in chosen(node.op, node.schema):
            names = [node.inputs[k] for k in places if k < len(node.inputs) and node.inputs[k]]
            if all(
                isinstance(case.tensors.get(name), np.ndarray) and reads[name] == names.count(name)
                for name in names
            ):
                for kind in WHOLE.values():
                    cast = {name: case.tensors[name].astype(kind) for name in names}
                    yield replace(case, tensors={**case.tensors, **cast}), proto, kind


ALL = [variant for case in CASES if case.removable for variant in variants(case)]
LOADED = [one for one in ALL if (one[1].op_type, one[2]) not in REFUSED]


def kinds(model: ModelProto) -> dict[tuple[str, ...], list[int]]:
    """The element types that each node reads, by its operator and its outputs."""
    facts, found = start_facts(model), {}
    for proto in model.graph.node:
        facts.follow(node_of(proto, facts.opsets))
        read = [facts.types[name].tensor_type.elem_type if name else 0 for name in proto.input]
        found[proto.op_type, *proto.output] = read
    return found


@pytest.mark.parametrize("variant", LOADED, ids=lambda v: f"{v[0]}-{v[1].op_type}-{v[2]}")
def test_what_is_restated_keeps_its_type(variant: Variant) -> None:
    case, _, _ = variant
    graph = Graph(case.model)
    groups = find_groups(graph)
    assert int(groups.removable.sum()) == case.removable
    dead = half(groups, 0)
    pruned, masked = remove_channels(graph, groups, dead), mask(graph, groups, dead)
    before = kinds(case.model)
    for node, read in kinds(pruned).items():
        assert read == before.get(node, read), node
    feeds = case.feeds(case.batches[0])
    for found, expected in zip(run(pruned, feeds), run(masked, feeds), strict=True):
        close(found, expected)


def restated(variant: Variant) -> set[int]:
    """The inputs that surgery gives the node of a variant anew."""
    case, node, _ = variant
    graph = Graph(case.model)
    groups = find_groups(graph)
    pruned = remove_channels(graph, groups, half(groups, 0))
    left = [
        one for one in pruned.graph.node if (one.op_type, one.output) == (node.op_type, node.output)
    ]
    pairs = [pair for one in left for pair in zip(node.input, one.input, strict=False)]
    return {k for k, (old, new) in enumerate(pairs) if old != new}


def test_every_operator_that_restates_is_tried_with_every_type() -> None:
    tried: dict[tuple[str, str], set[int]] = {}
    for variant in LOADED:
        tried.setdefault((variant[1].op_type, variant[2]), set()).update(restated(variant))
    choosing = {
        (name, kind)
        for (domain, name), family in OPS.items()
        for op in family
        if not domain and chosen(op, onnx.defs.get_schema(name, op.since[-1]))
        for kind in WHOLE.values()
    }
    assert choosing - {*REFUSED} == tried.keys()
    assert {name for name, inputs in tried.items() if not inputs} == {("Pad", "int64")}


@pytest.mark.parametrize("refused", REFUSED, ids=str)
def test_what_no_runtime_loads_is_not_loaded(refused: tuple[str, str]) -> None:
    for case in (case for case, node, kind in ALL if (node.op_type, kind) == refused):
        with pytest.raises((Fail, onnx.shape_inference.InferenceError)):
            run(case.model, case.feeds(case.batches[0]))
