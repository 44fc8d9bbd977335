"""Every description against the schemas of ONNX or onnxruntime: the signature *is* the schema."""

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from onnxprune.errors import InvalidOp, UnsupportedAttribute, UnsupportedOp
from onnxprune.ops import ALIGNS, OPS, Op, op, require_op
from onnxprune.ops.node import node_of
from tests.ops.cases import CASES

EMPTY = inspect.Parameter.empty
PARAMETERS = ("int32", "int64", "bool")
MICROSOFT = {s.name: s for s in get_all_operator_schema() if s.domain == "com.microsoft"}

DESCRIPTIONS = [description for family in OPS.values() for description in family]
each_op = pytest.mark.parametrize("described", DESCRIPTIONS, ids=lambda d: f"{d.name}{d.since}")


def schema_of(described: Op, version: int) -> Any:
    if described.domain == "com.microsoft":
        return MICROSOFT[described.name]
    return onnx.defs.get_schema(described.name, version, described.domain)


def parameters(described: Op, *kinds: Any) -> list[inspect.Parameter]:
    signature = inspect.signature(described.forward)
    return [p for p in signature.parameters.values() if p.kind in kinds]


def defaults(schema: Any) -> Iterator[tuple[str, Any]]:
    """Attributes with their defaults; EMPTY for a required one."""
    for name, attribute in schema.attributes.items():
        default = getattr(attribute, "default_value", None)
        if default is None:
            default = AttributeProto.FromString(attribute._default_value)
        if attribute.required:
            yield name, EMPTY
        elif default.name:
            value = onnx.helper.get_attribute_value(default)
            yield name, [_text(v) for v in value] if isinstance(value, list) else _text(value)
        else:
            yield name, None


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


@each_op
def test_claimed_versions_exist(described: Op) -> None:
    assert tuple(sorted(described.since)) == described.since
    found = [schema_of(described, version).since_version for version in described.since]
    assert tuple(found) == described.since


@each_op
def test_inputs_are_those_of_the_schema(described: Op) -> None:
    positional = parameters(described, inspect.Parameter.POSITIONAL_ONLY)
    variadic = parameters(described, inspect.Parameter.VAR_POSITIONAL)
    assert len(described.inputs) == len(positional), "put a / after the inputs"
    for version in described.since:
        inputs = schema_of(described, version).inputs
        single = [i for i in inputs if i.option.name != "Variadic"]
        assert len(variadic) == len(inputs) - len(single)
        last = max(k for k, i in enumerate(inputs) if i.option.name != "Optional") if inputs else 0
        for k, (parameter, formal) in enumerate(zip(positional, single, strict=False)):
            optional = formal.option.name == "Optional" and k > last
            given = parameter.default is not EMPTY
            assert given >= optional, (version, formal.name)
            assert given == optional or version != described.since[-1], (version, formal.name)
        beyond = positional[len(single) :]
        assert all(p.default is None for p in beyond), f"version {version} has fewer inputs"
        assert not beyond or version != described.since[-1]


@each_op
def test_attributes_are_those_of_the_schema(described: Op) -> None:
    keywords = parameters(described, inspect.Parameter.KEYWORD_ONLY)
    own = {p.name: p.default for p in keywords if p.name in described.attributes}
    for version in described.since:
        for name, expected in defaults(schema_of(described, version)):
            assert name in own, f"version {version}"
            if isinstance(expected, float):
                assert np.float32(own[name]) == np.float32(expected), name
            elif not (expected is EMPTY and version != described.since[-1]):
                same = tuple(expected) if isinstance(expected, list) else expected
                assert own[name] == same, name
    assert set(own) == set(schema_of(described, described.since[-1]).attributes)


@each_op
def test_parameters_are_integers_in_the_schema(described: Op) -> None:
    inputs = schema_of(described, described.since[-1]).inputs
    for index, formal in enumerate(inputs):
        if described.is_parameter(index) and described.annotation(index) != "Kind":
            assert set(formal.types) <= {f"tensor({kind})" for kind in PARAMETERS}, formal.name


@each_op
def test_description_has_a_case(described: Op) -> None:
    exercised = {used for case in CASES for used in case.versions}
    assert any((described.name, version) in exercised for version in described.since)


@pytest.mark.parametrize(("domain", "name"), OPS, ids=lambda part: part)
def test_newest_version_is_described(domain: str, name: str) -> None:
    newest = schema_of(OPS[domain, name][0], onnx.defs.onnx_opset_version())
    described = any(newest.since_version in entry.since for entry in OPS[domain, name])
    assert described or newest.deprecated


def test_a_version_described_twice_is_refused() -> None:
    before = list(OPS["", "Relu"])
    with pytest.raises(InvalidOp, match=r"Relu: version .*14.* is described twice"):
        op("Relu", ALIGNS, since=(14,))(lambda x: x)
    assert OPS["", "Relu"] == before


def test_an_unknown_operator_is_refused_by_name() -> None:
    node = node_of(onnx.parser.parse_node("y = Unique(x)"), {"": 17}, name="u")
    assert node.op is None
    with pytest.raises(UnsupportedOp, match=r"Unique 'u': .* does not know Unique"):
        require_op(node)


def test_an_unknown_attribute_is_refused_by_name() -> None:
    node = node_of(onnx.parser.parse_node("y = Relu<slope=2>(x)"), {"": 17})
    with pytest.raises(UnsupportedAttribute, match=r"Relu 'y': attribute 'slope' is not supported"):
        require_op(node)(node, [None])


def test_an_output_that_is_not_computed_is_refused() -> None:
    import torch

    node = node_of(onnx.parser.parse_node("y, i = Relu(x)"), {"": 17})
    with pytest.raises(UnsupportedAttribute, match="output 'i' is one that is not supported"):
        require_op(node)(node, [torch.zeros(1, 1, 1)])
