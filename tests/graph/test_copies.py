"""A model of any size is copied whole, and nothing copies one through a message."""

import re
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.graph import copies
from onnxprune.graph.copies import copied
from tests.support.models import model

NET = """
net (float[N, 4] x) => (float[N, 3] y) <float[3, 4] w, float[3] b> {
    y = Gemm <transB = 1> (x, w, b)
}
"""


@pytest.mark.parametrize("limit", [0, copies.HANDED_ON])
def test_a_copy_is_the_model(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(copies, "HANDED_ON", limit)
    proto = model(NET)
    first = proto.graph.initializer[0]
    first.doc_string = "a weight"
    first.metadata_props.add(key="made", value="here")
    proto.graph.initializer.append(helper.make_tensor("listed", 1, [2], [1.0, 2.0]))
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"))
    proto.metadata_props.add(key="a", value="b")
    found = copied(proto)
    assert found.SerializeToString() == proto.SerializeToString()
    found.graph.initializer[0].name = "other"
    assert first.name != "other"


def test_no_model_is_copied_through_a_message() -> None:
    """protobuf's own copy serialises, and refuses more than 2 GB."""
    whole = re.compile(r"\.CopyFrom\((?:\w+\.)*(?:model|proto|bare|\w+_model)\)")
    package = Path(onnxprune.__file__).parent
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in package.rglob("*.py")
        for line in path.read_text("utf-8").splitlines()
        if whole.search(line)
    ]
    assert [line for line in found if "node.proto" not in line] == []
