"""What tf2onnx leaves as TensorFlow calls it is computed by operators of ONNX."""

import math

import numpy as np
import onnx
import pytest
import torch

from onnxprune.converters import Export, Options, _export
from onnxprune.evaluation import session
from tests.support.conversion import refusal


def left(node: str) -> Export:
    model = onnx.parser.parse_model(
        f"""<ir_version: 9, opset_import: ["": 15]> g (float[N, 40] x) => (float[N, 40] y)
        {{ z = Neg (x) w = {node} (z) v = {node} (w) y = Neg (v) }}"""
    )
    return Export(model, lambda x: [x], (40,))


@pytest.mark.parametrize(
    ("node", "does"),
    [
        ("Erfc", torch.special.erfc),
        ("TFL_GELU", torch.nn.functional.gelu),
        ("TFL_GELU <approximate = 0>", torch.nn.functional.gelu),
        (
            "TFL_GELU <approximate = 1>",
            lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        ),
    ],
)
def test_what_is_left_is_written_in_operators_of_onnx(node: str, does: object) -> None:
    exported = left(node)
    finished = _export.finish(exported, "net", Options())
    assert {one.op_type for one in exported.model.graph.node} >= {node.split()[0]}, "not changed"
    x = np.linspace(-4, 4, 80, dtype=np.float32).reshape(2, 40)
    (found,) = session(finished, device="cpu").run(None, {"x": x})
    expected = -does(does(torch.from_numpy(-x)))  # type: ignore[operator]
    assert np.abs(found - expected.numpy()).max() < 1e-6 * math.e
    assert len({one.name for one in finished.graph.initializer}) == len(finished.graph.initializer)


def test_what_nobody_knows_is_refused_by_name() -> None:
    message = refusal(_export.finish, left("TFL_HASHTABLE"), "net", Options())
    assert "left TFL_HASHTABLE in the model" in message
