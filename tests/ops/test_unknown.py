"""Every operator of ONNX is described, or there is a reason that `inspect` shows."""

import re

import onnx
import pytest

from onnxprune.channels import find_groups
from onnxprune.graph import Graph
from onnxprune.ops import OPS, why_unknown
from onnxprune.ops.node import Node, node_of
from onnxprune.ops.unknown import REASONS
from tests.support.models import model

NAMES = sorted({s.name for s in onnx.defs.get_all_schemas() if not s.domain})
TABLE = [name for names in REASONS.values() for name in names.split()]


def newest(name: str) -> Node:
    proto = onnx.helper.make_node(name, [], ["y"])
    return node_of(proto, {"": onnx.defs.onnx_opset_version()}, name="it")


@pytest.mark.parametrize("name", NAMES)
def test_an_operator_is_described_or_has_a_reason(name: str) -> None:
    node = newest(name)
    assert node.op is not None or "does not know" not in why_unknown(node)


def test_the_table_holds_operators_of_onnx_that_are_not_described_once_each() -> None:
    assert len(TABLE) == len(set(TABLE))
    assert set(TABLE) <= set(NAMES)
    assert not [name for name in TABLE if ("", name) in OPS]
    assert not [reason for reason in REASONS if not re.match(r"(which|whose) [a-z ,]+$", reason)]


def reason_of(node: str, *, opset: int = 17, domain: str = "") -> str:
    imports = f'"": {opset}' + (f', "{domain}": 1' if domain else "")
    text = f"""
        net (float[N,3,4,4] x) => (float[N,4,4,4] y) <float[4,3,1,1] w> {{
            a = Conv(x, w)
            y = {node}
        }}"""
    proto = model(text, header=f"<ir_version: 8, opset_import: [{imports}]>")
    (reason,) = set(find_groups(Graph(proto)).pinned.values())
    return reason.text


def test_inspect_says_why() -> None:
    assert (
        reason_of("RandomNormalLike(a)") == "feeds RandomNormalLike 'y', which draws random numbers"
    )


def test_inspect_says_what_to_do_with_an_old_version() -> None:
    assert reason_of("Neg(a)", opset=4) == (
        "feeds Neg 'y', whose version 1 onnxprune does not know; convert the model to a newer "
        "opset with onnx.version_converter"
    )


def test_a_domain_has_a_reason() -> None:
    found = reason_of("com.microsoft.nchwc.ReorderInput(a)", domain="com.microsoft.nchwc")
    assert "which onnxruntime wrote for one processor" in found


def test_a_version_from_the_future_is_named() -> None:
    node = Node(onnx.NodeProto(op_type="Relu"), "r", "", 99, None, {})
    assert why_unknown(node) == "whose version 99 is newer than onnxprune knows (14)"
