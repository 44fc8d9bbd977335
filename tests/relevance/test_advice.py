"""What an error advises works on the model that it is about."""

import re
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.channels import find_groups
from onnxprune.data import Data
from onnxprune.errors import UnsupportedOp
from onnxprune.graph import Graph
from onnxprune.relevance import score
from tests.support.models import images, model

HEAD = "net (float[N,3,8,8] x) => (float[N,3] y) <float[4,3,3,3] w, float[4,3] v> {"
TAIL = " p = GlobalAveragePool(b) f = Flatten(p) y = MatMul(f, v) }"
ROUND = "sc = Constant<value = float {0.1}> () z = Constant<value = int8 {0}> () "
ROUND += "q = QuantizeLinear(a, sc, z) b = DequantizeLinear(q, sc, z)"
BODIES = {
    "LRP is not defined": ("a = Conv(x, w) b = Hardmax<axis=2>(a)", "activation"),
    "no gradient": ("a = Conv(x, w) " + ROUND, "lrp"),
    "no gradient, and LRP is not defined": (
        "c = Conv(x, w) a = Hardmax<axis=2>(c) " + ROUND,
        "activation",
    ),
    "torch does not know it": (
        "a = Conv(x, w) u = Unique(x) s = Size(u) g = Cast<to=1>(s) o = Min(g, e) b = Mul(a, o)",
        "magnitude",
    ),
}


def setting(body: str) -> tuple[Any, Data]:
    declared = HEAD.replace("v>", "v, float e>") if "e)" in body else HEAD
    proto = model(declared + body + TAIL)
    return proto, Data(images(proto, 6), np.array([0, 1, 2, 0, 1, 2]), ("cat", "dog", "ship"))


@pytest.mark.parametrize("asked", ["lrp", "lrp:zplus", "taylor", "gradient"])
@pytest.mark.parametrize(("body", "advised"), BODIES.values(), ids=BODIES)
def test_what_is_advised_works(body: str, advised: str, asked: str) -> None:
    proto, data = setting(body)
    graph = Graph(proto)
    groups = find_groups(graph)
    try:
        score(graph, groups, data, asked, device="cpu")
    except UnsupportedOp as error:
        said = str(error)
    else:
        assert asked.partition(":")[0] not in ("lrp", "gradient") or advised != "activation"
        return
    found = re.search(r"; or use --criterion ([\w-]+)( and --compensate none)?$", said)
    assert found, said
    assert found[1] == advised
    assert found[1] != asked
    options: dict[str, Any] = {"compensate": "none"} if found[2] else {}
    options |= {"control": "one-shot", "rate": 0.25, "device": "cpu", "trust_baseline": True}
    result = onnxprune.prune(proto, data, criterion=found[1], **options)
    assert result.report["rate"] >= 0.25
